"""Rules about what is inside the machine."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.model.situation import Level, Situation
from imgtool.units import size

MIB = 1 << 20
ROOM = {"/": 100 * MIB, "C:": 100 * MIB, "/boot": 50 * MIB}
"""What adapting a guest may need."""
ROOM_ELSEWHERE = 10 * MIB


def free_space(it: Situation) -> Iterator[str]:
    for one in it.source.guest_free:
        need = ROOM.get(one.mount.rstrip("\\") or "/", ROOM_ELSEWHERE)
        if one.free < need:
            yield f"{one.mount} in the guest has {size(one.free)} left; adapting it may need {size(need)}"


def tools_stopped(it: Situation) -> Iterator[str]:
    if it.source.running and it.source.tools in ("stopped", "old", "missing"):
        yield f"the guest's tools are {it.source.tools}: it cannot be shut down from outside"


RULES = (
    ("guest.free", Level.WARNING, free_space, "make room in the guest before"),
    ("guest.tools", Level.WARNING, tools_stopped, "shut it down in the guest"),
)
