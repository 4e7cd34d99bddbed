"""The answers of the far end of an ssh connection: the wire, what is read of a file there, and which disks its /sys speaks of."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from imgtool.endpoints.far.file import FarFile
from imgtool.endpoints.far.wire import HEAD, Wire
from imgtool.endpoints.metal import disks, hardware
from tools.fuzz.target import Reader, Target

READS = 3
"""Of an answer: how long it is, what it says, its payload."""
WAIT = 20
"""Seconds for an answer: who has none by then waits for ever."""
OPENED = {"handle": 1, "size": 1 << 20, "sector": 512, "physical": 512, "block": False}
FILES = {
    "/sys/block/sda/size": "2048", "/sys/block/sda/dev": "8:0", "/sys/block/sda/device/model": "X",
    "/dev/disk/by-id/ata-X": "/dev/sda",
    "/sys/block/sda/sda1/partition": "1", "/sys/block/sda/sda1/start": "64", "/sys/block/sda/sda1/size": "900",
    "/sys/block/sda/sda1/dev": "8:1", "/proc/self/mountinfo": "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "/proc/swaps": "Filename\n",
    "/sys/devices/system/cpu/online": "0-3", "/proc/meminfo": "MemTotal: 2000000 kB\n", "/sys/class/net/eth0/type": "1",
    "/sys/class/net/eth0/address": "52:54:00:00:00:01", "/sys/class/net/eth0/device": "x", "/proc/sys/kernel/hostname": "a.b"}


def _answer(number: int, payload: bytes = b"", **said: object) -> bytes:
    text = json.dumps({"id": number, **said}).encode()
    return HEAD.pack(len(text), len(payload)) + text + payload


def seeds(folder: Path) -> Iterator[bytes]:
    opened = _answer(1, **OPENED)
    yield (opened + _answer(2, ranges=[[0, 4096], [8192, 9000]], next=1 << 20) + _answer(3, bytes(512)) + _answer(4, b"a" * 16)
           + _answer(5, files=FILES))
    yield opened + _answer(2, ranges=[], next=1 << 20) + _answer(3, zero=True) + _answer(4) + _answer(5, files={})


class _Pipe:
    """The far end's words, each answer when its question was asked; it ends where a question got none."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._reads = data, 0, 0
        self._asked, self._ended = threading.Semaphore(0), False
        self.unanswered: Callable[[], object] = bool

    def write(self, data: bytes) -> None:
        pass

    def flush(self) -> None:
        self._asked.release()

    def close(self) -> None:
        self._ended = True
        self._asked.release()

    def read(self, count: int) -> bytes:
        if self._reads % READS == 0:
            while not self._asked.acquire(timeout=0.02):
                self._ended = self._ended or bool(self.unanswered())
                if self._ended:
                    break
        self._reads += 1
        part = b"" if self._ended else self._data[self._at:self._at + count]
        self._at += len(part)
        return part


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        pipe = _Pipe(data)
        failed: list[threading.ExceptHookArgs] = []
        threading.excepthook = failed.append
        try:
            wire = Wire(pipe, pipe, "far")  # type: ignore[arg-type]
            pipe.unanswered = lambda: wire._waiting
            _talk(wire)
        finally:
            pipe.close()
            assert not failed, f"the listener died of {failed[0].exc_value!r}"

    return read


def _talk(wire: Wire) -> None:
    file = FarFile(_Patient(wire), "/x")  # type: ignore[arg-type]
    for _ in islice(file.data(0, 1 << 20), 1000):
        pass
    file.read(0, 512)
    file.hashes(0, 1 << 20, 1 << 20)
    said, _ = file.wire.call("files", patterns=[])
    found = said["files"]
    hardware.machine(found, disks.fixed(found))


class _Patient:
    """A wire that waits, but not for ever."""

    def __init__(self, wire: Wire) -> None:
        self.name, self.ask = wire.name, wire.ask

    def call(self, op: str, payload: bytes = b"", **details: object) -> object:
        return self.ask(op, payload, **details).result(WAIT)


TARGET = Target(seeds, reader, largest=8192, words=(
    b'"id": 1', b'"error": "', b'"errno": 28', b'"handle"', b'"ranges": [[', b'"next": ', b'"codec": "zlib"', b'"codec": "zstd"',
    b'"zero": true', b'"files": {', b"null", b"[]", b"{}", b"1e999", b"NaN", b"\\ud800", b"/sys/block/", b"/proc/self/mountinfo",
    HEAD.pack(2, 0), HEAD.pack(0xFFFFFFFF, 0xFFFFFFFF)))
