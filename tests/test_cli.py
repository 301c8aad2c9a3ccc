"""The command line as it is typed, from arguments to exit status; as long as there are commands."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorrt_fixture import device, fake_tensorrt
from tiny_model import write_tiny

from trtseg import __version__, cli
from trtseg.commands.build_progress import build_progress
from trtseg.commands.output import write_images


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo and a model, as the current one."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:120, :160]
    image = np.stack([np.sin(x / 17 + k) + np.cos(y / 23 - k) for k in range(3)], -1) * 60 + 128
    cv2.imwrite("photo.png", image.astype(np.uint8))
    write_tiny(tmp_path / "tiny", region=True)
    return tmp_path


def run(*words: str) -> int:
    return cli.main([str(word) for word in words])


def segment(*words: str) -> int:
    return run("segment", "photo.png", *words, "--model", "./tiny", "--threads", "1")


def test_segment_writes_a_mask_and_names_it(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment("--click", "80,60") == 0
    captured = capsys.readouterr()
    assert captured.out == "photo-mask.png\n"
    assert "click 80,60:" in captured.err
    mask = cv2.imread("photo-mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (120, 160)
    assert mask[60, 80] == 255
    assert set(np.unique(mask)) == {0, 255}


def test_segment_writes_all_it_is_asked_for(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trtseg import Segmenter
    from trtseg.runtime.image import load_image

    assert segment(
        "--click", "80,60", "--background", "20.5,20", "--click", "90,66", "-o", "m.png",
        "--overlay", "o.jpg", "--sheet", "s.png", "--cutout", "c.png", "--candidates", "all",
        "--json",
    ) == 0  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    candidates = [f"all/{index}.png" for index in range(3)]
    assert report["files"] == ["m.png", "o.jpg", "s.png", "c.png", *candidates]
    segmenter = Segmenter.load("./tiny", threads=1)
    picture = load_image("photo.png")
    session = segmenter.session(segmenter.encode(picture.pixels, picture.image_format))
    session.add_click(80, 60)
    session.add_click(20.5, 20, False)
    p = session.add_click(90, 66)
    np.testing.assert_array_equal(cv2.imread("m.png", cv2.IMREAD_UNCHANGED), p.mask)
    np.testing.assert_array_equal(cv2.imread("c.png", cv2.IMREAD_UNCHANGED)[..., 3], p.mask)
    for index in range(3):
        candidate = cv2.imread(f"all/{index}.png", cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(candidate, p.candidates[index])
    assert cv2.imread("o.jpg").shape == (120, 160, 3)
    assert cv2.imread("s.png").shape[0] == 480
    assert report["rle"] == p.rle()
    assert report["pixels"] == (p.mask > 0).sum()
    assert report["size"] == {"height": 120, "width": 160}


def test_nothing_is_overwritten_without_force(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photo-mask.png").write_text("precious")
    assert segment("--click", "80,60") == 2
    assert "photo-mask.png: exists already; pass --force" in capsys.readouterr().err
    assert Path("photo-mask.png").read_text() == "precious"
    assert segment("--click", "80,60", "--force") == 0
    assert sorted(p.name for p in workplace.iterdir()) == ["photo-mask.png", "photo.png", "tiny"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--click: expected at least one X,Y"),
        (["--background", "1,1"], "--click: expected at least one point on the object"),
        (["--click", "1"], "--click: expected X,Y in pixels, got '1'"),
        (["--click", "a,b"], "--click: expected X,Y in pixels, got 'a,b'"),
        (["--click", "1,2,3"], "--click: expected X,Y"),
        (["--click", "nan,1"], "expected a point inside the image, 0,0 to 159,119, got nan,1"),
        (["--click", "500,1"], "inside the image, 0,0 to 159,119, got 500,1"),
        (["--click", "-5,3"], "--click: expected a point inside the image, 0,0 to 159,119, got -5"),
        (["--click=-5,3"], "inside the image, 0,0 to 159,119, got -5,3"),
        (["--click", "-inf,3"], "inside the image, 0,0 to 159,119, got -inf,3"),
        (["--click", "1,1", "--background", "-.6,3"], "--background: expected a point inside"),
        (["--click", "1,1", "--click", "1,119.6"], "inside the image, 0,0 to 159,119, got 1,119.6"),
        (["--click"], "argument --click: expected one argument"),
        (["--json", "-5,3", "--click", "1,1"], "--json: ignored explicit argument '-5,3'"),
        (["--click", "1,1", "--model", "none"], "none: no such bundle"),
        (["--click", "1,1", "-o", "mask.gif"], "mask.gif: expected a name ending in"),
        (["--click", "1,1", "-o", "mask.jpg"], "mask.jpg: expected a name ending in one of .png,"),
        (["--click", "1,1", "--cutout", "c.jpg"], "c.jpg: expected a name ending in one of .png,"),
        (["--click", "1,1", "--overlay", "./photo-mask.png"], "got this one twice"),
        (["--click", "1,1", "-o", "all/1.png", "--candidates", "all"], "all: no such folder"),
        (["--click", "1,1", "-o", "0.png", "--candidates", "."], "0.png: expected a file for each"),
        (["--click", "1,1", "--overlay", "folder.png", "--force"], "folder.png: is a folder"),
        (["--click", "1,1", "-o", "nowhere/mask.png"], "nowhere: no such folder"),
        (["--click", "1,1", "-o", "dangling.png"], "dangling.png: exists already"),
        (["--click", "1,1", "-o", "loop.png"], "loop.png: exists already"),
        (["--click", "1,1", "-o", "loop.png", "--force", "--overlay", "loop.png"], "one twice"),
        (["--click", "1,1", "--threads", "0"], "threads: expected an integer from 1 to 1024, got"),
        (["--click", "1,1", "--threads", str(10**20)], "threads: expected an integer from 1 to"),
        (["--click", "1,1", "--threads", "-1"], "expected an integer from 1 to 1024, got '-1'"),
        (["--click", "1,1", "--device", "tpu"], "device: expected cpu"),
        (["--click", "1,1", "--candidates", "photo.png"], "photo.png: is no folder"),
        (["--click", "1,1", "--candidates", "photo.png/all"], "photo.png: is no folder"),
        (["other.png", "--click", "1,1"], "unrecognized arguments: other.png"),
        (["--click", "1,1", "-o", "mask.bmp"], "mask.bmp: expected a name ending in one of .png,"),
        (["--box", "1,1,5"], "--box: expected X0,Y0,X1,Y1 in pixels, got '1,1,5'"),
        (["--box", "5,1,1,5"], "--box: expected X0 < X1 and Y0 < Y1, got 5,1,1,5"),
        (["--box", "nan,1,1,5"], "--box: expected X0 < X1"),
        (["--box", "200,1,300,5"], "--box: expected a box that meets the image"),
        (["--stroke", "1,1,5"], "--stroke: expected X,Y,X,Y,... in pixels, got '1,1,5'"),
        (["--stroke", "1,1"], "--stroke: expected X,Y,X,Y,... in pixels, got '1,1'"),
        (["--stroke", "1,1,200,5"], "--stroke: expected points inside the image, 0,0 to 159,119"),
        (["--click", "1,1", "--session", "s.txt"], "s.txt: expected a name ending in"),
        (["--click", "1,1", "--select", "3"], "--select: expected 0 to 2, got 3"),
        (["--select", "1", "--mask", "photo.png"], "--select: expected with a click or a box"),
        (["--click", "1,1", "--soft"], "--soft: expected with --cutout"),
        (["--mask", "none.png"], "none.png: No such file"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Path("folder.png").mkdir()
    Path("dangling.png").symlink_to("nowhere.png")
    Path("loop.png").symlink_to("loop.png")
    before = sorted(workplace.rglob("*"))
    try:
        status = run("segment", "photo.png", "--model", "./tiny", *words)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(workplace.rglob("*")) == before


def test_unreadable_photos_are_exit_2_and_one_line(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = Path("photo.png").read_bytes()
    Path("text.png").write_bytes(b"nothing")
    Path("cut.png").write_bytes(photo[: len(photo) // 2])  # libpng itself would tell, too
    Path("empty.jpg").write_bytes(b"")
    for name in ("none.png", "text.png", "cut.png", "empty.jpg"):
        assert run("segment", name, "--click", "1,1", "--model", "./tiny") == 2
        error = capfd.readouterr().err
        assert error.startswith(f"trtseg: error: {name}: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("segmen photo.png", "invalid choice: 'segmen'"),
        ("--nonsense", "required: COMMAND"),
        ("demo --threads 1.5", "--threads: expected an integer"),
        ("demo -o nowhere/x.png", "nowhere: no such folder"),
        ("demo -o loop.png --model none", "none: no such bundle"),
        ("segment photo.png other.png --click 1,1 -o photo.png", "photo.png: is no folder"),
        ("segment photo.png photo.jpg --click 1,1 --model ./tiny", "by more than the ending"),
        ("segment tiny --click 1,1", "tiny: no photo in this folder"),
        ("info --json=yes", "ignored explicit argument 'yes'"),
        ("completion tcsh", "invalid choice: 'tcsh'"),
        ("engines list --cache none", "--cache: expected a folder, got 'none'"),
        ("engines verify --cache photo.png", "--cache: expected a folder, got 'photo.png'"),
        ("engines prune --limit-mib inf", "--limit-mib: expected a size of at least 0"),
        ("engines prune --limit-mib nan", "--limit-mib: expected a size of at least 0"),
        ("engines list --limit-mib 4", "--limit-mib: expected a size of at least 0, with prune"),
        ("engines list --remove", "--remove: expected with verify, got list"),
        ("build-engine tiny --profile 0x64", "expected HEIGHTxWIDTH"),
        ("build-engine tiny --device -1", "--device: expected an integer of at least 0, got '-1'"),
        ("bench ./tiny --json none/x.json", "none: no such folder"),
        ("bench ./tiny --json x --plot x", "x: expected a file for each"),
        ("bench ./tiny --plot x.mpg", "x.mpg: expected a name ending in one of .png, .svg, .pdf"),
        ("bench ./tiny --size 99999x4", "expected sides up to 32766"),
        ("bench --compare deep.json deep.json", "deep.json: not JSON"),
        ("train deep.json --output run", "deep.json: not JSON"),
        ("train photo.png --output run", "photo.png: not JSON"),
        ("train deep.json --output run --threads -3", "--threads: expected an integer"),
        ("train-corrections deep.json --output run", "deep.json: not JSON"),
        ("evaluate --data . --learning deep.json --output run", "deep.json: not JSON"),
        ("evaluate --data . --output run --workers 0", "--workers: expected an integer"),
        ("study run none --data . --work run", "studies: no studies; run this in a checkout"),
        ("study list --studies none", "none: no studies"),
        ("importance tiny . --config none.json", "none.json: No such file"),
        ("export none out --long-side 0", "--long-side: expected an integer of at least 1"),
        ("evaluate --output run --data none --model ./tiny", "none: no such file or folder"),
    ],
)
def test_every_command_tells_bad_input_in_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    Path("deep.json").write_text("[" * 100_000)
    before = sorted(workplace.rglob("*"))
    try:
        status = run(*line.split())
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(workplace.rglob("*")) == before


def test_engines_are_looked_for_without_making_the_folder(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTSEG_CACHE", str(workplace / "cache"))
    for action in ("list", "verify", "prune"):
        assert run("engines", action) == 0
        assert capsys.readouterr().out == "no engines\n"
    assert not Path("cache").exists()


def test_a_click_may_lie_on_the_edge_of_the_image(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment("--click", "-.5,-0.5", "--background", "159.5,119.5") == 0
    assert "click -0.5,-0.5:" in capsys.readouterr().err


def test_all_results_appear_or_none(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtseg.commands import output

    def disk_full(path: Path, data: bytes, mode: int) -> None:
        if "overlay" in path.name:
            raise OSError(28, "No space left on device")
        write(path, data, mode)

    write = output.write_atomically
    monkeypatch.setattr(output, "write_atomically", disk_full)
    Path("m.png").write_text("precious")
    assert segment("--click", "80,60", "-o", "m.png", "--force", "--overlay", "overlay.png") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "trtseg: error: overlay.png: cannot be written: No space left on device"
    assert Path("m.png").read_text() == "precious"
    assert sorted(p.name for p in workplace.iterdir()) == ["m.png", "photo.png", "tiny"]


def test_info_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["backends"]["onnxruntime"].startswith("usable: ONNX Runtime")
    assert facts["native modules"]["_cpu"].startswith("_cpu")
    assert "engines" in facts["caches"]
    assert run("info") == 0
    text = capsys.readouterr().out
    assert all(re.search(f"^{re.escape(heading)}:", text, re.M) for heading in facts)


def test_help_has_examples_and_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert all(re.search(rf"^    {name}\b", text, re.M) for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            run(name, "--help")
        assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 0
    assert capsys.readouterr().out.endswith(text)


def test_a_plot_without_matplotlib_is_told_before_any_work(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    assert run("bench", "./tiny", "--plot", "y.png") == 2
    assert capsys.readouterr().err == (
        "trtseg: error: bench needs matplotlib, which is not installed: "
        "pip install 'trtseg[evaluate]'\n"
    )


def test_several_photos_and_folders_get_the_same_prompts(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("more").mkdir()
    image = cv2.imread("photo.png")
    for name in ("a.png", "b.jpg"):
        cv2.imwrite(f"more/{name}", image)
    Path("more/broken.png").write_bytes(b"nothing")
    Path("more/notes.txt").write_text("no photo")
    words = ("--click", "80,60", "--model", "./tiny", "--threads", "1", "-o", "masks")
    assert run("segment", "photo.png", "more", *words, "--sheet", "sheets", "--json") == 1
    captured = capsys.readouterr()
    assert "more/broken.png: not an image" in captured.err
    reports = [json.loads(line) for line in captured.out.splitlines()]
    assert [report["photo"] for report in reports] == ["photo.png", "more/a.png", "more/b.jpg"]
    assert reports[1]["files"] == ["masks/a-mask.png", "sheets/a-sheet.png"]
    assert reports[0]["rle"] == reports[1]["rle"]
    assert sorted(p.name for p in Path("masks").iterdir()) == [
        "a-mask.png", "b-mask.png", "photo-mask.png"
    ]  # fmt: skip
    assert run("segment", "photo.png", "more", *words) == 2
    assert "exists already; pass --force" in capsys.readouterr().err


def test_a_stroke_and_the_session(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trtseg import Segmenter
    from trtseg.runtime.image import load_image

    words = ["--stroke", "40,60,80,70,110,60", "--background", "10,10", "--session", "s.json"]
    assert segment(*words) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "s.json"
    assert "stroke 40,60,80,70,110,60:" in captured.err
    segmenter = Segmenter.load("./tiny", threads=1)
    picture = load_image("photo.png")
    shown = cv2.imread("photo-mask.png", cv2.IMREAD_UNCHANGED)
    session = segmenter.open("s.json", picture.pixels, picture.image_format)
    np.testing.assert_array_equal(session.prediction.mask, shown)
    session = segmenter.session(segmenter.encode(picture.pixels, picture.image_format))
    session.add_stroke([(40, 60), (80, 70), (110, 60)])
    np.testing.assert_array_equal(session.add_click(10, 10, False).mask, shown)
    assert segment(*words, "-o", "other.png") == 2
    assert "s.json: exists already" in capsys.readouterr().err
    assert run("segment", "photo.png", ".", *words, "--force") == 2
    assert "--session: expected with one photo" in capsys.readouterr().err


def test_a_box_a_mask_and_another_hypothesis(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trtseg import Segmenter
    from trtseg.runtime.image import load_image

    assert segment("--box", "30,20,130,100", "--select", "1") == 0
    assert "box 30,20,130,100:" in capsys.readouterr().err
    segmenter = Segmenter.load("./tiny", threads=1)
    picture = load_image("photo.png")
    encoded = segmenter.encode(picture.pixels, picture.image_format)
    session = segmenter.session(encoded)
    session.add_box(30, 20, 130, 100)
    by_box = session.select(1).mask
    np.testing.assert_array_equal(cv2.imread("photo-mask.png", cv2.IMREAD_UNCHANGED), by_box)
    assert segment("--mask", "photo-mask.png", "--background", "80,60", "-o", "less.png") == 0
    session = segmenter.session(encoded)
    session.set_mask(by_box)
    less = session.add_click(80, 60, False).mask
    np.testing.assert_array_equal(cv2.imread("less.png", cv2.IMREAD_UNCHANGED), less)


def test_a_sheet_of_a_panorama_stays_small(workplace: Path) -> None:
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (2, 8000, 3), np.uint8))
    assert segment("--click", "4000,1", "--sheet", "s.png", "--force") == 0
    height, width = cv2.imread("s.png").shape[:2]
    assert height == 480
    assert width < 3 * 4 * 480 + 100


def test_the_demo_runs_again(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("demo", "--model", "./tiny", "--threads", "1")
    assert run(*words) == run(*words) == 0
    assert run(*words, "-o", "trtseg-demo.png") == 2
    assert run(*words, "--mask", "trtseg-demo.png") == 2
    assert "exists already" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    assert run("train", "config.json") == 2
    assert "train needs torch, which is not installed: pip install 'trtseg[train]'" in (
        capsys.readouterr().err
    )


WITHOUT_TORCH = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"torch", "onnx"}:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocked())
    import trtseg
    light = {"cv2", "onnxruntime", "torch", "onnx"} & set(sys.modules)
    assert not light, light
    from trtseg.cli import main
    model = sys.argv[1]
    assert main(["segment", "photo.png", "--click", "80,60", "--model", model]) == 0
    assert main(["demo", "--model", model]) == 0
    assert main(["info"]) == 0
    assert not {"torch", "onnx"} & set(sys.modules)
"""


