"""Work on all cores whose middle part is done in turn."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgtool.copying.pool import WORKERS, Turns, ordered

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
