"""The pipeline's program against a stub of Triton's Python backend. No server runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import Segmenter
from trtseg import bundle as bundles
from trtseg.cli import main
from trtseg.export.triton import pipeline_model
from trtseg.serve import triton
from trtseg.serve.prompts import SelectPrompt
from trtseg.types import Click

from .test_triton import parse


class Tensor:
    """As a server's, whose `as_numpy` is broken where NumPy is newer than the server."""

    def __init__(self, name: str, value: np.ndarray) -> None:
        self.name, self.value = name, np.array(value)  # what is read-only is no one's to give

    @classmethod
    def from_dlpack(cls, name: str, value: np.ndarray) -> Tensor:
        return cls(name, np.from_dlpack(value))

    def __dlpack__(self, **options: object) -> object:
        return self.value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.value.__dlpack_device__()


STUB = SimpleNamespace(
    Tensor=Tensor,
    TritonError=str,
    InferenceResponse=lambda outputs, error=None: SimpleNamespace(outputs=outputs, error=error),
    get_input_tensor_by_name=lambda request, name: request.get(name),
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "tiny.trtseg")
    path = tmp_path / "models"
    words = ["export-triton", str(tmp_path / "tiny.trtseg"), str(path), "--pipeline"]
    assert main([*words, "--kind", "cpu"]) == 0
    return path / "tiny_pipeline"


@pytest.fixture
def model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", STUB)
    spec = importlib.util.spec_from_file_location("model", repository / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = parse((repository / "config.pbtxt").read_text())
    (parameter,) = config["parameters"]
    value = parameter["value"][0]["string_value"][0]
    (oldest,) = config["sequence_batching"][0]["oldest"]
    made = module.TritonPythonModel()
    made.initialize(
        {
            "model_config": json.dumps(
                {
                    "parameters": {parameter["key"][0]: {"string_value": value}},
                    "sequence_batching": {"oldest": {name: v for name, (v,) in oldest.items()}},
                }
            ),
            "model_instance_kind": "CPU", "model_instance_device_id": "0",
        }
    )  # fmt: skip
    return made


def photo() -> np.ndarray:
    y, x = np.mgrid[:120, :160]
    waves = [np.sin(x / 17 + k) + np.cos(y / 23 - k) for k in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


def request(
    key: int, *, start: bool = False, end: bool = False, **inputs: Any
) -> dict[str, Tensor]:
    given = {
        "START": np.array([start], np.int32), "END": np.array([end], np.int32),
        "CORRID": np.array([key], np.uint64), **inputs,
    }  # fmt: skip
    return {name: Tensor(name, value) for name, value in given.items()}


def said(*values: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def test_the_configuration(repository: Path) -> None:
    config = parse((repository / "config.pbtxt").read_text())
    assert config["backend"] == ["python"]
    assert [tensor["name"][0] for tensor in config["input"]] == ["IMAGE", "PROMPTS"]
    assert [tensor["name"][0] for tensor in config["output"]] == ["MASK", "SCORES", "SELECTED"]
    (batching,) = config["sequence_batching"]
    kinds = [control["control"][0]["kind"][0] for control in batching["control_input"]]
    assert kinds == [f"CONTROL_SEQUENCE_{name}" for name in ("START", "END", "CORRID")]
    lite = bundles.find("lite") if "lite" in bundles.names() else None
    if lite is not None:
        assert 'string_value: "lite"' in pipeline_model(bundles.read("lite")).config


def test_sequences_answer_as_sessions_do_and_do_not_mix(model: Any) -> None:
    segmenter = model._segmenter
    images = [photo(), photo()[:, ::-1].copy()]
    sessions = [segmenter.session(segmenter.encode(image)) for image in images]
    for key, image in enumerate(images):
        data = np.frombuffer(cv2.imencode(".png", image[..., ::-1])[1].tobytes(), np.uint8)
        (answer,) = model.execute([request(key, start=True, IMAGE=data)])
        assert answer.error is None
        assert not answer.outputs[0].value.any()
    for x in (40, 80):
        click = said({"type": "click", "x": x, "y": 60})
        answers = model.execute([request(key, PROMPTS=click) for key in (0, 1)])
        for session, answer in zip(sessions, answers, strict=True):
            p = session.add_click(x, 60)
            mask, scores, selected = (tensor.value for tensor in answer.outputs)
            np.testing.assert_array_equal(mask, p.mask)
            np.testing.assert_array_equal(scores, p.scores)
            assert selected == [p.selected]
    (answer,) = model.execute([request(0, end=True, PROMPTS=said())])
    assert answer.error is None
    (answer,) = model.execute([request(0, PROMPTS=said())])
    assert "START" in answer.error


@pytest.mark.parametrize(
    "inputs",
    [{}, {"IMAGE": np.frombuffer(b"no image", np.uint8)}],
    ids=["no image", "no image's file"],
)
def test_what_is_wrong_is_told_in_the_answer(model: Any, inputs: dict[str, Any]) -> None:
    (answer,) = model.execute([request(7, start=True, **inputs)])
    assert answer.error


def test_sessions_that_nobody_ends_do_not_pile_up(model: Any) -> None:
    model._most = 3
    data = np.frombuffer(cv2.imencode(".png", photo())[1].tobytes(), np.uint8)
    for key in range(3):
        model.execute([request(key, start=True, IMAGE=data)])
    model.execute([request(0)])
    model.execute([request(9, start=True, IMAGE=data)])
    assert list(model._sessions) == [2, 0, 9]
    (refused,) = model.execute([request(1, end=True)])
    assert "a sequence that was begun" in refused.error
    (refused,) = model.execute([request(2, end=True, PROMPTS=said(5))])
    assert refused.error
    assert list(model._sessions) == [0, 9], "it has ended all the same"


def test_the_client_speaks_as_the_program_hears(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InferInput:
        def __init__(self, name: str, shape: list[int], kind: str) -> None:
            self.name = name

        def set_data_from_numpy(self, value: np.ndarray) -> None:
            self.value = value

    class Server:
        def __init__(self, url: str) -> None:
            pass

        def infer(self, name: str, inputs: list[InferInput], *, sequence_id: int,
                  sequence_start: bool, sequence_end: bool) -> Any:  # fmt: skip
            given = {one.name: one.value for one in inputs}
            asked = request(sequence_id, start=sequence_start, end=sequence_end, **given)
            (answer,) = model.execute([asked])
            if answer.error:
                raise RuntimeError(answer.error)
            found = {tensor.name: tensor.value for tensor in answer.outputs}
            return SimpleNamespace(as_numpy=found.get)

        def close(self) -> None:
            pass

    http = ModuleType("tritonclient.http")
    http.InferInput, http.InferenceServerClient = InferInput, Server
    package = ModuleType("tritonclient")
    package.http = http
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.http", http)
    data = cv2.imencode(".png", photo()[..., ::-1])[1].tobytes()
    own = model._segmenter.session(model._segmenter.encode(photo()))
    own.add_click(80, 60)
    other = (own.prediction.selected + 1) % 3
    with triton.RemoteSession(data, model="tiny_pipeline") as session:
        mask = session.say(Click(80, 60), SelectPrompt(other))
        np.testing.assert_array_equal(mask, own.select(other).mask)
        with pytest.raises(triton.EngineError, match="inside the image"):
            session.say(Click(800, 60))
    assert model._sessions == {}
    assert isinstance(model._segmenter, Segmenter)
