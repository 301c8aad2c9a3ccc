"""The photos that people work on: records on the disk, sessions in memory.

As long as there are operations: each of the API's on a photo or an object is a method here.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.image import Picture
from trtseg.runtime.memory_plan import MemoryPlan
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Prediction, Session
from trtseg.serve import prompts, records, uploads
from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.prompts import Prompt
from trtseg.serve.records import DamagedRecord, ObjectRecord, PhotoRecord
from trtseg.serve.refusals import NotFound, TooLarge
from trtseg.serve.turns import Turns
from trtseg.types import Click


@dataclass
class Answer:
    """What an object looks like now.

    Attributes:
        record: of the object.
        prediction: of its session.
        encoded: the photo's encoding.
        threshold: at which a candidate's probability becomes its mask.
        took_ms: from the beginning of its turn; reading and encoding the photo are in it.
    """

    record: ObjectRecord
    prediction: Prediction
    encoded: EncodedImage
    threshold: float
    took_ms: float


@dataclass
class _Open:
    """An object's session, and what it was told."""

    session: Session
    said: tuple[Prompt, ...] = ()


@dataclass
class _Live:
    """A photo in memory. Its record is the file's; the rest can be made again."""

    record: PhotoRecord
    plan: MemoryPlan
    lock: threading.RLock = field(default_factory=threading.RLock)
    picture: Picture | None = None
    encoded: EncodedImage | None = None
    objects: dict[str, _Open] = field(default_factory=dict)
    users: int = 0
    gone: bool = False

    @property
    def nbytes(self) -> int:
        """By the plan, before it is allocated."""
        total = 0 if self.picture is None else int(self.picture.pixels.nbytes)
        total += 0 if self.encoded is None else self.plan.encoding
        for one in list(self.objects.values()):
            clicks = len(one.said)
            # the mask shown, the one being made, and a caller's; a session keeps all its states
            total += self.plan.crops + 3 * self.plan.mask + (clicks + 1) * self.plan.click
        return total


