"""From a reader into a copy: what the copy misses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imgtool.copying.receive import Chunks, Receiver
from imgtool.endpoints.ranges import Range, Ranges
from imgtool.progress import Control

if TYPE_CHECKING:
    from imgtool.endpoints import Reader


@runtime_checkable
class Filler(Protocol):
    """A reader that knows more to do than to read once: a source that is in use, or that may have changed."""

    def fill(self, receiver: Receiver, control: Control) -> None: ...


def fill(reader: Reader, receiver: Receiver, control: Control) -> None:
    """Reads all that the copy misses, holes as zeros. Raises what the reader raises; what has come is kept by the receiver."""
    if isinstance(reader, Filler):
        reader.fill(receiver, control)
        return
    holes = Ranges(reader.holes())
    with control.progress.bar(reader.size, "read") as bar:
        bar.update(receiver.blocks.done)
        sink = Chunks(receiver, bar)

        def wanted() -> Iterator[Range]:
            for _, start, length in receiver.missing():
                for low, high in holes.within(start, start + length):
                    sink.zero(low, high - low)
                yield from holes.outside(start, start + length)

        reader.read(wanted(), sink, control)
    receiver.save()