def test_segment_and_demo_run_without_torch(workplace: Path) -> None:
    script = textwrap.dedent(WITHOUT_TORCH)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, "./tiny"],
        capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sheet = cv2.imread("trtseg-demo.png")
    assert sheet.shape[0] == 480
    assert sheet.shape[1] > 3 * 480 // 2


def environment() -> dict[str, str]:
    return dict(os.environ)


def bash(line: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    line = line.replace("trtseg", f"{sys.executable} -m trtseg")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=120, env={**environment(), **changes}
    )


def test_the_command_ends_quietly_when_its_reader_goes(workplace: Path) -> None:
    done = bash("trtseg info | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_file(workplace: Path, closed: str) -> None:
    command = "trtseg segment photo.png --click 80,60 --model ./tiny --threads 1 -o mask.png"
    done = bash(f"{command} --overlay overlay.png {closed}; echo $?")
    assert done.stdout.splitlines()[-1] == b"0"
    for name in ("mask.png", "overlay.png"):
        assert cv2.imread(name, cv2.IMREAD_UNCHANGED) is not None


def test_long_names_are_written_or_told_before_the_work(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "m" * 251 + ".png"
    assert segment("--click", "80,60", "-o", long) == 0
    assert Path(long).is_file()
    monkeypatch.setattr("trtseg.commands.segment.load_segmenter", None)
    assert segment("--click", "80,60", "-o", f"m{long}") == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_cannot_be_written_is_told_once(workplace: Path) -> None:
    done = bash("trtseg info > /dev/full")
    assert done.returncode == 2
    assert done.stderr == b"trtseg: error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are bytes")
def test_any_file_name_is_taken_and_printed_as_it_is(workplace: Path) -> None:
    names = [b"caf\xe9 one.png", "schön.png".encode(), b"-dash.png", b"two\nlines.png"]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(Path("photo.png").read_bytes())
        done = subprocess.run(
            [sys.executable, "-m", "trtseg", "segment", "--click", "80,60",
             "--model", "./tiny", "--", name],
            capture_output=True, timeout=60, env={**environment(), "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == name[:-4] + b"-mask.png\n"
        assert Path(os.fsdecode(done.stdout[:-1])).exists()


def test_an_interrupt_leaves_no_files(workplace: Path) -> None:
    script = """
        import signal, threading
        from trtseg import cli, Segmenter
        # ignored, and inherited so, where the tests run in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
        encode = Segmenter.encode
        def interrupted(*arguments):
            signal.raise_signal(signal.SIGINT)
            return encode(*arguments)
        Segmenter.encode = interrupted
        words = "segment photo.png --click 80,60 --model ./tiny"
        raise SystemExit(cli.main(words.split()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.endswith("trtseg: interrupted\n")
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in workplace.iterdir()) == ["photo.png", "tiny"]


def test_want_of_memory_is_told_in_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("trtseg.commands.segment.read_photo", fail)
    assert segment("--click", "80,60") == 1
    assert capsys.readouterr().err == "trtseg: error: not enough memory: Unable to allocate 9 TiB\n"


def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        assert segment("--click", "80,60") == 2
    assert capsys.readouterr().err == "trtseg: error: .: this folder cannot be written to\n"

    def fail(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", ".photo-mask.png.1.tmp")

    monkeypatch.setattr("os.open", fail)
    with pytest.raises(OSError, match=r"^photo-mask.png: cannot be written: Permission denied$"):
        write_images({Path("photo-mask.png"): np.zeros((2, 2), np.uint8)})


def test_info_names_packages_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--json") == 0
    packages = json.loads(capsys.readouterr().out)["packages"]
    assert packages["numpy"] == np.__version__
    assert "torch" in packages


def test_bash_completes_commands_options_and_choices() -> None:
    script = bash("trtseg completion bash").stdout.decode()
    cases = {
        "seg": ["segment"],
        "segment --o": ["--output", "--overlay"],
        "segment photo.png --backend ''": ["auto", "tensorrt", "onnxruntime"],
        "engines ''": ["list", "verify", "prune", "compare"],
        "segment ph": [],  # left to the shell, which knows the files
    }
    calls = "".join(
        f"COMP_WORDS=(x {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_complete_it; echo "${COMPREPLY[@]}"\n'
        for words in cases
    )
    functions = script.replace("_trtseg", "_complete_it")
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{functions}\n{calls}"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert [line.split() for line in done.stdout.splitlines()] == list(cases.values())
    zsh = bash("trtseg completion zsh").stdout.decode()
    assert zsh.endswith(script)
    fish = bash("trtseg completion fish").stdout.decode()
    assert all(f"-fa {name} -d '" in fish for name in cli.COMMANDS)
    assert "from segment' -l output -s o" in fish or "from segment' -s o -l output" in fish


def test_the_package_runs_as_a_module(workplace: Path) -> None:
    done = bash("trtseg --version")
    assert done.stdout.decode() == f"trtseg {__version__}\n"
    done = bash("trtseg engines")
    assert done.returncode == 2
    assert done.stderr.startswith(b"trtseg engines: error: the following arguments are required:")


def test_builds_of_engines_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with build_progress("nothing"):
        pass
    assert capsys.readouterr().err == ""
    with build_progress("lite") as progress:
        for fraction in (0.0, 0.0, 0.5, 1.0, 0.0, 1.0):
            progress(fraction, "phase")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" for TensorRT")[0] for line in lines] == [
        "building lite", "building lite (2)",
    ]  # fmt: skip
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with build_progress("lite") as progress:
        progress(0.0, "phase")
        progress(1.0, "phase")
    assert "building lite: 100%" in capsys.readouterr().err


def test_segment_shows_the_engines_that_it_builds(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make())
    monkeypatch.setenv("TRTSEG_CACHE", str(workplace / "cache"))
    for backend in ("auto", "tensorrt"):
        assert segment("--click", "80,60", "--backend", backend, "--force") == 0
        captured = capsys.readouterr()
        assert ("building ./tiny (3) for TensorRT" in captured.err) == (backend == "auto")
        assert "tiny on tensorrt" in captured.err
    assert segment("--click", "80,60", "--device", "cpu", "--force") == 0
    assert "tiny on ONNX Runtime" in capsys.readouterr().err