class Workspace:
    """Photos, objects and what was said about them; every method may be called from any thread.

    A prompt is on the disk before it is answered, so that a crash loses nothing that was answered.
    What is in memory is a cache of it: dropping it changes no answer.
    """

    def __init__(self, segmenter: Segmenter, folder: Folder, limits: Limits) -> None:
        self.segmenter, self.folder, self.limits = segmenter, folder, limits
        self.turns = Turns(limits.wait_s)
        self._lock = threading.Lock()
        self._live: OrderedDict[str, _Live] = OrderedDict()

    def photos(self) -> list[PhotoRecord]:
        """All photos whose records can be read, the one that was changed last first."""
        found = []
        for key in self.folder.ids():
            with contextlib.suppress(NotFound, DamagedRecord):  # removed meanwhile, or damaged
                found.append(self.folder.read(key))
        return found

    def photo(self, key: str) -> PhotoRecord:
        """A photo's record.

        Raises:
            NotFound: there is none.
        """
        with self._used(key) as live:
            return live.record

    def add_photo(self, data: bytes, name: str) -> PhotoRecord:
        """Keep a photo; one that is known already comes back with its objects.

        Where its record is damaged, that is set aside, and the photo begins anew.

        Raises:
            NotAnImage: it cannot be read.
            TooLarge: it has too many bytes or pixels.
            NotStored: the disk refused.
        """
        if len(data) > self.limits.upload_bytes:
            raise TooLarge(f"the file has {len(data)} bytes, at most {self.limits.upload_bytes} go")
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        with contextlib.suppress(NotFound, DamagedRecord):
            return self.photo(key)
        height, width = uploads.checked_size(data, self.limits.pixels)
        self._check_memory(height, width)
        picture = uploads.decoded(data, self.folder.path)
        record = PhotoRecord(key, records.line(name, "photo"), *picture.size)
        with self._lock:
            self.folder.set_aside_damaged(key)
        self._expire()
        self.folder.create(record, data, uploads.thumbnail(picture))
        with self._used(key) as live:
            live.picture = picture  # it is encoded soon
        return record

    def remove_photo(self, key: str) -> None:
        """Forget a photo and its objects.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            if key not in self._live:  # its record may be damaged
                if not self.folder.remove(key):
                    raise NotFound("there is no such photo (any more)")
                return
        with self._used(key) as live:
            live.gone = True
            with self._lock:
                self._live.pop(key, None)
                self.folder.remove(key)

    def picture(self, key: str) -> Picture:
        """A photo's pixels, upright.

        Raises:
            NotFound: there is none.
            Refusal: its file has been damaged.
        """
        with self._used(key) as live:
            return self._picture(live)

    def add_object(self, key: str, name: str = "", colour: str = "") -> ObjectRecord:
        """Begin an object; a name and a colour are found for it where none is given.

        Raises:
            NotFound, TooLarge, NotStored.
        """
        with self._used(key) as live:
            record = live.record
            if len(record.objects) >= self.limits.objects:
                raise TooLarge(f"a photo has at most {self.limits.objects} objects here")
            number = len(record.objects) + 1
            while any(one.name == f"Object {number}" for one in record.objects):
                number += 1
            taken = [one.colour for one in record.objects]
            free = min(records.COLOURS, key=taken.count)
            made = ObjectRecord(
                secrets.token_hex(8), records.line(name, f"Object {number}"), colour or free
            )
            self._store(live, record.with_object(made))
            return made

    def change_object(
        self, key: str, object_id: str, name: str | None, colour: str | None
    ) -> ObjectRecord:
        """Another name or colour; None keeps what there is.

        Raises:
            NotFound, NotStored.
        """
        with self._used(key) as live:
            before = live.record.object(object_id)
            after = replace(
                before,
                name=before.name if name is None else records.line(name, before.name),
                colour=before.colour if colour is None else colour,
            )
            self._store(live, live.record.with_object(after))
            return after

    def remove_object(self, key: str, object_id: str) -> None:
        """Forget an object.

        Raises:
            NotFound, NotStored.
        """
        with self._used(key) as live:
            self._store(live, live.record.without_object(object_id))
            live.objects.pop(object_id, None)

    def answer(self, key: str, object_id: str) -> Answer:
        """What an object looks like now.

        Raises:
            NotFound, Busy, Refusal, EngineError.
        """
        with self._used(key) as live:
            return self._answer(live, live.record.object(object_id))

    def prompt(self, key: str, object_id: str, prompt: Prompt) -> Answer:
        """Say something about an object: compute the answer, store the prompt, then answer.

        Raises:
            ValueError: see `prompts.apply`.
            NotFound, TooLarge, Busy, NotStored, EngineError: the object is as it was.
        """
        with self._used(key) as live:
            record = live.record.object(object_id)
            if prompts.points_of(prompt) > self.limits.points:
                raise TooLarge(f"a line has at most {self.limits.points} points here")
            if record.at >= self.limits.prompts:
                raise TooLarge(f"an object takes at most {self.limits.prompts} prompts here")
            return self._move(live, record.with_prompt(prompt))

    def revise(self, key: str, name: str, said: Sequence[Prompt]) -> Answer:
        """Let the object of a name be what these prompts say; the first of them that it was told
        before, in the same order, are not run again. There will be one where there is none.

        Raises:
            ValueError, NotFound, TooLarge, Busy, NotStored, EngineError: see `prompt`.
        """
        with self._used(key) as live:
            found = [one for one in live.record.objects if one.name == name]
            record = found[0] if found else self.add_object(key, name)
            if len(said) > self.limits.prompts:
                raise TooLarge(f"an object takes at most {self.limits.prompts} prompts here")
            return self._move(live, replace(record, prompts=tuple(said), at=len(said)))

    def undo(self, key: str, object_id: str) -> Answer:
        """Take the last prompt back.

        Raises:
            ValueError: there is none.
            NotFound, Busy, NotStored, EngineError.
        """
        return self._step(key, object_id, -1, "undo")

    def redo(self, key: str, object_id: str) -> Answer:
        """Bring the prompt again that `undo` took back.

        Raises:
            ValueError: there is none.
            NotFound, Busy, NotStored, EngineError.
        """
        return self._step(key, object_id, 1, "redo")

    def reset(self, key: str, object_id: str) -> Answer:
        """Take all prompts back; `redo` brings them again, one by one.

        Raises:
            NotFound, Busy, NotStored, EngineError.
        """
        with self._used(key) as live:
            return self._move(live, replace(live.record.object(object_id), at=0))

    def preview(
        self, key: str, object_id: str, x: float, y: float, positive: bool
    ) -> Prediction | None:
        """What a click would give; None where others' clicks are waiting for the networks.

        Raises:
            ValueError: the click lies outside of the photo.
            NotFound, EngineError.
        """
        with self._used(key) as live:
            record = live.record.object(object_id)
            opened = live.objects.get(object_id)
            if opened is None or opened.said != record.said:  # made first, at its turn
                self._answer(live, record)
                opened = live.objects[object_id]
            with self.turns.preview() as mine:
                return opened.session.preview(Click(x, y, positive)) if mine else None

    def memory_bytes(self) -> int:
        """What is in memory, by the plans."""
        with self._lock:
            return sum(live.nbytes for live in self._live.values())

    def _step(self, key: str, object_id: str, step: int, word: str) -> Answer:
        with self._used(key) as live:
            record = live.record.object(object_id)
            if not 0 <= record.at + step <= len(record.prompts):
                raise ValueError(f"{word}: nothing to {word}")
            return self._move(live, replace(record, at=record.at + step))

    def _move(self, live: _Live, after: ObjectRecord) -> Answer:
        """The answer to a changed object; nothing has changed if it, or its storing, fails."""
        answer = self._answer(live, after)
        try:
            self._store(live, live.record.with_object(after))
        except BaseException:
            live.objects.pop(after.id, None)  # its session is ahead of the record
            raise
        return answer

    def _answer(self, live: _Live, record: ObjectRecord) -> Answer:
        """Bring an object's session to where its record says it is."""
        with self.turns.answer():
            start = perf_counter()
            if live.encoded is None:
                with self._lock:
                    self._trim(self._wanted(live.plan))
                picture = self._picture(live)
                live.encoded = self.segmenter.encode(picture.pixels, picture.image_format)
            opened = live.objects.get(record.id)
            if opened is None:
                opened = live.objects[record.id] = _Open(self.segmenter.session(live.encoded))
            prediction = self._follow(opened, record.said)
            took_ms = (perf_counter() - start) * 1e3
        threshold = self.segmenter.bundle.manifest.threshold
        return Answer(record, prediction, live.encoded, threshold, took_ms)

    def _follow(self, opened: _Open, said: tuple[Prompt, ...]) -> Prediction:
        shared = 0
        for mine, wanted in zip(opened.said, said, strict=False):
            if mine != wanted:
                break
            shared += 1
        while len(opened.said) > shared:
            opened.session.undo()
            opened.said = opened.said[:-1]
        prediction = opened.session.prediction
        for prompt in said[shared:]:
            prediction = prompts.apply(opened.session, prompt)
            opened.said = (*opened.said, prompt)
        return prediction

    def _store(self, live: _Live, record: PhotoRecord) -> None:
        self.folder.write(record)
        live.record = record

    @contextlib.contextmanager
    def _used(self, key: str) -> Iterator[_Live]:
        """A photo, locked; afterwards others leave the memory if there is too much in it."""
        with self._lock:
            live = self._live.get(key)
            if live is None:
                record = self.folder.read(key)
                plan = self.segmenter.memory_plan(record.height, record.width)
                live = self._live[key] = _Live(record, plan)
            self._live.move_to_end(key)
            live.users += 1
        try:
            with live.lock:
                if live.gone:
                    raise NotFound("there is no such photo (any more)")
                yield live
        finally:
            with self._lock:
                live.users -= 1
                self._trim()

    def _trim(self, wanted: int = 0) -> None:
        total = wanted + sum(live.nbytes for live in self._live.values())
        for key, live in list(self._live.items()):
            if total <= self.limits.memory_bytes and len(self._live) <= self.limits.photos:
                return
            if live.users == 0:
                total -= live.nbytes
                del self._live[key]

    def _expire(self) -> None:
        for key in self.folder.ids()[self.limits.photos - 1 :]:
            with self._lock:
                live = self._live.get(key)
                if live is None or not live.users:
                    self._live.pop(key, None)
                    self.folder.remove(key)

    def _check_memory(self, height: int, width: int) -> None:
        try:
            plan = self.segmenter.memory_plan(height, width)
        except ValueError as error:
            raise TooLarge(str(error)) from None
        wanted = self._wanted(plan)
        if wanted > self.limits.memory_bytes:
            raise TooLarge(
                f"a photo of {width} x {height} pixels would take {wanted / 2**20:.0f} MiB, "
                f"at most {self.limits.memory_bytes / 2**20:.0f} MiB go"
            )

    @staticmethod
    def _wanted(plan: MemoryPlan) -> int:
        """Bytes of a photo with one object; 8 a pixel hold the widest that is decoded, RGBA16."""
        return plan.total(focus=True) + (2 + 8) * plan.mask

    def _picture(self, live: _Live) -> Picture:
        if live.picture is None:
            live.picture = uploads.load(self.folder.file(live.record.id))
        return live.picture
