"""From a reader into a copy: what the copy misses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imgtool.copying.receive import Chunks, Receiver
from imgtool.endpoints.ranges import Range
from imgtool.progress import Bar, Control, NoBar, estimated

if TYPE_CHECKING:
    from imgtool.endpoints import Reader


@runtime_checkable
class Filler(Protocol):
    """A reader that knows more to do than to read once: a source that is in use, or that may have changed."""

    bytes_read: int

    def fill(self, receiver: Receiver, control: Control) -> None: ...


def fill(reader: Reader, receiver: Receiver, control: Control) -> int:
    """Reads all that the copy misses; holes that are known are zeros at once. Gives the bytes that came.

    Raises what the reader raises; what has come is kept by the receiver.
    """
    if isinstance(reader, Filler):
        reader.fill(receiver, control)
        return reader.bytes_read
    with estimated(control.progress, lambda: sum(end - start for start, end in _wanted(receiver, reader.holes())), "copy") as bar:
        sink = _Counting(receiver, bar)
        reader.read(_wanted(receiver, reader.holes(), sink.zero), sink, control)
    receiver.save()
    return sink.count


class _Counting(Chunks):
    """Counts what came from the other side: nothing else takes time."""

    def __init__(self, receiver: Receiver, bar: Bar) -> None:
        super().__init__(receiver, NoBar())
        self._counting = bar
        self.count = 0

    def write(self, offset: int, data: memoryview) -> None:
        self.count += len(data)
        super().write(offset, data)
        self._counting.update(len(data))


def _wanted(receiver: Receiver, holes: Iterable[Range],
            zero: Callable[[int, int], None] = lambda offset, length: None) -> Iterator[Range]:
    """What is missing and no hole, in order and joined. Holes are told to ``zero``, and not kept: a disk may have millions."""
    waiting = iter(holes)
    hole = next(waiting, None)
    pending: Range | None = None
    for _, offset, length in receiver.missing():
        at, end = offset, offset + length
        while at < end:
            while hole and hole[1] <= at:
                hole = next(waiting, None)
            inside = hole is not None and hole[0] <= at
            stop = min(end, (hole[1] if inside else hole[0]) if hole else end)
            if inside:
                zero(at, stop - at)
            elif pending and pending[1] == at:
                pending = pending[0], stop
            else:
                if pending:
                    yield pending
                pending = at, stop
            at = stop
    if pending:
        yield pending
