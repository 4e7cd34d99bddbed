"""The one way into a guest's file systems: the libguestfs appliance, a small virtual machine that holds all disks of a machine.

::

    image ──Disk──▶ qemu-nbd (read only) ──▶ qcow2 overlay ──▶ appliance ◀─calls── guestfs_child.py ◀─JSON── Handle

The host's kernel never sees what strangers wrote. libguestfs itself lives in a child process: when it crashes or hangs, that is
an error message. Where KVM is missing or does not work the appliance is emulated (TCG), and starts in 10 to 30 s.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from imgtool import proc
from imgtool.errors import ImgtoolError, MissingToolError
from imgtool.guests import guestfs_child
from imgtool.kvm import kvm_state, remember_hang
from imgtool.progress import Stop

LIMITS = proc.Limits(seconds=None, memory=16 << 30)
START, START_KVM = 300.0, 90.0
"""Seconds for the start of the appliance: emulated on a busy host; with KVM it takes 3 to 10 s."""
CALL = 120.0
"""Seconds for a call that only looks or changes little."""
LONG = 1800.0
"""Seconds for a call that reads or writes a file system."""
SECTOR = 512
LABEL = "imgtool"
"""Begins the names of the disks in the appliance."""
NAME = "the libguestfs appliance"
HINT = "libguestfs-test-tool says why"
ADVICE = "LIBGUESTFS_DEBUG"
"""libguestfs speaks of it, for eight lines, where the appliance has crashed."""


class Handle:
    """The functions of guestfs(3) in the running appliance."""

    def __init__(self, ask: Callable[[bytes, float], bytes]) -> None:
        self._ask = ask
        self._ended: ImgtoolError | None = None

    def call(self, name: str, *args: object, seconds: float = CALL, **options: object) -> Any:
        """Raises OSError (FileNotFoundError, …) with libguestfs's words; ImgtoolError if the appliance hangs or has ended.

        The same one for each call after that: what is tidied up on the way out does not hide why.
        """
        if self._ended:
            raise self._ended
        try:
            return self._call(name, args, options, seconds)
        except ImgtoolError as error:
            self._ended = error
            raise

    def _call(self, name: str, args: Sequence[object], options: Mapping[str, object], seconds: float) -> Any:
        question = json.dumps({"call": name, "args": args, "options": options}, default=guestfs_child.bytes_out).encode()
        answer = json.loads(self._ask(question, seconds), object_hook=guestfs_child.bytes_in)
        if "error" in answer:
            words, _, more = answer["error"].partition("\n")
            if ADVICE in more and name != "launch":
                raise ImgtoolError(f"{NAME} ended in {name}: {words}", HINT)
            raise OSError(answer["errno"], answer["error"])
        return answer["result"]

    def run(self, command: str, *, seconds: float = LONG) -> tuple[int, str]:
        """A program of the appliance itself (not of the guest): its exit code and what it said. Devices: ``device_node``."""
        said = str(self.call("debug", "sh", [f"( {command} ) 2>&1 </dev/null; code=$?; echo; echo $code"], seconds=seconds))
        words, _, code = said.rstrip().rpartition("\n")
        return int(code), words.strip()


@contextmanager
def appliance(overlays: Sequence[str], *, stop: Stop, sectors: Sequence[int] = ()) -> Iterator[Handle]:
    """An appliance with these qcow2 overlays as ``/dev/sda``, ``/dev/sdb``, …, started; they are flushed at the end.

    ``sectors``: bytes of a sector of each, 512 or 4096; else all have 512.
    Raises MissingToolError, ImgtoolError, StoppedError. After an error the appliance is killed; the overlays are worth nothing.
    """
    require_guestfs()
    usable = kvm_state()[0]
    if usable:
        with suppress(_NotStartedError), _started(overlays, sectors, [], START_KVM, stop) as handle:
            yield from _used(handle)
            return
    try:
        with _started(overlays, sectors, ["force_tcg"], START, stop) as handle:
            if usable:  # without KVM it does start
                remember_hang()
            yield from _used(handle)
    except _NotStartedError as error:
        raise ImgtoolError(f"{NAME} failed: {error}", HINT) from error


def device_node(device: str) -> str:
    """Where a disk or a partition is for ``Handle.run``: its kernel may have found the disks in another order."""
    return re.sub(r"^/dev/sd([a-z]+)(\d*)$", rf"/dev/disk/guestfs/{LABEL}\1\2", device)


def letters(count: int) -> list[str]:
    """a, b, …, z, aa, …: how Linux names its disks."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    words = ("".join(word) for length in itertools.count(1) for word in itertools.product(alphabet, repeat=length))
    return list(itertools.islice(words, count))


def require_guestfs() -> None:
    """Raises MissingToolError."""
    if find_spec("guestfs") is None:
        raise MissingToolError("the Python binding of libguestfs is not installed", "apt-get install python3-guestfs")


class _NotStartedError(Exception):
    """The appliance did not come up."""


def _used(handle: Handle) -> Iterator[Handle]:
    yield handle
    handle.call("shutdown", seconds=LONG)


@contextmanager
def _started(overlays: Sequence[str], sectors: Sequence[int], settings: Sequence[str], seconds: float,
             stop: Stop) -> Iterator[Handle]:
    with proc.converse([sys.executable, "-I", guestfs_child.__file__], NAME, stop=stop, limits=LIMITS) as ask:
        handle = Handle(ask)
        try:
            handle.call("set_backend", "direct")
            handle.call("set_backend_settings", list(settings))
            each = sectors or [SECTOR] * len(overlays)
            for overlay, letter, sector in zip(overlays, letters(len(overlays)), each, strict=True):
                handle.call("add_drive_opts", os.path.abspath(overlay), format="qcow2", discard="enable", cachemode="unsafe",
                            label=LABEL + letter, blocksize=sector)
            handle.call("launch", seconds=seconds)
        except (OSError, proc.TooLongError) as error:
            raise _NotStartedError(str(error.strerror if isinstance(error, OSError) else error).partition("\n")[0]) from error
        yield handle
