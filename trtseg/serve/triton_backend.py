"""What Triton's Python backend runs for `export-triton --pipeline`; it lies in the repository as
`model.py`, and trtseg is installed where the server's Python finds it.

A sequence of requests is one object in one image: its first request brings the image.
"""

from __future__ import annotations

import json
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from trtseg import Segmenter
from trtseg.runtime.image import load_image
from trtseg.serve.prompts import apply, from_json


class TritonPythonModel:
    """The whole chain: an image's file and prompts in, the mask out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle that the configuration names."""
        config = json.loads(args["model_config"])
        name = config["parameters"]["trtseg_bundle"]["string_value"]
        device = "cpu"
        if args["model_instance_kind"] == "GPU":
            device = f"cuda:{args['model_instance_device_id']}"
        self._segmenter = Segmenter.load(name, device=device)
        # A sequence that was never ended leaves its session here. Those that the server has given
        # up were used longer ago than any that lives.
        self._sessions: OrderedDict[int, Any] = OrderedDict()
        batching = config["sequence_batching"]
        self._most = int(batching["oldest"]["max_candidate_sequences"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; what is wrong with one is told in its own answer."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            key = _first(request, "CORRID")
            if _first(request, "START"):
                self._sessions[key] = self._begin(_values(request, "IMAGE"))
                while len(self._sessions) > self._most:
                    self._sessions.popitem(last=False)
            if key not in self._sessions:
                raise ValueError("START: expected a sequence that was begun")
            self._sessions.move_to_end(key)
            session = self._sessions[key]
            given = _values(request, "PROMPTS")
            said = [] if given is None or not given.size else json.loads(given.tobytes())
            if not isinstance(said, list):
                raise ValueError("PROMPTS: expected a list")
            for value in said:
                apply(session, from_json(value))
            prediction = session.prediction
        except Exception as error:  # whatever it is, the server goes on
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error)))
        finally:
            if _first(request, "END"):
                self._sessions.pop(_first(request, "CORRID"), None)
        outputs = (
            ("MASK", prediction.mask),
            ("SCORES", prediction.scores.astype(np.float32)),
            ("SELECTED", np.array([prediction.selected], np.int32)),
        )
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor.from_dlpack(name, np.array(value)) for name, value in outputs]
        )

    def _begin(self, data: np.ndarray | None) -> Any:
        if data is None:
            raise ValueError("IMAGE: expected an image's file at the beginning of a sequence")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(data.tobytes())
            picture = load_image(path)
        encoded = self._segmenter.encode(picture.pixels, picture.image_format)
        return self._segmenter.session(encoded)


def _values(request: Any, name: str) -> np.ndarray | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    # not as_numpy(): from NumPy 2 on, backends built for NumPy 1 give its first value everywhere
    return None if tensor is None else np.from_dlpack(tensor).reshape(-1)


def _first(request: Any, name: str) -> int:
    """Of what the server itself says of every request of a sequence."""
    values = _values(request, name)
    assert values is not None
    return int(values[0])
