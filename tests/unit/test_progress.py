"""progress: a rate that threads share, progress as JSON lines, stopping."""

from __future__ import annotations

import io
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtool import progress
from imgtool.errors import StoppedError
from imgtool.progress import JsonLines, Rate, Silent, Stop


class Clock:
    """In the place of the module ``time``: waiting is what moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lock = threading.Lock()

    def monotonic(self) -> float:
        with self.lock:
            return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_rate_is_kept_over_many_pieces(clock: Clock) -> None:
    rate = Rate(1000)
    for _ in range(50):
        rate.take(100, Stop())
    assert clock.now - 1000 == pytest.approx(4.9)


def test_time_that_passed_is_not_saved_up(clock: Clock) -> None:
    rate = Rate(1000)
    rate.take(100, Stop())
    clock.now += 60
    before = clock.now
    for _ in range(11):
        rate.take(100, Stop())
    assert clock.now - before == pytest.approx(1.0)


def test_no_limit_waits_for_nothing(clock: Clock) -> None:
    Rate().take(1 << 40, Stop())
    assert clock.now == 1000


class Interrupted(int):
    """A limit that lets another thread go on in the middle of the arithmetic."""

    def __rtruediv__(self, count: int) -> float:
        time.sleep(0.001)
        return count / int(self)


def test_two_threads_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a clock of its own that only its waiting moves: what each waited for is where its last piece begins."""
    local = threading.local()

    class Each:
        @staticmethod
        def monotonic() -> float:
            return getattr(local, "now", 0.0)

        @staticmethod
        def sleep(seconds: float) -> None:
            local.now = Each.monotonic() + seconds

    monkeypatch.setattr(progress, "time", Each)
    rate, begun, lock = Rate(Interrupted(1000)), [], threading.Lock()

    def take() -> None:
        for _ in range(20):
            rate.take(100, Stop())
            with lock:
                begun.append(Each.monotonic())

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == pytest.approx([number / 10 for number in range(40)])


def test_a_stop_ends_the_wait(clock: Clock) -> None:
    rate, stop = Rate(1), Stop()
    rate.take(3600, stop)
    stop.set(signal.SIGINT)
    with pytest.raises(StoppedError) as caught:
        rate.take(1, stop)
    assert caught.value.exit_code == 130
    assert clock.now == 1000


def test_stop() -> None:
    stop = Stop()
    stop.check()
    assert not stop.is_set()
    stop.set()
    assert stop.is_set()
    with pytest.raises(StoppedError) as caught:
        stop.check()
    assert caught.value.exit_code == 143


def test_json_lines(clock: Clock) -> None:
    out = io.StringIO()
    with JsonLines(out).bar(1000, "convert") as bar:
        bar.update(100)
        clock.now += 0.4
        bar.update(100)
        clock.now += 0.1
        bar.update(50)
        clock.now += 2
        bar.update(750)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"what": "convert", "done": 0, "total": 1000, "rate": 0, "remaining": None},
        {"what": "convert", "done": 250, "total": 1000, "rate": 500, "remaining": 1.5},
        {"what": "convert", "done": 1000, "total": 1000, "rate": 400, "remaining": 0.0},
        {"what": "convert", "done": 1000, "total": 1000, "rate": 400, "remaining": 0.0},
    ]


def told(done: Sequence[int], total: int) -> list[dict[str, int]]:
    out = io.StringIO()
    with progress.estimated(JsonLines(out), lambda: total, "convert") as bar:
        for n in done:
            bar.update(n)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    return [{key: line[key] for key in ("done", "total", "remaining")} for line in lines]


@pytest.mark.parametrize("done", [(), (300,), (600, 600), (1000, 0, 5)])
def test_an_estimate_is_never_passed_and_full_at_the_end(clock: Clock, done: tuple[int, ...]) -> None:
    clock.now += 1
    assert told(done, 1000)[-1] == {"done": 1000, "total": 1000, "remaining": 0.0}


def test_what_fails_is_not_shown_as_done(clock: Clock) -> None:
    out = io.StringIO()
    stopped = Stop()
    stopped.set()
    with pytest.raises(StoppedError):
        half_done(Kept(out), stopped)
    assert out.getvalue() == "10 "


class Counted:
    """What each bar was told."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.done: dict[str, int] = {}

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Counting]:
        self.totals[what], self.done[what] = total, 0
        yield Counting(self.done, what)


class Counting:
    def __init__(self, done: dict[str, int], what: str) -> None:
        self._done, self._what = done, what

    def update(self, n: int) -> None:
        self._done[self._what] += n


def test_several_disks_have_a_bar_each_and_one_together() -> None:
    """What is guessed of a disk's bytes before is its share of the whole, whatever they are then."""
    shown = Counted()
    with progress.together(shown, [1000, 300, 50].__getitem__, 3) as parts:
        first, second, third = (parts.of(number, name) for number, name in enumerate("abc"))
        with first.bar(500, "copy") as one, second.bar(300, "copy") as other:
            one.update(250)
            other.update(150)
            assert shown.done[progress.ALL] == 650
            one.update(251)
            other.update(150)
        assert shown.done[progress.ALL] == 1300
        with first.bar(500, "verify") as again:
            again.update(500)
        with third.bar(0, "copy"):
            pass
    assert shown.totals == {progress.ALL: 1350, "copy a": 500, "copy b": 300, "verify a": 500, "copy c": 0}
    assert shown.done == {progress.ALL: 1350, "copy a": 501, "copy b": 300, "verify a": 500, "copy c": 0}


def test_nothing_is_looked_at_for_what_nobody_watches() -> None:
    """The total may cost a walk over the map of a disk."""
    def costs(*_: int) -> int:
        raise AssertionError

    with progress.together(Silent(), costs, 2) as parts, progress.estimated(parts.of(0, "a"), costs, "copy") as bar:
        bar.update(5)
    with progress.estimated(progress.Named(Silent(), "a"), costs, "copy"):
        pass


def test_one_disk_has_one_bar() -> None:
    shown = Counted()
    with progress.together(shown, [7].__getitem__, 1) as parts, parts.of(0, "a").bar(7, "copy") as bar:
        bar.update(7)
    assert shown.done == {"copy a": 7}


def test_the_bar_of_all_is_not_counted_by_those_who_add_up(tmp_path: Path) -> None:
    shown, path = Counted(), tmp_path / "x.progress"
    kept = progress.Kept(path, shown)
    with progress.together(kept, [5, 5].__getitem__, 2) as parts, parts.of(0, "a").bar(5, "copy") as bar:
        bar.update(2)
        assert [one["what"] for one in json.loads(path.read_text())["bars"]] == ["copy a"]
        assert shown.done[progress.ALL] == 2


def half_done(kept: Kept, stopped: Stop) -> None:
    with progress.estimated(kept, lambda: 1000, "convert") as bar:
        bar.update(10)
        stopped.check()


class Kept:
    """Each step of the bar."""

    def __init__(self, out: io.StringIO) -> None:
        self._out = out

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Kept]:
        yield self

    def update(self, n: int) -> None:
        self._out.write(f"{n} ")


def test_silent_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Silent().bar(10, "convert") as bar:
        bar.update(10)
    assert capfd.readouterr() == ("", "")
