"""A file or a block device at the far end. Offsets and lengths are bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from imgtool import codec
from imgtool.endpoints.far.wire import Answer, Wire
from imgtool.errors import DamagedError

PIECE = 1 << 20
"""Of what is read or written at once."""
DIGEST = 16


class FarFile:
    """Open there. Threads may call at the same time. Raises UnreachableError, NoSpaceError, ImgtoolError."""

    def __init__(self, wire: Wire, path: str, *, write: bool = False, exclusive: bool = False,
                 codec_name: str | None = None) -> None:
        """``exclusive``: of a block device: RefusedError where it is in use; ``write`` is that always.

        ``codec_name``: zlib or zstd, where the line is slower than packing; what does not shrink is sent as it is.
        """
        self.wire, self.path, self._codec = wire, path, codec_name
        answer, _ = wire.call("open", path=path, write=write, exclusive=exclusive)
        self.size, self.sector, self.physical = int(answer["size"]), int(answer["sector"]), int(answer["physical"])
        self.is_block = bool(answer["block"])
        self._handle = answer["handle"]

    def ask_read(self, offset: int, length: int, codec_name: str | None = None) -> Future[Answer]:
        """For several at once; ``data_of`` unpacks the answer. ``codec_name``: instead of the file's."""
        return self.wire.ask("read", handle=self._handle, offset=offset, length=length, codec=codec_name or self._codec)

    def read(self, offset: int, length: int) -> bytes | bytearray:
        return data_of(self.ask_read(offset, length).result(), length) or bytes(length)

    def write(self, offset: int, data: memoryview | bytes, *, pack: Callable[[bytes], bytes] | None = None) -> None:
        """All pieces are under way at once. ``pack``: into zlib's format; what does not shrink is sent as it is."""
        waiting = [self._ask_write(offset + at, data[at:at + PIECE], pack) for at in range(0, len(data), PIECE)]
        for one in waiting:
            one.result()

    def _ask_write(self, offset: int, piece: memoryview | bytes, pack: Callable[[bytes], bytes] | None) -> Future[Answer]:
        packed = pack(bytes(piece)) if pack else b""
        if pack and len(packed) < len(piece) * 15 // 16:
            return self.wire.ask("write", packed, handle=self._handle, offset=offset, codec="zlib")
        return self.wire.ask("write", piece, handle=self._handle, offset=offset)

    def hole(self, offset: int, length: int, *, written: bool = False) -> None:
        """The range reads as zeros afterwards. ``written``: zeros that take their space."""
        if length:
            self.wire.call("zero", handle=self._handle, offset=offset, length=length, written=written)

    def reserve(self) -> None:
        """All of the file has its space, as far as the file system can promise that. Raises NoSpaceError."""
        self.wire.call("reserve", handle=self._handle)

    def discard(self, offset: int, length: int) -> None:
        """A hint to the device: what the range reads as afterwards is not said."""
        self.wire.call("discard", handle=self._handle, offset=offset, length=length)

    def data(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges [start, end) that may hold data. A journey for many of them: not to be asked for each chunk."""
        while start < end:
            answer, _ = self.wire.call("data", handle=self._handle, start=start, end=end)
            yield from ((int(low), int(high)) for low, high in answer["ranges"])
            if answer["next"] <= start:
                raise DamagedError(f"{self.wire.name}: {self.path} has a map that goes backwards")
            start = int(answer["next"])

    def hashes(self, offset: int, length: int, chunk: int) -> list[bytes]:
        """``journal.digest`` of each ``chunk`` bytes, as they are on the disk."""
        _, sums = self.wire.call("hash", handle=self._handle, offset=offset, length=length, chunk=chunk)
        return [sums[at:at + DIGEST] for at in range(0, len(sums), DIGEST)]

    def hash_of(self, offset: int, length: int, wanted: Sequence[tuple[int, int]]) -> bytes:
        """``journal.digest`` of a range, with zeros for what is not in ``wanted`` (sorted, not empty), which is not read."""
        return bytes(self.wire.call("hash", handle=self._handle, offset=offset, length=length, chunk=length, wanted=wanted)[1])

    def truncate(self, size: int) -> None:
        self.wire.call("truncate", handle=self._handle, size=size)

    def flush(self) -> None:
        self.wire.call("flush", handle=self._handle)

    def reread(self) -> None:
        """Of a block device: the kernel reads its partition table anew."""
        self.wire.call("reread", handle=self._handle)

    def close(self) -> None:
        self.wire.call("close", handle=self._handle)


def data_of(answer: Answer, length: int) -> bytes | bytearray | None:
    """What was read; None: zeros. Raises DamagedError where the far end sends something else than was asked for."""
    said, payload = answer
    if said.get("zero"):
        return None
    kind = said.get("codec")
    data = codec.inflate(payload, length) if kind == "zlib" else codec.unzstd(payload, length) if kind == "zstd" else payload
    if len(data) != length:
        raise DamagedError(f"the far end sent {len(data)} bytes instead of {length}")
    return data
