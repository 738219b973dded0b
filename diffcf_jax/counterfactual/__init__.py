"""The counterfactual methods and the engine that runs them over many images."""
