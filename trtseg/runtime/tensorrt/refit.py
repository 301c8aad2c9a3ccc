"""Adapted weights into a running engine: refit the idle one of two, probe it, swap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trtseg.errors import EngineError
from trtseg.runtime.tensorrt.device_memory import CudaMemory
from trtseg.runtime.tensorrt.execution import TensorRTEngine
from trtseg.runtime.tensorrt.library import collect


class RefitPair:
    """Two engines of one refittable plan, so that one answers while the other learns.

    Refitting is undefined while the engine has work on the GPU, and a refit that fails half way
    leaves it with weights from both. So the idle engine is refitted, run once on a probe, and
    only then becomes the one that answers; after a failure it is loaded again from its plan.

    Args:
        make: loads one engine of the plan.

    Raises:
        EngineError: the plan cannot be loaded.
    """

    def __init__(self, make: Callable[[], TensorRTEngine]) -> None:
        self._make = make
        self._active, self._idle = make(), make()
        # Whose weights they have; None for those of the plan, or not known.
        self._active_owner: object | None = None
        self._idle_owner: object | None = None
        self._dirty = False

    @property
    def engine(self) -> TensorRTEngine:
        """The engine that answers; after `refit` it is another one."""
        return self._active

    @property
    def memory(self) -> CudaMemory:
        """Where both engines' buffers live. While its `queueing` is held no weights change."""
        return self._active.memory

    def engine_with(
        self, owner: object, weights: Callable[[], Mapping[str, Any]]
    ) -> TensorRTEngine:
        """The engine that has an owner's weights: one of the two, or refitted now.

        It has them for as long as the caller holds `memory.queueing()`.

        Args:
            owner: stands for the weights; compared by identity, and kept alive.
            weights: gives them, see `refit`.

        Raises:
            EngineError: see `refit`.
        """
        with self.memory.queueing():
            if self._active_owner is not owner and self._idle_owner is owner:
                self._swap()
            if self._active_owner is not owner:
                self.refit(weights())
                self._active_owner = owner
            return self._active

    def refit(self, weights: Mapping[str, Any]) -> TensorRTEngine:
        """Put weights into the idle engine and make it the one that answers.

        Args:
            weights: ONNX initialiser name -> contiguous device array of the graph's dtype and
                element count. Names that are left out keep the idle engine's values, so give
                the same names every time.

        Returns:
            The engine with the new weights.

        Raises:
            EngineError: a name is not refittable, a dtype or count differs, TensorRT fails, or
                the probe gives values that are not finite. The engine that answered before
                still does, unchanged.
        """
        # The same lock under which work is queued, on whichever lane.
        with self.memory.queueing():
            self._idle_owner = None
            if self._dirty:
                self._idle, self._dirty = self._make(), False
            try:
                self._apply(self._idle, weights)
                self._probe(self._idle)
            except BaseException:
                self._dirty = True
                raise
            self._swap()
            return self._active

    def _swap(self) -> None:
        self._active, self._idle = self._idle, self._active
        self._active_owner, self._idle_owner = self._idle_owner, self._active_owner

    def _apply(self, engine: TensorRTEngine, weights: Mapping[str, Any]) -> None:
        trt = engine.tensorrt.module
        kinds = {np.dtype(np.float16): trt.float16, np.dtype(np.float32): trt.float32}
        with collect() as messages:
            engine.memory.synchronize_all()
            refitter = trt.Refitter(engine.handle, engine.tensorrt.logger)
            for name, array in weights.items():
                kind = kinds.get(np.dtype(array.dtype))
                if kind is None or not array.flags.c_contiguous:
                    raise EngineError(
                        f"{engine.name}: {name}: expected contiguous float16 or float32, "
                        f"got {array.dtype}"
                    )
                given = trt.Weights(kind, int(array.data.ptr), int(array.size))
                if not refitter.set_named_weights(name, given, trt.TensorLocation.DEVICE):
                    raise EngineError(
                        f"{engine.name}: {name} cannot be replaced: {messages.summary()}"
                    )
            missing = refitter.get_missing_weights()
            if missing:
                raise EngineError(
                    f"{engine.name}: also give the weights of {', '.join(sorted(missing))}"
                )
            done = refitter.refit_cuda_engine_async(engine.memory.stream)
            # The arrays must live until the GPU has read them, whatever the outcome.
            engine.memory.synchronize()
            if not done:
                raise EngineError(f"{engine.name}: the refit failed: {messages.summary()}")
            engine.generation += 1

    def _probe(self, engine: TensorRTEngine) -> None:
        """One run at the smallest size: the weights may be right and the engine still not."""
        shapes = engine.smallest_shapes()
        memory = engine.memory
        buffers = {spec.name: spec.empty(memory, shapes[spec.name]) for spec in engine.inputs}
        for array in buffers.values():
            memory.fill(array, 0.5)
        for spec in engine.outputs:
            buffers[spec.name] = spec.empty(memory, engine.output_shapes(shapes)[spec.name])
        engine.bind(buffers, memory.stream).run()
        for spec in engine.outputs:
            if not np.isfinite(memory.host(buffers[spec.name])).all():
                raise EngineError(f"{engine.name}: {spec.name} is not finite with the new weights")
