"""Running, interrupting, resuming, sharding and merging give one result."""

import csv
import json
import multiprocessing
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from trtseg.errors import DatasetError, TrtsegError
from trtseg.evaluate import methods as methods_module
from trtseg.evaluate.configuration import DataSpec, EvaluationConfig
from trtseg.evaluate.methods import ModelMethod
from trtseg.evaluate.records import RunDirectory, decode_mask, encode_mask, merge
from trtseg.evaluate.runner import evaluate, make_header, plan
from trtseg.evaluate.summary import objects_csv, summarise, table

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


def test_shards_merge_to_the_whole(tmp_path, data):
    config = configure(data, protocol="random")
    whole = start(config, tmp_path / "whole")
    evaluate(config, whole, method=DiskMethod(), progress=False)
    for index in range(3):
        shard = start(config, tmp_path / f"shard{index}")
        evaluate(config, shard, method=DiskMethod(), shard=(index, 3), progress=False)
        assert 0 < len(shard.done("photos")) < 10
    merged = merge([tmp_path / f"shard{index}" for index in range(3)], tmp_path / "merged")
    assert outcome(merged, "photos") == outcome(whole, "photos")


def test_shards_of_other_runs_are_refused(tmp_path, data):
    config = configure(data)
    start(config, tmp_path / "a")
    start(config, tmp_path / "b", DiskMethod(radius=9))
    with pytest.raises(ValueError, match=r"radius: 6 there, 9 asked"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    with pytest.raises(DatasetError, match=r"run\.json"):
        merge([tmp_path / "a", tmp_path / "nothing"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_damaged_shard_is_named_before_anything_is_written(tmp_path, data):
    config = configure(data, limit=2)
    run = start(config, tmp_path / "shard")
    evaluate(config, run, method=DiskMethod(), progress=False)
    file = run.files()[-1]
    file.write_text(json.dumps({**json.loads(file.read_text()), "mood": "good"}))
    with pytest.raises(DatasetError, match=rf"{file.name}: not a result .*mood"):
        merge([run.path], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_another_configuration_is_refused(tmp_path, data):
    start(configure(data), tmp_path / "run")
    with pytest.raises(ValueError, match="protocol: 'standard' there, 'random' asked"):
        start(configure(data, protocol="random"), tmp_path / "run")
    write_folder(data, images=6)
    with pytest.raises(ValueError, match="photos:"):
        start(configure(data), tmp_path / "run")


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


def test_worker_processes_give_the_same_result(tmp_path, data):
    config = EvaluationConfig(
        model="geodesic-matting", data=(DataSpec(str(data)),), clicks=3, limit=6
    )
    method = methods_module.load_method("geodesic-matting")
    runs = []
    for workers in (1, 2):
        run = start(config, tmp_path / str(workers), method)
        evaluate(config, run, workers=workers, progress=False)
        runs.append(outcome(run, "photos"))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 6


def test_a_worker_that_is_ended_is_told(tmp_path, data, monkeypatch):
    config = EvaluationConfig(
        model="geodesic-matting", data=(DataSpec(str(data)),), clicks=3, limit=6
    )
    run = start(config, tmp_path / "run", methods_module.load_method("geodesic-matting"))
    written = RunDirectory.write

    def write_and_kill(*arguments):
        for child in multiprocessing.active_children():
            child.kill()
        written(*arguments)

    monkeypatch.setattr(RunDirectory, "write", write_and_kill)
    with pytest.raises(TrtsegError, match="a worker process was ended"):
        evaluate(config, run, workers=2, progress=False)


class Sequence:
    """Gets better with every image it has seen."""

    def __init__(self):
        self.images = 0

    def image(self, image, *, focus):
        self.focus = focus

        @contextmanager
        def opened():
            yield DiskSession(image.shape[:2], 2 + self.images)
            self.images += 1

        return opened()


class Learner:
    bundle = SimpleNamespace(name="learner", fingerprint="f00")


@pytest.fixture
def adaptation(monkeypatch):
    stand_in = ModuleType("trtseg.adapt")
    stand_in.Sequence = lambda segmenter, adapt: Sequence()
    monkeypatch.setitem(sys.modules, "trtseg.adapt", stand_in)


def test_a_sequence_begins_anew_after_an_interruption(tmp_path, data, monkeypatch, adaptation):
    segmenter = ModuleType("trtseg.runtime.segmenter")
    segmenter.Segmenter = SimpleNamespace(load=lambda name, threads=None: Learner())
    monkeypatch.setitem(sys.modules, "trtseg.runtime.segmenter", segmenter)
    config = configure(data, adapt="sequence")
    method = ModelMethod(Learner(), "sequence")
    whole = start(config, tmp_path / "whole", method)
    evaluate(config, whole, progress=False)
    results = outcome(whole, "photos")
    assert results[0][2] != results[-2][2]
    assert {record.encode_ms for record in whole.records("photos")} == {None}
    assert summarise(whole)["results"]["photos"]["encode_ms"] is None
    assert "-" in table(summarise(whole)).splitlines()[-1].split()
    assert next(csv.DictReader(objects_csv(whole).splitlines()))["encode_ms"] == ""

    parts = start(config, tmp_path / "parts", method)
    for record in list(whole.records("photos"))[:4]:
        parts.write(record)
    assert sum(len(task.indices) for task in plan(config, parts, config.open_data())) == 10
    evaluate(config, parts, progress=False)
    assert outcome(parts, "photos") == results
    with pytest.raises(ValueError, match="workers, shard"):
        evaluate(config, parts, workers=2)


@pytest.mark.parametrize(("focus", "passed"), [(True, "auto"), (False, None)])
def test_a_sequence_is_told_of_the_focus(focus, passed, adaptation):
    method = ModelMethod(Learner(), "both", focus)
    with method.session(method.encode(np.zeros((9, 9, 3), np.uint8))):
        assert method._sequence.focus == passed


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
    assert EvaluationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("end", [":wrong", ":wrong:train"])
def test_an_unknown_layout_is_told(data, end):
    with pytest.raises(DatasetError, match=r"'wrong' is none of the known layouts \(folder, "):
        DataSpec.parse(f"{data}{end}").open(0.0)
    with pytest.raises(DatasetError, match="no such file or folder"):
        DataSpec.parse(f"{data}er{end}").open(0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"clicks": 0}, {"targets": (1.2,)}, {"targets": (0.85, 0.85)}, {"protocol": "x"},
        {"adapt": "x"}, {"limit": 0}, {"seed": -1},
    ],
)
def test_bad_configurations(changes):
    name = next(iter(changes)).removesuffix("s")
    with pytest.raises(ValueError, match=name):
        EvaluationConfig(**{"model": "lite", "data": (DataSpec("a"),), **changes})
