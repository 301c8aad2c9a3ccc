"""From a training checkpoint to a bundle that the runtime loads (ONNX graphs, verified), and from
a bundle to a server's model repository. Only the former needs torch."""
