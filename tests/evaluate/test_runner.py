"""Running, interrupting, resuming and spreading the work give one result."""

import json
import os
import signal
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from trtseg.errors import DatasetError, TrtsegError
from trtseg.evaluate.configuration import DataSpec, EvaluationConfig
from trtseg.evaluate.methods import load_method
from trtseg.evaluate.records import RunDirectory, decode_mask, encode_mask
from trtseg.evaluate.runner import evaluate, make_header, plan
from trtseg.parse import build

from .methods import DiskMethod, DiskSession, write_folder


def configure(data, **changes):
    return EvaluationConfig(model="disk", data=(DataSpec(str(data)),), clicks=6, **changes)


def start(config, path, method=None):
    run = RunDirectory(path)
    run.start(make_header(config, method or DiskMethod(), config.open_data()))
    return run


def outcome(run, data):
    """Everything but the times, which no two runs share."""
    return [
        (record.index, record.name, record.ious, record.best_ious, record.clicks, record.masks)
        for record in run.records(data)
    ]


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / "photos")


@pytest.mark.parametrize("protocol", ["standard", "latent-diversity", "jitter"])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, data, protocol):
    config = configure(data, protocol=protocol)
    whole = start(config, tmp_path / "whole")
    evaluate(config, whole, method=DiskMethod(), progress=False)
    assert len(outcome(whole, "photos")) == 10

    parts = start(config, tmp_path / "parts")
    for fail_after in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, parts, method=DiskMethod(fail_after=fail_after), progress=False)
    assert parts.done("photos") == set(range(6))
    resumed = DiskMethod()
    evaluate(config, parts, method=resumed, progress=False)
    assert resumed.encoded == 2  # nothing is done twice
    assert outcome(parts, "photos") == outcome(whole, "photos")
    evaluate(config, parts, method=DiskMethod(fail_after=0), progress=False)


def test_another_configuration_is_refused(tmp_path, data):
    start(configure(data), tmp_path / "run")
    with pytest.raises(ValueError, match="protocol: 'standard' there, 'random' asked"):
        start(configure(data, protocol="random"), tmp_path / "run")
    write_folder(data, images=6)
    with pytest.raises(ValueError, match="photos:"):
        start(configure(data), tmp_path / "run")


def test_other_masks_of_the_same_photographs_are_another_evaluation(tmp_path):
    root = tmp_path / "davis-585"
    (root / "bear").mkdir(parents=True)
    for name in ("00.jpg", "a_00.png", "init_sp_a_00.png", "init_stm_a_00.png"):
        cv2.imwrite(str(root / "bear" / name), np.full((8, 8), 255, np.uint8))

    def begin(subset):
        spec = DataSpec(str(root), "davis-585", subset)
        config = EvaluationConfig("disk", (spec,), protocol="given-mask")
        RunDirectory(tmp_path / "run").start(make_header(config, DiskMethod(), config.open_data()))

    begin("sp")
    begin("sp")
    with pytest.raises(ValueError, match=r"'subset': 'sp'.*'subset': 'stm'"):
        begin("stm")


def test_a_moved_data_set_is_the_same_data_set(tmp_path, data):
    start(configure(data), tmp_path / "run")
    moved = data.rename(tmp_path / "elsewhere")
    moved.mkdir(exist_ok=True)
    again = write_folder(tmp_path / "mirror" / "photos")
    start(configure(again), tmp_path / "run")


def test_limit_and_small_objects(tmp_path, data):
    config = configure(data, limit=3)
    run = start(config, tmp_path / "run")
    evaluate(config, run, method=DiskMethod(), progress=False)
    assert [record.name for record in run.records("photos")] == ["00#2", "02#2", "04#1"]
    assert run.header()["data"]["photos"]["objects"] == 3


def test_a_bad_image_stops_the_run_and_names_the_file(tmp_path, data):
    config = configure(data)
    run = start(config, tmp_path / "run")
    file = data / "images" / "02.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"02\.png"):
        evaluate(config, run, method=DiskMethod(), progress=False)
    assert run.done("photos") == {0, 1, 2, 3}  # what was finished before is kept


CLASSICAL = {"model": "geodesic-matting", "clicks": 3, "limit": 6}


