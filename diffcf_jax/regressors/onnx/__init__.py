"""A reader of ONNX files into differentiable functions of JAX."""
