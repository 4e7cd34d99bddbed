"""Whether what is read is packed for the way: measured, not guessed.

A line that is slower than packing gains by it, a faster one loses. So both are tried on some mebibytes, and what brought more of
the disk in a second is used; from time to time it is tried again, since lines and data change.
"""

from __future__ import annotations

import threading
import time

from imgtool.endpoints.far.wire import Wire

TRIAL = 16 << 20
"""Bytes of the disk, of each way."""
AGAIN = 4 << 30
"""Bytes of the disk until the next trial."""


class Packing:
    """Which codec to ask for. Threads may call at the same time."""

    def __init__(self, codec: str | None) -> None:
        """``codec``: what both ends know; None: never (this machine's own disks)."""
        self._codec = codec
        self._lock = threading.Lock()
        self._rates: dict[str | None, float] = {}
        self._trying: list[str | None] = [None, codec] if codec else []
        self._best: str | None = None
        self._began, self._bytes = time.monotonic(), 0

    @property
    def codec(self) -> str | None:
        return self._trying[0] if self._trying else self._best

    def came(self, count: int, asked: str | None) -> None:
        """So many bytes of the disk have come, which were not zeros, for a request with that codec."""
        if not self._codec:
            return
        with self._lock:
            if self._trying and asked != self._trying[0]:
                return  # still under way from before
            if not self._bytes:
                self._began = time.monotonic()
            self._bytes += count
            if self._trying and self._bytes >= TRIAL:
                self._rates[self._trying.pop(0)] = self._bytes / max(time.monotonic() - self._began, 1e-6)
                self._bytes = 0
                if not self._trying:
                    self._best = max(self._rates, key=lambda codec: self._rates[codec])
            elif not self._trying and self._bytes >= AGAIN:
                self._trying, self._bytes = [None, self._codec], 0


def best_codec(wire: Wire) -> str:
    """What both ends know."""
    return "zstd" if wire.call("hello")[0].get("zstd") else "zlib"