def test_worker_processes_and_a_cluster_give_the_same_result(tmp_path, data):
    distributed = pytest.importorskip("distributed")
    config = EvaluationConfig(data=(DataSpec(str(data)),), **CLASSICAL)
    method = load_method(config)
    with distributed.LocalCluster(
        2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")
    ) as cluster:
        address = f"dask:{cluster.scheduler_address}"
        runs = []
        for name, where in {"1": {}, "2": {"workers": 2}, "dask": {"cluster": address}}.items():
            run = start(config, tmp_path / name, method)
            evaluate(config, run, progress=False, **where)
            runs.append(outcome(run, "photos"))
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == 6


def test_an_interrupted_spread_run_goes_on(tmp_path, data, monkeypatch):
    config = EvaluationConfig(data=(DataSpec(str(data)),), **CLASSICAL)
    run = start(config, tmp_path / "run", load_method(config))
    written = RunDirectory.write

    def write_and_interrupt(*arguments):
        written(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write", write_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, run, workers=2, progress=False)
    before = {path: path.stat().st_mtime_ns for path in run.files()}
    assert len(before) == 1
    evaluate(config, run, workers=2, progress=False)
    assert len(run.files()) == 6
    assert before.items() <= {p: p.stat().st_mtime_ns for p in run.files()}.items()


def test_a_worker_that_is_ended_is_told(tmp_path, data, monkeypatch):
    config = EvaluationConfig(data=(DataSpec(str(data)),), **CLASSICAL)
    run = start(config, tmp_path / "run", load_method(config))
    with pytest.raises(TrtsegError, match="a worker process was ended"):
        evaluate(config, run, load=load_and_end, workers=2, progress=False)


def load_and_end(config, threads):
    """A method whose worker is ended from outside, as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


class LearningMethod(DiskMethod):
    """Gets better with every image it has seen, as an adaptation over a sequence does."""

    @contextmanager
    def session(self, encoded):
        yield DiskSession(encoded, self.radius)
        self.radius += 1


def load_learning(config, threads):
    return LearningMethod(2)


def test_a_sequence_begins_anew_after_an_interruption(tmp_path, data):
    config = configure(data, adapt="sequence")
    whole = start(config, tmp_path / "whole", LearningMethod(2))
    evaluate(config, whole, load=load_learning, progress=False)
    results = outcome(whole, "photos")
    assert results[0][2] != results[-2][2]

    parts = start(config, tmp_path / "parts", LearningMethod(2))
    for record in list(whole.records("photos"))[:4]:
        parts.write(record)
    assert sum(len(task.indices) for task in plan(config, parts, config.open_data())) == 10
    evaluate(config, parts, load=load_learning, progress=False)
    assert outcome(parts, "photos") == results
    with pytest.raises(ValueError, match="workers, cluster"):
        evaluate(config, parts, load=load_learning, workers=2)


def test_every_data_set_is_a_sequence_of_its_own(tmp_path, data):
    twice = (DataSpec(str(data)), DataSpec(str(write_folder(tmp_path / "again"))))
    config = EvaluationConfig(model="disk", data=twice, clicks=6, adapt="both")
    run = start(config, tmp_path / "run", LearningMethod(2))
    evaluate(config, run, load=load_learning, method=LearningMethod(2), progress=False)
    assert outcome(run, "photos") == outcome(run, "again")


def test_a_data_set_shifted_or_in_part(tmp_path, data):
    plain = DataSpec(str(data)).open(0.0)
    shifted = DataSpec(str(data), shift="thermal", prefix="03").open(0.0)
    assert shifted.name == "03-thermal"
    assert [sample.name for sample in shifted] == ["03#1", "03#2"]
    image, mask = shifted[0].image, shifted[0].mask
    assert image.shape == plain[6].image.shape
    assert not np.array_equal(image, plain[6].image)
    np.testing.assert_array_equal(mask, plain[6].mask)
    inverted = DataSpec(str(data), shift="inverted").open(0.0)
    np.testing.assert_array_equal(inverted[0].image, 255 - plain[0].image[..., ::-1])
    faint = DataSpec(str(data), shift="faint").open(0.0)[0].image
    assert faint.dtype == np.uint8
    assert faint.std() < plain[0].image.std() / 2
    np.testing.assert_array_equal(faint, DataSpec(str(data), shift="faint").open(0.0)[0].image)
    with pytest.raises(DatasetError, match="no image's name begins with 'x_'"):
        DataSpec(str(data), prefix="x_").open(0.0)
    with pytest.raises(ValueError, match="shift: expected one of inverted, thermal"):
        DataSpec(str(data), shift="rotated")


def test_a_damaged_result_is_told_before_the_rest_is_run(tmp_path, data):
    run = start(configure(data, limit=1), tmp_path / "run")
    evaluate(configure(data, limit=1), run, method=DiskMethod(), progress=False)
    file = run.files()[0]
    file.write_text("{")
    with pytest.raises(DatasetError, match=rf"{file.name}: not JSON"):
        evaluate(configure(data), run, method=DiskMethod(), progress=False)
    assert len(run.files()) == 1


def test_masks_survive_their_encoding():
    mask = np.random.default_rng(0).random((37, 21)) < 0.5
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_a_damaged_result_is_named(tmp_path, data):
    config = configure(data, limit=1)
    run = start(config, tmp_path / "run")
    evaluate(config, run, method=DiskMethod(), progress=False)
    file = tmp_path / "run" / "objects" / "photos" / "000000.json"
    file.write_text(json.dumps({"data": "photos"}))
    with pytest.raises(DatasetError, match=r"000000\.json: not a result"):
        list(run.records("photos"))
    file.write_text("{")
    with pytest.raises(DatasetError, match=r"000000\.json: not JSON"):
        list(run.records("photos"))


def test_data_specs():
    assert DataSpec.parse("a/b") == DataSpec("a/b")
    assert DataSpec.parse("a/b:sbd") == DataSpec("a/b", "sbd")
    assert DataSpec.parse("a/b:sbd:train") == DataSpec("a/b", "sbd", "train")
    assert DataSpec.parse("C:/b") == DataSpec("C:/b")
    assert DataSpec.parse("C:/b:coco:val2017") == DataSpec("C:/b", "coco", "val2017")
    config = EvaluationConfig("lite", (DataSpec("a", "voc", "train"),), targets=(0.8,), limit=3)
    assert build(EvaluationConfig, json.loads(json.dumps(config.to_dict())), "config") == config


@pytest.mark.parametrize("end", [":wrong", ":wrong:train"])
def test_an_unknown_layout_is_told(data, end):
    with pytest.raises(DatasetError, match=r"'wrong' is none of the known layouts \(ade20k, b"):
        DataSpec.parse(f"{data}{end}").open(0.0)
    with pytest.raises(DatasetError, match="no such file or folder"):
        DataSpec.parse(f"{data}er{end}").open(0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"clicks": 0}, {"targets": (1.2,)}, {"targets": (0.85, 0.85)}, {"protocol": "x"},
        {"adapt": "x"}, {"limit": 0}, {"seed": -1}, {"learning": {}}, {"long_side_px": 0},
        {"protocol": "spoiled-mask", "adapt": "both"},
    ],
)
def test_bad_configurations(changes):
    name = next(iter(changes)).removesuffix("s")
    with pytest.raises(ValueError, match=name):
        EvaluationConfig(**{"model": "lite", "data": (DataSpec("a"),), **changes})


def test_a_model_corrects_its_own_spoiled_mask(tmp_path):
    root = write_folder(tmp_path / "objects", 1, (96, 96))
    clicks = {}
    for protocol in ("standard", "spoiled-mask"):
        config = EvaluationConfig("lite", (DataSpec(str(root)),), protocol=protocol, clicks=2)
        run = RunDirectory(tmp_path / protocol)
        run.start(make_header(config, load_method(config), config.open_data()))
        evaluate(config, run, progress=False)
        clicks[protocol] = [record.clicks for record in run.records("objects")]
    assert all(clicks["spoiled-mask"])
    assert clicks["spoiled-mask"] != clicks["standard"]


def test_a_model_begins_with_the_given_mask(tmp_path):
    root = write_folder(tmp_path / "faulty", 1, (96, 96))
    labels = cv2.imread(str(root / "masks" / "00.png"), cv2.IMREAD_GRAYSCALE)
    labels[:, :20][labels[:, :20] == 1] = 0  # the first object's half
    (root / "init_masks").mkdir()
    cv2.imwrite(str(root / "init_masks" / "00.png"), labels)
    config = EvaluationConfig("lite", (DataSpec(str(root)),), protocol="given-mask", clicks=1)
    run = RunDirectory(tmp_path / "run")
    run.start(make_header(config, load_method(config), config.open_data()))
    evaluate(config, run, progress=False)
    first, second = run.records("faulty")
    # nothing is wrong with the second object's mask: no click, and it is right from the start
    assert (len(first.clicks), len(second.clicks)) == (1, 0)
    assert first.clicks[0][2]
    assert second.ious == [1.0]
    with pytest.raises(ValueError, match="expected a method that can begin with a mask"):
        evaluate(config, RunDirectory(tmp_path / "other"), method=DiskMethod(), progress=False)
