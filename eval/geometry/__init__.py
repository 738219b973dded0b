"""How a Diff-AE's images lie around a counterfactual: tangent space, gradient, nearest point."""
