"""A disk at the far end, offered as NBD on a Unix socket, so that QEMU and the libguestfs appliance can read it.

Read-only. Specification: doc/proto.md of the NetworkBlockDevice project (fixed newstyle, simple replies).
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from imgtool import files
from imgtool.errors import ImgtoolError

NBDMAGIC, IHAVEOPT, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY = 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_EXPORT_NAME, OPT_INFO, OPT_GO = 1, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 0x80000001
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
HAS_FLAGS, READ_ONLY, SEND_FLUSH, CAN_MULTI_CONN = 1, 2, 4, 256
CMD_READ, CMD_DISC, CMD_FLUSH = 0, 2, 3
EPERM, EIO, EINVAL = 1, 5, 22
OPTION, REPLY = struct.Struct(">QII"), struct.Struct(">QIII")
REQUEST, ANSWER = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
LARGEST_OPTION, LARGEST_READ = 1 << 16, 32 << 20
BLOCK = 1 << 20
CACHED = 64
"""Blocks that are kept: file systems' maps are read in small pieces, and the far end is a journey away."""
Read = Callable[[int, int], bytes]


class Cache:
    """Whole blocks of the far disk, the least used forgotten first."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size = read, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Raises ImgtoolError where the far end cannot read."""
        pieces = []
        end = offset + length
        for number in range(offset // BLOCK, -(-end // BLOCK)):
            start = number * BLOCK
            block = self._block(number)
            pieces.append(block[max(offset - start, 0):end - start])
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        block = self._read(number * BLOCK, min(BLOCK, self._size - number * BLOCK))
        with self._lock:
            self._blocks[number] = block
            if len(self._blocks) > CACHED:
                self._blocks.popitem(last=False)
        return block


@contextmanager
def served(read: Read, size: int) -> Iterator[str]:
    """The path of a socket, which only this user can reach, for as long as the block lasts."""
    with files.scratch("nbd") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "socket")
        listener.bind(path)
        listener.listen(8)
        server = _Server(listener, Cache(read, size), size)
        threading.Thread(target=server.accept, daemon=True, name="nbd").start()
        try:
            yield path
        finally:
            server.close()


class _Server:
    def __init__(self, listener: socket.socket, cache: Cache, size: int) -> None:
        self._listener, self._cache, self._size = listener, cache, size
        self._open: set[socket.socket] = set()

    def accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True, name="nbd client").start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, EOFError):
            client.sendall(struct.pack(">QQH", NBDMAGIC, IHAVEOPT, FIXED_NEWSTYLE | NO_ZEROES))
            flags = struct.unpack(">I", _exactly(client, 4))[0]
            if self._negotiate(client, pad=not flags & NO_ZEROES):
                self._transmit(client)
        self._open.discard(client)

    def _negotiate(self, client: socket.socket, *, pad: bool) -> bool:
        """True when reading may begin."""
        export = struct.pack(">QH", self._size, HAS_FLAGS | READ_ONLY | SEND_FLUSH | CAN_MULTI_CONN)
        while True:
            magic, option, length = OPTION.unpack(_exactly(client, OPTION.size))
            if magic != IHAVEOPT or length > LARGEST_OPTION:
                return False
            _exactly(client, length)
            if option == OPT_EXPORT_NAME:
                client.sendall(export + bytes(124 if pad else 0))
                return True
            if option in (OPT_INFO, OPT_GO):
                _reply(client, option, REP_INFO, struct.pack(">H", INFO_EXPORT) + export)
                _reply(client, option, REP_INFO, struct.pack(">HIII", INFO_BLOCK_SIZE, 1, 4096, LARGEST_READ))
                _reply(client, option, REP_ACK)
                if option == OPT_GO:
                    return True
            else:
                _reply(client, option, REP_ERR_UNSUP)  # also to NBD_OPT_ABORT, behind which a client hangs up

    def _transmit(self, client: socket.socket) -> None:
        while True:
            magic, _, command, handle, offset, length = REQUEST.unpack(_exactly(client, REQUEST.size))
            if magic != REQUEST_MAGIC or command == CMD_DISC:
                return
            error, data = self._answer(command, offset, length)
            client.sendall(ANSWER.pack(SIMPLE_REPLY, error, handle))
            client.sendall(data)

    def _answer(self, command: int, offset: int, length: int) -> tuple[int, bytes]:
        if command == CMD_FLUSH:
            return 0, b""
        if command != CMD_READ:
            return EPERM, b""
        if length > LARGEST_READ or offset + length > self._size:
            return EINVAL, b""
        try:
            return 0, self._cache.read(offset, length)
        except ImgtoolError:
            return EIO, b""


def _exactly(client: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


def _reply(client: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    client.sendall(REPLY.pack(REPLY_MAGIC, option, kind, len(data)) + data)
