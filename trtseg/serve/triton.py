"""A session that lives on a Triton server; see `trtseg export-triton --pipeline`."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable, EngineError
from trtseg.serve import prompts
from trtseg.serve.prompts import Prompt


class RemoteSession:
    """One object in one image, over HTTP. Close it, or use it as a context manager.

    Not for several threads at once.
    """

    def __init__(self, image: bytes, *, url: str = "localhost:8000", model: str) -> None:
        """Send the image's file; it is encoded at once.

        Args:
            image: a file's bytes, as `load_image` reads them.
            url: of the server, without a scheme.
            model: the name of the pipeline, for instance "lite_pipeline".

        Raises:
            BackendUnavailable: tritonclient is not installed.
            EngineError: the server refused.
        """
        try:
            import tritonclient.http as http
        except ImportError:
            raise BackendUnavailable(
                "a Triton server is asked through tritonclient: pip install 'tritonclient[http]'"
            ) from None
        self._http, self._model = http, model
        self._client = http.InferenceServerClient(url)
        self._key = secrets.randbits(62) + 1
        try:
            self.mask, self.scores, self.selected = self._ask((), image=image, start=True)
        except EngineError:
            # the server keeps a place for a sequence until it ends, even for one that began badly
            with contextlib.suppress(EngineError):
                self._ask((), end=True)
            self._client.close()
            raise

    def say(self, *said: Prompt) -> np.ndarray:
        """The mask after these prompts, uint8 [H, W], 0 and 255.

        Raises:
            EngineError: the server refused; it did the prompts before the one it names.
        """
        self.mask, self.scores, self.selected = self._ask(said)
        return self.mask

    def close(self) -> None:
        """Let the server forget the session."""
        self._ask((), end=True)
        self._client.close()

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, said: tuple[Prompt, ...], *, image: bytes = b"", start: bool = False,
        end: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, int]:  # fmt: skip
        text = json.dumps([prompts.to_json(prompt) for prompt in said])
        inputs = [self._input("PROMPTS", text.encode())]
        if start:
            inputs.append(self._input("IMAGE", image))
        try:
            answer = self._client.infer(
                self._model, inputs, sequence_id=self._key, sequence_start=start, sequence_end=end
            )
        except Exception as error:  # of tritonclient's own kinds, and of the network's
            raise EngineError(f"{self._model}: {error}") from None
        found = [answer.as_numpy(name) for name in ("MASK", "SCORES", "SELECTED")]
        return found[0], found[1], int(found[2][0])

    def _input(self, name: str, data: bytes) -> Any:
        made = self._http.InferInput(name, [len(data)], "UINT8")
        made.set_data_from_numpy(np.frombuffer(data, np.uint8))
        return made
