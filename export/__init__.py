"""From a training checkpoint to a bundle that the runtime loads: ONNX graphs, verified."""

from trtseg.export.bundle import export_bundle
from trtseg.export.graphs import network_graphs
from trtseg.export.verify import Limits, verify_graphs

__all__ = ["Limits", "export_bundle", "network_graphs", "verify_graphs"]
