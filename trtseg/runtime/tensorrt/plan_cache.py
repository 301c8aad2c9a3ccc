"""The engine cache: built TensorRT plans on disk, each with a sidecar that says what it is for.

A plan runs only with the TensorRT that built it, on the kind of GPU it was built for, and it is
executable code. So a plan is found by the digest of everything it depends on, its SHA-256 is
checked on the very bytes that are handed out, and a plan that does not match is never loaded.

One entry is two files in the cache folder, named by the digest of the key: `DIGEST.plan` and
`DIGEST.json` (the sidecar); `DIGEST.lock` is there while the plan is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from trtseg.atomic import LARGEST_HEAD_BYTES, file_sha256, read_file, write_atomically
from trtseg.errors import EngineError
from trtseg.file_lock import locked
from trtseg.runtime.tensorrt.plan_key import EngineKey

_log = logging.getLogger(__name__)

SIDECAR_FORMAT = 1
LARGEST_PLAN_BYTES = 8 * 2**30
# Where a plan of TensorRT for RTX runs that was built for no card in particular.
PORTABLE = ("8.6", "8.9", "12.0")
_ORPHAN_AGE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachedPlan:
    """A plan ready to be loaded.

    Attributes:
        plan: the serialized engine.
        built: True when it was built now, False when it came from the cache.
        reason: why it was built, or where it was found; one sentence.
        problem: why the new plan could not be kept (a full disk), None when it was.
    """

    plan: bytes
    built: bool
    reason: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One plan on disk as its sidecar describes it; `key` is None when the sidecar is unusable."""

    path: Path
    size_bytes: int
    used_at: float
    key: EngineKey | None
    sha256: str | None
    details: Mapping[str, object]
    problem: str | None


def default_directory() -> Path:
    """The folder of the user's engine cache; `TRTSEG_CACHE` overrides it."""
    chosen = os.environ.get("TRTSEG_CACHE")
    if chosen:
        return Path(chosen) / "engines"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "trtseg" / "engines"


