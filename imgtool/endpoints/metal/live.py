"""A disk in use: passes over what has changed, then a last one while its file systems stand still.

The block map has the digest of each chunk as the copy has it, so the far end hashes and only what differs is sent. The last pass
finds the disk as a crash at the moment of the freeze would have left it, but that the file systems have written out all they had.
What is free is asked for anew in each pass, since it is only true for a moment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.metal import free
from imgtool.endpoints.metal.chunks import differing, fetch, used_bytes
from imgtool.endpoints.metal.disks import DEACTIVATE, not_mounted, refuse_busy
from imgtool.endpoints.ranges import Ranges
from imgtool.errors import ImgtoolError, RefusedError
from imgtool.model.metal import Mounted, Pass, PhysicalDisk
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.copying.receive import Receiver
    from imgtool.endpoints.metal.reader import MetalReader

LITTLE = 64 << 20
"""Bytes that changed in a pass: few enough for the freeze."""
MOST_PASSES = 12
SLOWEST = 0.8
"""A pass that did not take less of the last one's bytes has made no progress."""
MARGIN = 0.7
"""Of the time of the freeze that comparing may take."""
HINT = "mount it read-only for the time of the copy (mount -o remount,ro), and run it again"


def fill(reader: MetalReader, receiver: Receiver, control: Control) -> tuple[Pass, ...]:
    """Until the copy is the disk of one moment. Raises RefusedError, ImgtoolError (the freeze did not hold)."""
    if not (reader.reading.live or reader.reading.frozen):
        refuse_busy(reader.physical)
    active = not_mounted(reader.physical)
    if active:
        raise RefusedError(f"{reader.physical.path}: {'; '.join(active)}: who writes to it cannot be frozen",
                           f"deactivate it: {DEACTIVATE}")
    passes = list(_passes(reader, receiver, control)) if reader.reading.live else []
    passes.append(_last(reader, receiver, control))
    return tuple(passes)


def _passes(reader: MetalReader, receiver: Receiver, control: Control) -> Iterator[Pass]:
    """The first reads what is missing, the others what has changed."""
    done = _pass(reader, receiver, "first", control, missing=True)
    yield done
    for number in range(2, MOST_PASSES + 1):
        before, done = done, _pass(reader, receiver, f"pass {number}", control)
        yield done
        if done.bytes_read < LITTLE or done.bytes_read > before.bytes_read * SLOWEST:
            break
    _refuse_slow(reader, done)


def _pass(reader: MetalReader, receiver: Receiver, name: str, control: Control, *, missing: bool = False) -> Pass:
    began = time.monotonic()
    unused = _unused(reader)
    numbers = (number for number, _, _ in receiver.missing()) if missing else range(receiver.blocks.chunks)
    changed = list(numbers) if missing else differing(reader, receiver, unused, numbers, control)
    count = used_bytes(receiver, unused, changed)
    with control.progress.bar(count, name) as bar:
        fetch(reader, receiver, unused, changed, bar, control)
    receiver.save()
    return Pass(name=name, bytes_read=count, seconds=round(time.monotonic() - began, 3))


def _there(reader: MetalReader) -> FarFile:
    """A disk in use asks for our own program at the far end: others cannot freeze."""
    assert isinstance(reader.file, FarFile)  # noqa: S101 - Metal.reader has looked
    return reader.file


def _unused(reader: MetalReader) -> Ranges:
    if reader.reading.whole:
        return Ranges()
    found = free.in_use(_there(reader), reader.refresh())
    reader.warnings += [one for one in found.warnings if one not in reader.warnings]
    return found.free


def _refuse_slow(reader: MetalReader, done: Pass) -> None:
    """Comparing reads all that is used: how long that takes is known by now."""
    if done.seconds > reader.reading.freeze_seconds * MARGIN:
        raise RefusedError(f"{reader.physical.path}: a pass takes {done.seconds:.0f} s, its file systems would be frozen for as "
                           f"long, and may be for {reader.reading.freeze_seconds:.0f} s",
                           f"--freeze-seconds {int(done.seconds * 2) + 1}, or stop what writes to it and mount it read-only")


def _last(reader: MetalReader, receiver: Receiver, control: Control) -> Pass:
    disk = reader.refresh()
    for mount, number in disk.mounted:
        _refuse_hidden(reader, mount, number)
    with _frozen(reader, sorted(disk.mounts, key=len, reverse=True)) as moving:
        places = _places(disk, moving)
        done = _pass(reader, receiver, "frozen", control)
        _still(reader, receiver, places, control)
    return done


def _places(disk: PhysicalDisk, moving: Sequence[str]) -> list[Mounted]:
    """Of what cannot be frozen. Raises RefusedError where nobody knows it: on a volume."""
    found = [place for place in disk.places if place.mount in moving]
    if unknown := sorted({*moving} - {place.mount for place in found}):
        raise RefusedError(f"{', '.join(unknown)} cannot be frozen, and where it lies on {disk.path} is not known", HINT)
    return found


def _refuse_hidden(reader: MetalReader, mount: str, device: str) -> None:
    """What is to be frozen must be what is found at its place; btrfs has device numbers of its own."""
    said = _there(reader).wire.call("stat", path=mount)[0]
    number = int(said.get("device", 0))
    if not said.get("found") or (os.major(number) and f"{os.major(number)}:{os.minor(number)}" != device):
        raise RefusedError(f"{mount} is hidden by another mount, and cannot be frozen", "unmount what lies over it")


@contextmanager
def _frozen(reader: MetalReader, mounts: list[str]) -> Iterator[list[str]]:
    """Gives those that cannot be frozen (FAT). Thaws whatever happens, and says if it did so too early."""
    wire, seconds = _there(reader).wire, reader.reading.freeze_seconds
    answer, _ = wire.call("freeze", mounts=mounts, seconds=seconds)
    try:
        yield list(answer.get("skipped", ()))
    except BaseException:
        wire.ask("thaw", handle=answer["handle"])
        raise
    if not wire.call("thaw", handle=answer["handle"])[0]["was_frozen"]:
        raise ImgtoolError(f"{reader.physical.path}: the file systems thawed by themselves after {seconds:.0f} s, before all was "
                           "read", "run it again: what was read is kept; a larger --freeze-seconds, or fewer writers; and the "
                           "copy must not lie on a file system that is frozen")


def _still(reader: MetalReader, receiver: Receiver, places: Sequence[Mounted], control: Control) -> None:
    """What could not be frozen must not have changed during the pass."""
    chunk, unused = receiver.blocks.chunk, _unused(reader) if places else Ranges()
    numbers = sorted({number for place in places
                      for number in range(place.start // chunk, -(-(place.start + place.size) // chunk))})
    if differing(reader, receiver, unused, numbers, control):
        raise RefusedError(f"{', '.join(str(place.mount) for place in places)} cannot be frozen, and is being written to", HINT)
