"""Whenever a writer dies, readers see the old files or the new ones, and no litter stays."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from kills import Disk, Killed

from trtseg import atomic, file_lock

HEAD = "head.json"


def listed(text: bytes) -> dict[str, str]:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def contents(seed: int, *names: str) -> dict[str, bytes]:
    parts = {name: f"{name} {seed}".encode() * 1000 for name in names or ("a", "b")}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    return {**parts, HEAD: json.dumps(digests).encode()}


def save(folder: Path, files: dict[str, bytes], **options) -> None:
    atomic.write_folder(folder, HEAD, files, listed, **options)


def load(folder: Path) -> dict[str, bytes]:
    text, found = atomic.read_folder(folder, HEAD, listed, 2**20)
    assert found.keys() == listed(text).keys()
    return {**found, HEAD: text}


def killed(monkeypatch: pytest.MonkeyPatch, disk: Disk, work) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "os", disk)
        patch.setattr(file_lock, "os", disk)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("half", [False, True], ids=["between", "within a write"])
@pytest.mark.parametrize("first", [False, True], ids=["again", "first"])
def test_a_kill_at_any_file_system_call_of_a_save(tmp_path, monkeypatch, first, half):
    old, new, third = contents(1), contents(2), contents(3, "b", "c")
    at, seen = 0, set()
    while True:
        folder = tmp_path / f"{at}"
        if not first:
            save(folder, old)
        if not killed(monkeypatch, Disk(at, half), lambda to=folder: save(to, new)):
            break
        if first and (atomic.is_empty(folder) or not (folder / HEAD).exists()):
            seen.add("none")
        else:
            found = load(folder)
            assert found in (old, new), at
            seen.add("old" if found == old else "new")
        save(folder, third)  # goes on, and clears up
        assert load(folder) == third
        assert sorted(os.listdir(folder)) == sorted(third)
        at += 1
    assert seen == ({"none", "new"} if first else {"old", "new"})
    assert at > 8
    assert load(folder) == new
    assert sorted(os.listdir(folder)) == sorted(new)


def test_everything_is_on_the_disk_before_the_head_says_so(tmp_path, monkeypatch):
    disk = Disk()
    killed(monkeypatch, disk, lambda: save(tmp_path, contents(1)))
    calls = [call[0] for call in disk.calls]
    replaced = calls.index("replace")
    assert disk.calls[replaced][2].endswith(HEAD)
    # two parts, the folder with their names, the head; then the folder with the head's name
    assert calls[:replaced].count("fsync") == 4
    assert calls[replaced + 1] == "fsync"


def test_an_error_at_any_call_of_a_save_leaves_the_old_files(tmp_path, monkeypatch):
    old = contents(1)
    save(tmp_path / "x", old)
    for name in ("open", "write", "fsync", "replace"):
        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            disk = Disk()
            disk.__dict__[name] = full
            if name == "open":
                disk.__dict__[name] = lambda *a, **o: full() if a[1] & os.O_CREAT else os.open(*a)
            patch.setattr(atomic, "os", disk)
            with pytest.raises(OSError, match="No space"):
                save(tmp_path / "x", contents(2))
        assert load(tmp_path / "x") == old
        assert sorted(os.listdir(tmp_path / "x")) == sorted(old)


def test_a_failed_first_save_leaves_no_folder(tmp_path):
    def refuse(head):
        assert head is None
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        save(tmp_path / "x", contents(1), accept=refuse)
    assert os.listdir(tmp_path) == []


def test_a_folder_of_plain_files_reads_and_foreign_files_stay(tmp_path):
    for name, data in contents(1).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "card.md").write_text("mine")
    assert load(tmp_path) == contents(1)
    save(tmp_path, contents(2, "b"))
    assert sorted(os.listdir(tmp_path)) == ["b", "card.md", HEAD]


def test_a_link_to_a_folder_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(tmp_path / "link", contents(1))
    save(tmp_path / "link", contents(2))
    assert (tmp_path / "link").is_symlink()
    assert load(tmp_path / "real") == contents(2)


def test_readers_beside_a_writer_see_whole_saves(tmp_path):
    versions = [contents(seed) for seed in range(4)]
    save(tmp_path, versions[0])
    done = threading.Event()

    def write():
        for turn in range(16):
            save(tmp_path, versions[turn % 4])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert load(tmp_path) in versions
        reads += 1
    writer.join()
    assert reads > 1


def test_of_two_writers_from_one_head_exactly_one_is_accepted(tmp_path):
    save(tmp_path, contents(0))
    parent, outcomes = contents(0)[HEAD], []
    start = threading.Barrier(2)

    def accept(head):
        if head != parent:
            raise ValueError("another one")

    def write(seed):
        start.wait()
        try:
            save(tmp_path, contents(seed), accept=accept)
            outcomes.append(seed)
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 1
    (winner,) = [seed for seed in outcomes if seed != "refused"]
    assert load(tmp_path) == contents(winner)


def test_pipes_devices_and_large_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    for path, message in (
        (tmp_path / "pipe", "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path / "large", "larger than 10 bytes"),
    ):
        with pytest.raises(OSError, match=message):
            atomic.read_file(path, 10)
    assert atomic.read_file(tmp_path / "large", 11) == bytes(11)


def test_room_is_found_out_by_writing(tmp_path):
    import resource

    atomic.check_room(tmp_path / "not" / "there", 1000)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="no folder to write to"):
        atomic.check_room(tmp_path / "file" / "state", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            atomic.check_room(tmp_path, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_as_long_as_file_systems_allow_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    atomic.write_atomically(path, b"data")
    assert path.read_bytes() == b"data"
