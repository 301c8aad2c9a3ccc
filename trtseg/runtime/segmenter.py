"""A loaded model: encodes images and opens sessions on them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np

from trtseg import bundle as bundles
from trtseg.bundle import Bundle
from trtseg.errors import BackendUnavailable
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import Availability, Engines, Progress
from trtseg.runtime.image import LONGEST_SIDE_PX, as_picture
from trtseg.runtime.maps.tidy import Tidy
from trtseg.runtime.memory_plan import MemoryPlan, memory_plan
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.session import Session, saved
from trtseg.runtime.session.arguments import accepted
from trtseg.runtime.session.observation import Adapter
from trtseg.runtime.session.snapshot import KEPT_CROPS
from trtseg.types import Region, flip_axes

# In the order in which backend="auto" asks them.
BACKENDS = {
    "tensorrt": "trtseg.runtime.tensorrt",
    "onnxruntime": "trtseg.runtime.onnxruntime",
}


def availability() -> dict[str, Availability]:
    """Whether each backend can be used here, and why not."""
    return {
        name: importlib.import_module(module).availability() for name, module in BACKENDS.items()
    }


class Segmenter:
    """A model, ready to run. One is shared by any number of threads and sessions.

    Attributes:
        bundle: the model it runs.
        engines: the networks, loaded.
    """

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        """From networks that were loaded elsewhere; see `load` for the usual way.

        Raises:
            EngineError: the networks do not have the agreed inputs and outputs.
        """
        self.bundle, self.engines = bundle, engines
        self.pipeline = Pipeline(bundle, engines)

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str] | Bundle = "lite",
        *,
        backend: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        progress: Progress | None = None,
    ) -> Segmenter:
        """Load a model.

        TensorRT's engines are built here when they are not in the cache, which takes minutes, once
        on a machine: `trtseg build-engine` does it beforehand, backend="onnxruntime" never builds,
        and `trtseg.runtime.upgrade.Upgrade` answers clicks on the CPU meanwhile.

        Args:
            name_or_path: a model inside the package, or the path of a bundle; or a bundle that was
                read.
            backend: "auto" (the first usable one), "onnxruntime" or "tensorrt".
            device: where to run, as the backend names it; by default its own choice.
            threads: of the CPU; by default one per physical core.
            precision: "fp32" or "fp16"; by default what suits the device.
            progress: called with (fraction from 0 to 1, phase), from this thread, while an engine
                is built; the fraction begins again with each engine. What it raises ends the build
                and comes out of this call.

        Raises:
            BundleError: no such bundle, or it is damaged.
            BackendUnavailable: the backend cannot be used here; the message says why.
            EngineError: a network could not be loaded.
            TypeError, ValueError: an argument is none of the above.
        """
        if backend != "auto" and backend not in BACKENDS:
            raise ValueError(f"backend: expected auto, {', '.join(BACKENDS)}, got {backend!r}")
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, int) or threads < 1
        ):
            raise ValueError(f"threads: expected an integer of at least 1, got {threads!r}")
        if device is not None and not isinstance(device, str):
            raise TypeError(f"device: expected a name such as 'cpu' or 'cuda:0', got {device!r}")
        if precision not in (None, "fp32", "fp16"):
            raise ValueError(f"precision: expected fp32 or fp16, got {precision!r}")
        bundle = name_or_path
        if not isinstance(bundle, Bundle):
            bundle = bundles.read(bundle)
        reasons = []
        wanted = tuple(BACKENDS) if backend == "auto" else (backend,)
        if backend == "auto" and device is not None and device.startswith("cpu"):
            wanted = ("onnxruntime",)
        for name in wanted:
            module = importlib.import_module(BACKENDS[name])
            state = module.availability()
            if state.usable:
                engines = module.load(
                    bundle, device=device, threads=threads, precision=precision, progress=progress
                )
                segmenter = cls(bundle, engines)
                if engines.segment.inputs[0].dtype == np.float16:
                    from trtseg.runtime.pipeline.self_check import check_half

                    check_half(bundle, segmenter.pipeline)
                return segmenter
            reasons.append(f"{name}: {state.reason}")
        raise BackendUnavailable("; ".join(reasons))

    @property
    def candidates(self) -> int:
        """How many candidates each click gives."""
        return self.bundle.manifest.candidates

    def accepts(self, kind: str) -> bool:
        """Whether sessions take "click", "stroke", "box", "lasso", or a "mask" to continue from.

        Raises:
            ValueError: none of these.
        """
        if kind not in ("click", "stroke", "box", "lasso", "mask"):
            raise ValueError(f"kind: expected click, stroke, box, lasso or mask, got {kind!r}")
        return kind in accepted(self.bundle.manifest)

    def encode(
        self,
        image: np.ndarray,
        image_format: str | None = None,
        *,
        region: tuple[int, int, int, int] | None = None,
    ) -> EncodedImage:
        """Do all the work on an image that no click changes.

        Args:
            image: [H, W] or [H, W, C] array (or a Pillow image): uint8, uint16, or floating point
                in [0, 1]; sides of 1 to 32,766 pixels; any strides. It is not copied: leave its
                pixels alone while sessions on it are open, since focus crops read them.
                With the TensorRT backend also an array on its GPU, of CuPy, torch, PyCUDA or any
                library with `__cuda_array_interface__` or DLPack: uint8, float16 or float32. It
                is read on the GPU, after what its producer has queued on it, and never copied
                to the host.
            image_format: "GRAY", "RGB", "BGR", "RGBA" or "BGRA"; by default GRAY, RGB or RGBA
                according to the number of channels.
            region: (x0, y0, x1, y1), half open: encode only this part; clicks must lie in it, and
                masks are empty outside of it.

        Returns:
            An immutable encoding. Nothing is stored in the segmenter.

        Raises:
            TypeError: not an image of such a kind.
            ValueError: wrong shape, size, format, values, or a region outside of the image.
            EngineError: the encoder failed.
        """
        picture = as_picture(image, image_format)
        return self.pipeline.encode(picture, _checked_region(region, picture.size))

    def session(
        self,
        encoded: EncodedImage,
        *,
        focus: str | None = "auto",
        local: bool = False,
        adapt: Adapter | None = None,
        drop_islands_px: float | None = None,
        fill_holes_px: float | None = None,
        edges: bool = False,
    ) -> Session:
        """Begin to select one object.

        Args:
            encoded: what `encode` gave.
            focus: "auto" to look more closely at objects that are small in the image, after the
                first click; None to work on the encoding alone. An encoding without its image
                (an unpickled one) is never focused.
            local: from the second prompt on, change only the part of the mask that a click or a
                stroke touches: for a mask that is nearly right. Else all that the networks think
                anew is shown, which takes fewer clicks to a good mask.
            adapt: learns from the clicks, for instance `trtseg.adapt.ClickAdapter(segmenter)`.
            drop_islands_px: parts of a mask with fewer pixels are dropped, unless a positive
                click lies in them; None for a tenth of the largest part, 0 to keep all.
            fill_holes_px: holes with fewer pixels are filled, unless a negative click lies in
                them; None for a twentieth of the largest part, 0 to keep all.
            edges: let contours follow the image's edges as finely as the networks saw it; False
                for the networks' own maps, which spares some milliseconds of a click.

        Raises:
            TypeError: not an encoding, local or edges is no bool, not an adapter, or a size is no
                number.
            ValueError: made by another model, an unknown value for focus, or a size is negative.
        """
        if focus not in ("auto", None):
            raise ValueError(f"focus: expected 'auto' or None, got {focus!r}")
        for name, value in (("local", local), ("edges", edges)):
            if not isinstance(value, bool):
                raise TypeError(f"{name}: expected a bool, got {value!r}")
        tidy = Tidy(drop_islands_px, fill_holes_px)
        options = saved.Options(
            focus == "auto", local, adapt is not None, tidy.drop_islands_px, tidy.fill_holes_px,
            edges,
        )  # fmt: skip
        return self._session(encoded, options, adapt)

    def _session(
        self, encoded: EncodedImage, options: saved.Options, adapt: Adapter | None
    ) -> Session:
        if not isinstance(encoded, EncodedImage):
            raise TypeError(f"encoded: expected an EncodedImage, got {type(encoded).__name__}")
        if encoded.model != self.pipeline.model:
            raise ValueError(f"encoded: expected an encoding by this model ({self.bundle.name})")
        if adapt is not None and not hasattr(adapt, "adapt"):
            raise TypeError(f"adapt: expected an adapter or None, got {adapt!r}")
        return Session(self.pipeline, self.pipeline.adopt(encoded), options, adapt)

    def open(
        self,
        path: str | os.PathLike[str],
        image: np.ndarray | EncodedImage,
        image_format: str | None = None,
        *,
        adapt: Adapter | None = None,
    ) -> Session:
        """Go on with a session that `Session.save` wrote: the same mask, bit for bit.

        All of its events happen again, one after the other: `undo` takes them back.

        Args:
            path: of the file.
            image: the same pixels, as `encode` takes them; or an encoding of them, which saves
                the time where it is of the same region.
            image_format: as for `encode`.
            adapt: where the session had an adapter, one that begins like it.

        Raises:
            ValueError: no such file's content, of another model or another image, or saved with
                an adapter where there is none now, or the other way round.
            TypeError: not an image, or not an adapter.
            EngineError: a network failed.
            OSError: the file cannot be read.
        """
        kept = saved.read(Path(path))
        if kept.model != self.bundle.fingerprint:
            raise ValueError(f"{path}: expected a session of this model, {self.bundle.name}")
        if kept.options.adapted != (adapt is not None):
            raise ValueError(
                f"adapt: expected {'an adapter' if kept.options.adapted else 'None'}, "
                "as the session was saved with"
            )
        encoded = image if isinstance(image, EncodedImage) else None
        picture = as_picture(image, image_format) if encoded is None else encoded.source
        if picture is None:
            raise ValueError("image: expected an encoding with its image (see `with_image`)")
        saved.check_image(kept, picture.size, picture.digest())
        try:
            region = _checked_region(flip_axes(kept.region), picture.size)
            if encoded is None or encoded.region != region:
                encoded = self.pipeline.encode(picture, region)
            session = self._session(encoded, kept.options, adapt)
            kept.replay(session)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return session

    def warm_up(self, height: int, width: int) -> None:
        """Encode an empty image of this size and click twice, and forget it.

        The first image of a size and the first clicks on it make buffers, choose algorithms and, on
        a GPU, record the work: a program that calls this before its first user has that behind it.

        Raises:
            TypeError, ValueError, OutOfMemory, EngineError: as `encode` and `Session.add_click`.
        """
        self.memory_plan(height, width)  # which checks the sides
        session = self.session(self.encode(np.zeros((height, width, 3), np.uint8)), focus=None)
        for _ in range(2):  # the second one goes on from a mask
            session.add_click(width // 2, height // 2)

    def memory_plan(self, height: int, width: int) -> MemoryPlan:
        """Bytes that an image of this size will take.

        Raises:
            TypeError: a side is no integer.
            ValueError: a side is not between 1 and 32,766.
        """
        for name, side in (("height", height), ("width", width)):
            if isinstance(side, bool) or not isinstance(side, (int, np.integer)):
                raise TypeError(f"{name}: expected an integer, got {side!r}")
            if not 1 <= side <= LONGEST_SIDE_PX:
                raise ValueError(f"{name}: expected 1 to {LONGEST_SIDE_PX}, got {side}")
        return memory_plan(self.pipeline, int(height), int(width), KEPT_CROPS)

    def __repr__(self) -> str:
        return f"Segmenter({self.bundle.name!r}, {self.engines.description})"


def _checked_region(
    region: tuple[int, int, int, int] | None, size: tuple[int, int]
) -> Region:
    """(x0, y0, x1, y1) of the caller as (y0, x0, y1, x1)."""
    height, width = size
    if region is None:
        return 0, 0, height, width
    try:
        x0, y0, x1, y1 = (int(side) for side in region if side == int(side))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"region: expected 4 integers x0, y0, x1, y1, got {region!r}") from None
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"region: expected a part of {width} x {height} pixels, got {region!r}")
    return flip_axes((x0, y0, x1, y1))
