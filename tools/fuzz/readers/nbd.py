"""Requests of an NBD client, to the server that offers a physical disk to the appliance."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imgtool.endpoints.metal.nbd import served
from tools.fuzz.target import Reader, Target

SIZE = 1 << 20
WAIT = 20
"""Seconds for the server to be done with a client that says no more."""
OPTION = struct.Struct(">QII")
REQUEST = struct.Struct(">IHHQQI")
IHAVEOPT, MAGIC = 0x49484156454F5054, 0x25609513


def seeds(folder: Path) -> Iterator[bytes]:
    export = struct.pack(">I", 3) + OPTION.pack(IHAVEOPT, 1, 1) + b"x"
    go = struct.pack(">I", 1) + OPTION.pack(IHAVEOPT, 8, 4) + bytes(4) + OPTION.pack(IHAVEOPT, 7, 6) + bytes(6)
    for start in (export, go):
        requests = ((0, 4096, 512), (3, 0, 0), (2, 0, 0))
        yield start + b"".join(REQUEST.pack(MAGIC, 0, command, 1, offset, length) for command, offset, length in requests)


def reader(folder: Path) -> Reader:
    def at(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= SIZE, "asked for what is not on the disk"
        return bytes(length)

    server = served(at, SIZE)
    path = server.__enter__()

    def read(data: bytes) -> None:
        failed: list[threading.ExceptHookArgs] = []
        threading.excepthook = failed.append
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT)
            client.connect(path)
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
        assert server
        assert not failed, f"a thread of the server died of {failed[0].exc_value!r}"

    return read


TARGET = Target(seeds, reader, (struct.pack(">Q", IHAVEOPT), struct.pack(">I", MAGIC), struct.pack(">Q", (1 << 64) - 1),
                                struct.pack(">I", 1 << 25)), largest=1024)
