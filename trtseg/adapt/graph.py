"""Weights in and out of an ONNX graph, by the names they have in the network's state dict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from trtseg.errors import BundleError


class AdaptableGraph:
    """A graph of which some initialisers are replaced again and again.

    Weights stored as FP16 and cast to FP32 inside an FP32 graph become FP32 initialisers:
    adaptation moves them by less than FP16 resolves.

    Attributes:
        dtypes: of the replaceable initialisers, as the graph computes with them.

    Args:
        graph: serialised.
        names: the initialisers that will be replaced.

    Raises:
        BundleError: the graph has no initialiser of such a name.
    """

    def __init__(self, graph: bytes, names: Mapping[str, object] | list[str]) -> None:
        self._model = onnx.load_from_string(graph)
        found = {value.name: value for value in self._model.graph.initializer}
        missing = sorted(set(names) - set(found))
        if missing:
            raise BundleError(f"the graph has no initialiser {missing[0]!r}; it cannot be adapted")
        self._initialisers = {name: found[name] for name in names}
        self._remove_casts()
        self.dtypes = {
            name: np.dtype(np.float16 if value.data_type == TensorProto.FLOAT16 else np.float32)
            for name, value in self._initialisers.items()
        }

    def _remove_casts(self) -> None:
        nodes = self._model.graph.node
        for node in list(nodes):
            if node.op_type != "Cast" or node.input[0] not in self._initialisers:
                continue
            name, wide = node.input[0], node.output[0]
            if node.attribute[0].i != TensorProto.FLOAT:
                continue
            initialiser = self._initialisers[name]
            values = numpy_helper.to_array(initialiser).astype(np.float32)
            initialiser.CopyFrom(numpy_helper.from_array(values, name))
            nodes.remove(node)
            for other in nodes:
                for index, source in enumerate(other.input):
                    if source == wide:
                        other.input[index] = name

    def serialised(self) -> bytes:
        """The graph, with the values it has now."""
        return self._model.SerializeToString()

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> bytes:
        """The graph, serialised, with new values of the replaceable initialisers.

        Raises:
            ValueError: a shape differs.
        """
        for name, initialiser in self._initialisers.items():
            values = weights[name]
            if tuple(initialiser.dims) != values.shape:
                raise ValueError(
                    f"{name}: expected shape {list(initialiser.dims)}, got {list(values.shape)}"
                )
            values = np.ascontiguousarray(values, self.dtypes[name])
            initialiser.CopyFrom(numpy_helper.from_array(values, name))
        return self.serialised()
