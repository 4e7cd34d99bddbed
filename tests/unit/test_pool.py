"""Work on all cores, in order and in turn, and several disks together."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgtool.copying.pool import WORKERS, Turns, disks_together, ordered
from imgtool.errors import StoppedError
from imgtool.progress import Stop

ITEMS = 40


def test_turns_come_in_order_whoever_is_ready_first() -> None:
    turns, seen = Turns(), []
    pauses = random.Random(1)
    waits = [pauses.random() / 500 for _ in range(ITEMS)]

    def work(number: int) -> int:
        try:
            time.sleep(waits[number])
            turns.wait(number)
            seen.append(number)
        finally:
            turns.over(number)
        return number

    with ThreadPoolExecutor(WORKERS) as pool:
        assert [done for _, done in ordered(pool, work, range(ITEMS))] == list(range(ITEMS))
    assert seen == list(range(ITEMS))


@pytest.mark.parametrize("in_turn", [False, True])
def test_who_fails_keeps_nobody_waiting(in_turn: bool) -> None:
    turns = Turns()

    def work(number: int) -> None:
        try:
            if number == WORKERS and not in_turn:
                raise ValueError(number)
            turns.wait(number)
            if number == WORKERS:
                raise ValueError(number)
        finally:
            turns.over(number)

    with ThreadPoolExecutor(WORKERS) as pool, pytest.raises(ValueError, match=str(WORKERS)):
        list(ordered(pool, work, range(ITEMS)))


def test_what_is_ahead_is_bounded() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(ITEMS):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool:
        for done, _ in ordered(pool, str, items(), ahead=4):
            assert len(taken) == min(done + 4, ITEMS)


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    begun: list[int] = []
    go = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        return number if not number else go.wait(60)

    with ThreadPoolExecutor(1) as pool:
        results = ordered(pool, work, range(ITEMS), ahead=10)
        assert next(results) == (0, 0)
        results.close()  # type: ignore[attr-defined]
        go.set()
    assert set(begun) <= {0, 1}


def test_no_turn_is_kept() -> None:
    """A disk has a million pieces."""
    turns = Turns()
    for number in (1, 0, 3, 2):
        turns.over(number)
    assert turns._over == set()


def test_disks_together_and_in_their_order() -> None:
    assert disks_together(lambda number: number * 2, 5, Stop()) == [0, 2, 4, 6, 8]


def test_the_disk_that_fails_stops_the_others_and_is_what_is_raised() -> None:
    stop, seen = Stop(), []

    def one(number: int) -> None:
        seen.append(number)
        if number == 1:
            raise ValueError("the second")
        for _ in range(6000):
            stop.check()
            time.sleep(0.01)

    with pytest.raises(ValueError, match="the second"):
        disks_together(one, 9, stop)
    assert stop.is_set()
    assert set(seen) <= {0, 1, 2}


def test_disks_that_were_done_when_it_was_stopped_are_no_result() -> None:
    stop = Stop()
    with pytest.raises(StoppedError):
        disks_together(lambda number: stop.set(), 1, stop)
