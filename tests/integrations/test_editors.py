"""GIMP's and Krita's plug-ins against stubs of their API and a real server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette")
from serve.conftest import client, folder, picture, segmenter, workspace  # noqa: F401 (fixtures)
from serve.running import TOKEN

from trtseg.serve.prompts import apply
from trtseg.types import Box

INTEGRATIONS = Path(__file__).parents[2] / "integrations"


def load(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def editor_client(client, monkeypatch):  # noqa: F811
    monkeypatch.setenv("TRTSEG_URL", f"http://127.0.0.1:{client.port}/?token={TOKEN}")
    return load("editor_client", INTEGRATIONS / "editor_client.py", monkeypatch)


def wanted(workspace) -> np.ndarray:  # noqa: F811
    session = workspace.segmenter.session(workspace.segmenter.encode(picture()))
    return apply(session, Box(30, 25, 110, 90)).mask


def as_mask(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(120, 160)


def test_the_client_writes_images_and_reads_masks(editor_client, workspace) -> None:  # noqa: F811
    image = picture()
    data = np.frombuffer(editor_client.png(160, 120, image.tobytes()), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, 1)[..., ::-1], image)
    box = {"type": "box", "x0": 30, "y0": 25, "x1": 110, "y1": 90}
    mask = editor_client.select(160, 120, image.tobytes(), [box])
    np.testing.assert_array_equal(as_mask(mask), wanted(workspace))
    with pytest.raises(editor_client.Failed, match="expected"):
        editor_client.select(160, 120, image.tobytes(), [{"type": "melt"}])
    assert all(photo.objects == () for photo in workspace.photos())


def test_without_a_server_it_says_so(editor_client, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, words in (("", "TRTSEG_URL"), ("http://127.0.0.1:1/?token=x", "not answer")):
        monkeypatch.setenv("TRTSEG_URL", address)
        with pytest.raises(editor_client.Failed, match=words):
            editor_client.select(1, 1, b"abc", [{"type": "click", "x": 0, "y": 0}])


def test_gimp(editor_client, workspace, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    written = {}
    buffer = SimpleNamespace(
        get=lambda area, scale, kind, policy: picture().tobytes(),
        set=lambda area, kind, data: written.update(kind=kind, data=data),
    )
    channel = SimpleNamespace(get_buffer=lambda: buffer)
    copy = SimpleNamespace(flatten=lambda: channel, delete=lambda: None)
    selected = []
    image = SimpleNamespace(
        get_width=lambda: 160, get_height=lambda: 120, duplicate=lambda: copy,
        undo_group_start=lambda: None, undo_group_end=lambda: None,
        insert_channel=lambda *args: None, remove_channel=lambda one: None,
        select_item=lambda how, one: selected.append((how, one)),
    )  # fmt: skip
    bounds = SimpleNamespace(non_empty=True, x1=30, y1=25, x2=111, y2=91)
    gimp = SimpleNamespace(
        PlugIn=object, displays_flush=lambda: None,
        Selection=SimpleNamespace(bounds=lambda one: bounds),
        Channel=SimpleNamespace(new=lambda *args: channel),
        ChannelOps=SimpleNamespace(REPLACE="replace"),
        PDBStatusType=SimpleNamespace(SUCCESS="good", EXECUTION_ERROR="bad"),
    )  # fmt: skip
    gegl = SimpleNamespace(
        Rectangle=SimpleNamespace(new=lambda *sides: sides), Color=SimpleNamespace(new=str),
        AbyssPolicy=SimpleNamespace(NONE=0),
    )  # fmt: skip
    repository = SimpleNamespace(Gimp=gimp, Gegl=gegl, GLib=SimpleNamespace(Error=str))
    gi = SimpleNamespace(require_version=lambda *args: None, repository=repository)
    monkeypatch.setitem(sys.modules, "gi", gi)
    monkeypatch.setitem(sys.modules, "gi.repository", repository)
    plugin = load("gimp_select", INTEGRATIONS / "gimp" / "trtseg-select.py", monkeypatch)
    procedure = SimpleNamespace(new_return_values=lambda status, error: (status, error))
    run = plugin.Select().run
    assert run(procedure, None, image, [], None, None) == ("good", None)
    np.testing.assert_array_equal(as_mask(written["data"]), wanted(workspace))
    assert selected == [("replace", channel)]
    bounds.non_empty = False
    status, error = run(procedure, None, image, [], None, None)
    assert status == "bad"
    assert "rectangle" in error


def test_krita(editor_client, workspace, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    bgra = np.dstack((picture()[..., ::-1], np.full((120, 160), 255, np.uint8)))
    document = SimpleNamespace(
        selection=lambda: SimpleNamespace(
            x=lambda: 30, y=lambda: 25, width=lambda: 81, height=lambda: 66
        ),
        colorModel=lambda: "RGBA", colorDepth=lambda: "U8", width=lambda: 160, height=lambda: 120,
        pixelData=lambda *area: bgra.tobytes(), setSelection=lambda one: chosen.append(one),
    )  # fmt: skip
    chosen, told, extensions = [], [], []

    class Selection:
        def select(self, *area: int) -> None:
            pass

        def setPixelData(self, data: bytes, *area: int) -> None:
            self.data = data

    view = SimpleNamespace(showFloatingMessage=lambda words, *rest: told.append(words))
    application = SimpleNamespace(
        activeDocument=lambda: document, addExtension=extensions.append, icon=str,
        activeWindow=lambda: SimpleNamespace(activeView=lambda: view),
    )  # fmt: skip
    extension = type("Extension", (), {"__init__": lambda self, parent: None})
    stub = SimpleNamespace(
        Extension=extension, Selection=Selection,
        Krita=SimpleNamespace(instance=lambda: application),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "krita", stub)
    package = ModuleType("trtseg_select")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "trtseg_select", package)
    package.editor_client = editor_client
    monkeypatch.setitem(sys.modules, "trtseg_select.editor_client", editor_client)
    path = INTEGRATIONS / "krita" / "trtseg_select.py"
    load("trtseg_select.plugin", path, monkeypatch)
    (made,) = extensions
    made.run()
    np.testing.assert_array_equal(as_mask(chosen[0].data), wanted(workspace))
    document.selection = lambda: None
    made.run()
    assert "rectangle" in told[0]