class EngineCache:
    """Plans in one folder, shared by every process of one user.

    Args:
        directory: created when missing, readable by its owner only; None for the user's cache.
        limit_mib: after a store the least recently used plans are removed down to this size;
            the newest plan is always kept. > 0.

    Raises:
        ValueError: limit_mib <= 0.
        EngineError: the folder cannot be created, anybody may write to it, or it belongs to
            another user.
    """

    def __init__(self, directory: str | Path | None = None, *, limit_mib: float = 8192.0) -> None:
        if not limit_mib > 0:
            raise ValueError(f"limit_mib: expected a number > 0, got {limit_mib}")
        self.directory = Path(directory) if directory is not None else default_directory()
        self.limit_bytes = int(limit_mib * 2**20)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat()
        except OSError as error:
            raise EngineError(f"engine cache {self.directory}: {error.strerror}") from error
        # A plan is code: whoever may write here may run code as this user.
        if os.name == "posix" and (
            status.st_mode & stat.S_IWOTH or status.st_uid not in (os.getuid(), 0)
        ):
            raise EngineError(
                f"engine cache {self.directory}: other users may write to it, and a plan is "
                "executable code; choose another folder or chmod 700"
            )

    # -- reading ----------------------------------------------------------------------------

    def load(self, key: EngineKey) -> bytes | None:
        """The plan of `key`, verified; None when there is none or it is damaged.

        A damaged or foreign plan is reported in one warning and left for `load_or_build`.
        """
        plan, problem = self._read(key)
        if plan is None and problem is not None:
            _log.warning("engine %s: %s", key.graph, problem)
        return plan

    def load_portable(self, key: EngineKey) -> tuple[bytes, EngineKey] | None:
        """A plan built ahead of time that fits the GPU of `key`, with the key it was built for.

        TensorRT for RTX compiles for the card when the plan is loaded, so one plan serves every
        card of the compute capabilities it was built for.
        """
        for entry in self.entries():
            found = entry.key
            if found is None or found.gpu != "any":
                continue
            known = found.compute_capability.split(",")
            if found.compute_capability == "portable":
                known = list(PORTABLE)
            same = replace(found, gpu=key.gpu, compute_capability=key.compute_capability)
            if same == key and key.compute_capability in known:
                plan = self.load(found)
                if plan is not None:
                    return plan, found
        return None

    def explain(self, key: EngineKey) -> str:
        """One sentence: the plan is ready, or why it will be built."""
        plan, problem = self._read(key)
        if plan is not None:
            return f"{key.graph}: the engine is ready ({len(plan) / 2**20:.1f} MiB)"
        if problem is not None:
            return f"{key.graph}: will be rebuilt, {problem}"
        portable = self.load_portable(key)
        if portable is not None:
            plan, found = portable
            return (
                f"{key.graph}: the engine is ready, built ahead of time for "
                f"{found.compute_capability} ({len(plan) / 2**20:.1f} MiB)"
            )
        nearest = self._nearest(key)
        if nearest is None:
            return f"{key.graph}: will be built, no engine of this graph is in the cache"
        changes = ", ".join(
            f"{field.name.replace('_', ' ')} was {_short(getattr(nearest, field.name))} "
            f"and is {_short(getattr(key, field.name))}"
            for field in fields(EngineKey)
            if getattr(nearest, field.name) != getattr(key, field.name)
        )
        return f"{key.graph}: will be built, {changes}"

    def entries(self) -> list[CacheEntry]:
        """All plans, the most recently used first; plans without a usable sidecar included."""
        found = []
        for path in self.directory.glob("*.plan"):
            with contextlib.suppress(FileNotFoundError):  # pruned by another process meanwhile
                status = path.stat()
                found.append(_entry(path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda entry: entry.used_at, reverse=True)

    def verify(self) -> list[tuple[CacheEntry, str | None]]:
        """Every entry with its problem (None when it is sound), by reading and hashing each."""
        results: list[tuple[CacheEntry, str | None]] = []
        for entry in self.entries():
            problem = entry.problem
            if problem is None:
                try:
                    if file_sha256(entry.path) != entry.sha256:
                        problem = "the plan's SHA-256 is not the one in its sidecar"
                except OSError as error:
                    problem = f"the plan cannot be read: {error.strerror}"
            results.append((entry, problem))
        return results

    # -- writing ----------------------------------------------------------------------------

    def store(
        self, key: EngineKey, plan: bytes, *, details: Mapping[str, object] | None = None
    ) -> Path:
        """Keep a plan under `key`, atomically, then prune to the size limit.

        Args:
            plan: the serialized engine, not empty.
            details: what else the sidecar should say (build time, messages); JSON values.

        Raises:
            ValueError: the plan is empty.
            EngineError: it cannot be written; what was there before is still there.
        """
        if not plan:
            raise ValueError("plan: expected bytes, got nothing")
        path = self.path(key)
        sidecar = {
            "format": SIDECAR_FORMAT,
            "key": asdict(key),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "size_bytes": len(plan),
            "built_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "details": dict(details or {}),
        }
        text = json.dumps(sidecar, indent=1, sort_keys=True).encode()
        try:
            # Plan first: a crash between the two leaves a plan whose old sidecar does not match,
            # which is rebuilt; the other order would leave a sidecar that vouches for old bytes.
            write_atomically(path, plan)
            write_atomically(path.with_suffix(".json"), text)
        except OSError as error:
            raise EngineError(
                f"engine cache {self.directory}: {error.strerror or error}; "
                f"{len(plan) / 2**20:.1f} MiB are needed"
            ) from error
        self.prune(keep=path)
        return path

    def load_or_build(
        self,
        key: EngineKey,
        build: Callable[[], tuple[bytes, Mapping[str, object]]],
        *,
        stop_waiting: Callable[[], bool] | None = None,
    ) -> CachedPlan:
        """The plan of `key`, built at most once however many processes ask for it.

        Args:
            build: called without a plan, under the entry's lock; returns the plan and the
                details for its sidecar. What it raises passes through, the cache unchanged.
            stop_waiting: polled while another process builds; True gives up.

        Raises:
            EngineError: `stop_waiting` ended the wait, or the lock cannot be taken.
        """
        plan, problem = self._read(key)
        if plan is not None:
            return CachedPlan(plan, False, f"{key.graph}: the engine was in the cache")
        lock_path = self.directory / f"{key.digest()}.lock"
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(locked(lock_path, stop_waiting=stop_waiting))
            except OSError as error:
                raise EngineError(f"engine cache {lock_path}: {error.strerror or error}") from error
            if not held:
                raise EngineError(f"{key.graph}: gave up waiting for another process to build")
            plan, problem = self._read(key)
            if plan is not None:
                return CachedPlan(plan, False, f"{key.graph}: another process built it")
            reason = self.explain(key)
            if problem is not None:
                _log.warning("%s", reason)
            self._remove_leftovers(key)
            plan, details = build()
            try:
                self.store(key, plan, details=details)
            except EngineError as error:
                # The build may have taken minutes: its result serves this process, and the
                # caller is told why the next one will build again.
                _log.warning("%s: built, but not kept: %s", key.graph, error)
                return CachedPlan(plan, True, reason, str(error))
            return CachedPlan(plan, True, reason)

    def path(self, key: EngineKey) -> Path:
        """Where the plan of `key` is, or would be."""
        return self.directory / f"{key.digest()}.plan"

    def remove(self, key: EngineKey) -> bool:
        """Forget the plan of `key`; True when it is gone."""
        return _remove(self.path(key)) and _remove(self.path(key).with_suffix(".json"))

    def remove_entry(self, entry: CacheEntry) -> bool:
        """Forget a plan that was listed; True when it is gone."""
        return _remove(entry.path) and _remove(entry.path.with_suffix(".json"))

    def prune(self, limit_mib: float | None = None, *, keep: Path | None = None) -> list[Path]:
        """Remove unusable plans, then the least recently used ones above the limit.

        Args:
            limit_mib: None for the cache's own limit; 0 removes all but `keep`.
            keep: a plan that stays whatever its size.

        Returns:
            The plans removed.
        """
        limit = self.limit_bytes if limit_mib is None else int(limit_mib * 2**20)
        removed, total = [], 0
        for entry in self.entries():
            total += entry.size_bytes
            if entry.path == keep:
                continue
            # An entry without a sidecar may be one that another process is storing right now.
            unusable = entry.problem is not None and time.time() - entry.used_at > _ORPHAN_AGE_S
            if (total > limit or unusable) and self.remove_entry(entry):
                total -= entry.size_bytes
                removed.append(entry.path)
        for path in self.directory.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ORPHAN_AGE_S:
                    path.unlink()
        return removed

    # -- inside -----------------------------------------------------------------------------

    def _read(self, key: EngineKey) -> tuple[bytes | None, str | None]:
        """(plan, None), (None, why the entry is unusable), or (None, None) without an entry."""
        path = self.path(key)
        if not path.exists():
            return None, None
        entry = _entry(path, 0, 0.0)
        if entry.problem is not None:
            return None, entry.problem
        if entry.key != key:
            return None, "its sidecar describes another engine"
        try:
            plan = read_file(path, LARGEST_PLAN_BYTES)
        except OSError as error:
            return None, f"the plan cannot be read: {error.strerror}"
        if hashlib.sha256(plan).hexdigest() != entry.sha256:
            expected = entry.details.get("size_bytes")
            if isinstance(expected, int) and len(plan) < expected:
                return None, f"the plan is truncated ({len(plan)} of {expected} bytes)"
            return None, "the plan is corrupt (its SHA-256 is not the one in its sidecar)"
        with contextlib.suppress(OSError):  # a read-only cache still serves
            os.utime(path)
        return plan, None

    def _nearest(self, key: EngineKey) -> EngineKey | None:
        known = [
            entry.key
            for entry in self.entries()
            if entry.key is not None and entry.key.graph == key.graph
        ]
        names = [field.name for field in fields(EngineKey)]
        return min(
            known,
            key=lambda other: sum(getattr(other, n) != getattr(key, n) for n in names),
            default=None,
        )

    def _remove_leftovers(self, key: EngineKey) -> None:
        """Temporary files of builders of this entry that were killed; the lock is held."""
        for path in self.directory.glob(f".{key.digest()}.*.tmp"):
            _remove(path)


def _entry(path: Path, size_bytes: int, used_at: float) -> CacheEntry:
    def broken(problem: str) -> CacheEntry:
        return CacheEntry(path, size_bytes, used_at, None, None, {}, problem)

    try:
        sidecar = json.loads(read_file(path.with_suffix(".json"), LARGEST_HEAD_BYTES))
    except FileNotFoundError:
        return broken("its sidecar is missing")
    except (OSError, ValueError, RecursionError):
        return broken("its sidecar cannot be read")
    if not isinstance(sidecar, dict) or sidecar.get("format") != SIDECAR_FORMAT:
        return broken(f"its sidecar is not of format {SIDECAR_FORMAT}")
    key, sha256 = sidecar.get("key"), sidecar.get("sha256")
    names = {field.name for field in fields(EngineKey)}
    if not isinstance(key, dict) or set(key) != names or not isinstance(sha256, str):
        return broken("its sidecar lacks the key or the SHA-256")
    details = dict(sidecar.get("details") or {})
    details.update(size_bytes=sidecar.get("size_bytes"), built_at=sidecar.get("built_at"))
    return CacheEntry(path, size_bytes, used_at, EngineKey(**key), sha256, details, None)


def _remove(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # on Windows a plan that another process reads cannot be removed
        return False
    return True


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 else text or "none"
