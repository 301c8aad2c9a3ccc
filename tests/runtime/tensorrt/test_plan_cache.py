"""The engine cache: what is kept, what is refused, and what survives a crash."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from trtseg import atomic
from trtseg.atomic import write_atomically
from trtseg.errors import EngineError
from trtseg.runtime.tensorrt.plan_cache import EngineCache, default_directory
from trtseg.runtime.tensorrt.plan_key import EngineKey, system_name

KEY = EngineKey(
    graph="lite/segment",
    graph_sha256="a" * 64,
    flavour="tensorrt",
    version="11.4.0.106",
    gpu="NVIDIA RTX A4000",
    compute_capability="8.6",
    precision="fp16",
    profiles="x=1x64x120x160",
    options="level=3",
    system=system_name(),
)
PLAN = bytes(range(256)) * 64


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def plan_path(cache: EngineCache, key: EngineKey = KEY) -> Path:
    return cache.directory / f"{key.digest()}.plan"


def run_python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_stored_plan_comes_back(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    cache.store(KEY, PLAN, details={"build_seconds": 1.5})
    assert cache.load(KEY) == PLAN
    assert EngineCache(cache.directory).load(KEY) == PLAN
    (entry,) = cache.entries()
    assert entry.key == KEY
    assert entry.details["build_seconds"] == 1.5
    assert entry.problem is None
    assert [problem for _, problem in cache.verify()] == [None]


@pytest.mark.parametrize("name", EngineKey.__slots__)
def test_a_plan_for_anything_else_is_not_used(cache: EngineCache, name: str) -> None:
    cache.store(KEY, PLAN)
    assert cache.load(replace(KEY, **{name: "other"})) is None


def test_build_runs_once(cache: EngineCache) -> None:
    builds = []

    def build() -> tuple[bytes, dict[str, object]]:
        builds.append(1)
        return PLAN, {}

    first = cache.load_or_build(KEY, build)
    second = cache.load_or_build(KEY, build)
    assert (first.plan, first.built, second.plan, second.built) == (PLAN, True, PLAN, False)
    assert len(builds) == 1
    assert "no engine of this graph" in first.reason


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan.write_bytes(PLAN[:-7]), "truncated"),
        (lambda plan: plan.write_bytes(b""), "truncated"),
        (lambda plan: plan.write_bytes(b"X" + PLAN[1:]), "corrupt"),
        (lambda plan: plan.with_suffix(".json").unlink(), "sidecar is missing"),
        (lambda plan: plan.with_suffix(".json").write_text("{"), "sidecar cannot be read"),
        (lambda plan: plan.with_suffix(".json").write_text("[]"), "not of format"),
        (lambda plan: plan.with_suffix(".json").write_text('{"format": 2}'), "not of format"),
        (lambda plan: plan.with_suffix(".json").write_text('{"format": 1}'), "lacks the key"),
        (lambda plan: plan.with_suffix(".json").write_bytes(b"\xff\xfe"), "cannot be read"),
    ],
)
def test_a_damaged_plan_is_never_loaded_and_is_rebuilt(cache, damage, words, caplog) -> None:
    cache.store(KEY, PLAN)
    damage(plan_path(cache))
    assert cache.load(KEY) is None
    assert words in cache.explain(KEY)
    assert len(caplog.records) == 1
    assert words in caplog.records[0].getMessage()
    assert words in cache.verify()[0][1] or "SHA-256" in cache.verify()[0][1]
    result = cache.load_or_build(KEY, lambda: (b"new", {}))
    assert result.built
    assert words in result.reason
    assert cache.load(KEY) == b"new"


def test_a_foreign_plan_under_our_name_is_not_loaded(cache: EngineCache) -> None:
    other = replace(KEY, version="10.9.0")
    cache.store(other, PLAN)
    for suffix in (".plan", ".json"):
        plan_path(cache, other).with_suffix(suffix).rename(plan_path(cache).with_suffix(suffix))
    assert cache.load(KEY) is None
    assert "describes another engine" in cache.explain(KEY)


def test_explain_says_what_changed(cache: EngineCache) -> None:
    assert cache.explain(KEY).endswith("no engine of this graph is in the cache")
    cache.store(replace(KEY, version="11.3.0"), PLAN)
    cache.store(replace(KEY, version="10.1", gpu="NVIDIA T4"), PLAN)
    assert cache.explain(KEY) == (
        "lite/segment: will be built, version was 11.3.0 and is 11.4.0.106"
    )
    assert "graph sha256 was aaaaaaaaaaaa..." in cache.explain(replace(KEY, graph_sha256="b" * 64))
    cache.store(KEY, PLAN)
    assert "is ready" in cache.explain(KEY)


def test_the_size_is_bounded_and_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_mib=3 * len(PLAN) / 2**20)
    keys = [replace(KEY, version=str(n)) for n in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.store(key, PLAN)
        os.utime(plan_path(cache, key), (1e9 + age, 1e9 + age))
    assert cache.load(keys[0]) == PLAN  # used now: no longer the oldest
    cache.store(keys[3], PLAN)
    assert [cache.load(key) is not None for key in keys] == [True, False, True, True]
    assert not plan_path(cache, keys[1]).with_suffix(".json").exists()


def test_a_plan_above_the_limit_is_still_kept(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_mib=1e-6)
    cache.store(KEY, PLAN)
    assert cache.load(KEY) == PLAN
    assert cache.prune(0) == [plan_path(cache)]
    assert cache.entries() == []


def test_a_failing_build_leaves_the_cache_as_it_was(cache: EngineCache) -> None:
    cache.store(KEY, PLAN)
    plan_path(cache).write_bytes(b"damaged")
    with pytest.raises(OSError, match="the build's own"):
        cache.load_or_build(KEY, lambda: (_ for _ in ()).throw(OSError("the build's own")))
    assert plan_path(cache).read_bytes() == b"damaged"
    assert cache.load_or_build(KEY, lambda: (PLAN, {})).plan == PLAN


def test_a_full_disk_is_one_error_and_loses_nothing(cache, monkeypatch) -> None:
    cache.store(KEY, PLAN)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "write", full)
    with pytest.raises(EngineError, match="No space left"):
        cache.store(KEY, PLAN[::-1])
    other = replace(KEY, gpu="other")
    result = cache.load_or_build(other, lambda: (PLAN, {}))
    assert result.plan == PLAN
    assert result.built
    assert "No space left" in result.problem
    monkeypatch.undo()
    assert cache.load(KEY) == PLAN
    assert cache.load(other) is None
    assert list(cache.directory.glob(".*.tmp")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_the_operating_system_refusing_to_write(cache: EngineCache) -> None:
    code = """
        import resource, signal, sys
        from trtseg.errors import EngineError
        from trtseg.runtime.tensorrt.plan_cache import EngineCache
        sys.path.insert(0, sys.argv[2])
        from test_plan_cache import KEY, PLAN
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            EngineCache(sys.argv[1]).store(KEY, PLAN)
        except EngineError as error:
            print(error)
    """
    process = run_python(code, cache.directory, Path(__file__).parent)
    out, err = process.communicate(timeout=60)
    assert "File too large" in out, err
    assert sorted(cache.directory.iterdir()) == []


def test_two_processes_build_once(cache: EngineCache) -> None:
    code = """
        import sys, time
        from trtseg.runtime.tensorrt.plan_cache import EngineCache
        sys.path.insert(0, sys.argv[2])
        from test_plan_cache import KEY, PLAN
        def build():
            print("building", flush=True)
            time.sleep(0.5)
            return PLAN, {}
        print(EngineCache(sys.argv[1]).load_or_build(KEY, build).reason)
    """
    processes = [run_python(code, cache.directory, Path(__file__).parent) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sum(output.count("building") for output in outputs) == 1, outputs
    assert cache.load(KEY) == PLAN


def test_threads_build_once(cache: EngineCache) -> None:
    builds, results = [], []

    def build() -> tuple[bytes, dict[str, object]]:
        builds.append(1)
        time.sleep(0.1)
        return PLAN, {}

    threads = [
        threading.Thread(target=lambda: results.append(cache.load_or_build(KEY, build).plan))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [PLAN] * 4
    assert len(builds) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_builder_leaves_a_usable_cache(cache: EngineCache) -> None:
    code = """
        import os, sys, time
        from trtseg import atomic
        from trtseg.runtime.tensorrt.plan_cache import EngineCache
        sys.path.insert(0, sys.argv[2])
        from test_plan_cache import KEY, PLAN
        def stuck(descriptor):
            print("writing", flush=True)
            time.sleep(60)
        atomic.os.fsync = stuck
        EngineCache(sys.argv[1]).load_or_build(KEY, lambda: (PLAN, {}))
    """
    process = run_python(code, cache.directory, Path(__file__).parent)
    assert process.stdout.readline() == "writing\n"
    with pytest.raises(EngineError, match="gave up waiting"):
        cache.load_or_build(KEY, lambda: (PLAN, {}), stop_waiting=lambda: True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(list(cache.directory.glob(".*.tmp"))) == 1
    assert cache.load(KEY) is None
    result = cache.load_or_build(KEY, lambda: (PLAN, {}))
    assert result.built
    assert cache.load(KEY) == PLAN
    assert list(cache.directory.glob(".*.tmp")) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="executable code"):
        EngineCache(folder)
    made = EngineCache(tmp_path / "made")
    assert made.directory.stat().st_mode & 0o077 == 0


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="file"):
        EngineCache(tmp_path / "file")


def test_arguments(cache: EngineCache) -> None:
    with pytest.raises(ValueError, match="limit_mib"):
        EngineCache(cache.directory, limit_mib=0)
    with pytest.raises(ValueError, match="plan"):
        cache.store(KEY, b"")


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRTSEG_CACHE", str(tmp_path))
    assert default_directory() == tmp_path / "engines"
    monkeypatch.delenv("TRTSEG_CACHE")
    assert default_directory().name == "engines"


def test_an_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", b"")


def test_the_sidecar_is_plain_json(cache: EngineCache) -> None:
    sidecar = json.loads(cache.store(KEY, PLAN).with_suffix(".json").read_text())
    assert sidecar["key"]["gpu"] == KEY.gpu
    assert sidecar["size_bytes"] == len(PLAN)
