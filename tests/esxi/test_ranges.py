"""Disks read in ranges: whole, on from where a run stopped, through every fault; how much is read again."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.esxi import Datastore, Registered, Simulator, esxi
from imgtool.endpoints.vsphere import folder, inventory, ranges
from imgtool.endpoints.vsphere.login import Session
from imgtool.endpoints.vsphere.ranges import PIECE, Patience
from imgtool.errors import DamagedError, RefusedError, StoppedError, UnreachableError
from imgtool.journal import block_map, digest
from imgtool.model.endpoint import Extent
from imgtool.progress import Control, Rate, Stop
from tests.esxi.machines import MIB, ODD_NAME, machine, state
from tests.esxi.sessions import FileSink, files, session

SIZE = 48 * MIB + 5 * 512
DATA = ((0, 20 * MIB), (24 * MIB, MIB), (33 * MIB + 4096, 14 * MIB), (SIZE - 512, 512))
QUICK = Patience(pause=0.005)
FLAT = f"{ODD_NAME}/{ODD_NAME}-flat.vmdk"


@pytest.fixture(scope="module")
def datastore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ds")
    machine(place, ODD_NAME, [SIZE], data=DATA)
    return place


@pytest.fixture(scope="module")
def shared(datastore: Path) -> Iterator[Simulator]:
    with esxi([Datastore(name="ds 1", directory=datastore)], [Registered(path=f"[ds 1] {ODD_NAME}/{ODD_NAME}.vmx")]) as made:
        yield made


@pytest.fixture(autouse=True)
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "REQUEST", 8 * MIB)


@pytest.fixture
def server(shared: Simulator) -> Iterator[Simulator]:
    shared.reset()
    yield shared
    shared.reset()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FileSink]:
    with FileSink(tmp_path / "disk.raw", SIZE) as made:
        yield made


def extents(made: Session) -> tuple[Extent, ...]:
    return folder.extents(files(made, ODD_NAME), f"[ds 1] {ODD_NAME}/{ODD_NAME}.vmdk")


def read(made: Session, sink: FileSink, wanted: tuple[tuple[int, int], ...] = ((0, SIZE),), *, control: Control | None = None,
         patience: Patience = QUICK) -> None:
    ranges.read(files(made, ODD_NAME), extents(made), wanted, sink, control or Control(), patience=patience)


def equal(datastore: Path, tmp_path: Path) -> bool:
    return (datastore / FLAT).read_bytes() == (tmp_path / "disk.raw").read_bytes()


def sent(server: Simulator) -> int:
    """Bytes of the flat file that the server has sent."""
    return int(server.counters()["bytes"].get(FLAT, 0))


def all_closed(server: Simulator) -> bool:
    """Whether no connection is left, soon: the server sees the end of one a little later than we."""
    until = time.monotonic() + 5
    while server.counters()["connections"] and time.monotonic() < until:
        time.sleep(0.01)
    return bool(server.counters()["connections"] == 0)


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_a_whole_disk(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path, streams: int) -> None:
    before = state(datastore)
    with session(server, streams=streams) as made:
        read(made, sink)
    assert equal(datastore, tmp_path)
    assert sink.whole(0, SIZE)
    assert sent(server) == SIZE
    assert server.counters()["peak"] <= streams + 2, "the session's own connections"
    assert state(datastore) == before


def test_zeros_are_recognised(server: Simulator, sink: FileSink, tmp_path: Path) -> None:
    with session(server) as made:
        read(made, sink)
    assert sink.zeros == 12 * MIB, "20 to 24, 25 to 33; the piece where data begins again is no hole"
    assert (tmp_path / "disk.raw").stat().st_blocks * 512 < SIZE - 10 * MIB


def test_a_run_goes_on_with_what_is_missing(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path) -> None:
    missing = ((3 * MIB + 512, 5 * MIB), (19 * MIB, 19 * MIB + 4096), (SIZE - 100, SIZE))
    with session(server) as made:
        read(made, sink, missing)
        assert min(sink.given)[0] == 3 * MIB + 512
        assert sent(server) == sum(end - start for start, end in missing)
        rest = ((0, missing[0][0]), (missing[0][1], missing[1][0]), (missing[1][1], missing[2][0]))
        read(made, sink, rest)
    assert sink.whole(0, SIZE)
    assert sent(server) == SIZE
    assert equal(datastore, tmp_path)


def test_with_a_block_map(server: Simulator, datastore: Path, tmp_path: Path) -> None:
    """As a migration does it: stopped three times on its way, begun again with the same map; no chunk is read twice."""
    class Mapped(FileSink):
        def write(self, offset: int, data: memoryview) -> None:
            super().write(offset, data)
            self.done(offset, len(data), digest(data))

        def zero(self, offset: int, length: int) -> None:
            super().zero(offset, length)
            self.done(offset, length, digest(bytes(length)))

        def done(self, offset: int, length: int, sum_: bytes) -> None:
            assert offset % PIECE == 0
            assert length == min(PIECE, SIZE - offset)
            chunks.mark(offset // PIECE, sum_)
            if len(self.given) >= 12:
                stop.set()

    runs, left = 0, [(0, 0, 0)]
    while left:
        runs, stop = runs + 1, Stop()
        with (block_map(str(tmp_path / "map"), size=SIZE, chunk=PIECE, source={}) as chunks,
              Mapped(tmp_path / "disk.raw", SIZE) as sink):
            left = [*chunks.missing()]
            with session(server) as made, suppress(StoppedError):
                read(made, sink, tuple((start, start + length) for _, start, length in left), control=Control(stop=stop))
            chunks.save(lambda: None)
            assert {offset // PIECE for offset, _ in sink.given} <= {number for number, _, _ in left}
            left = [*chunks.missing()]
    assert 2 <= runs <= 5
    assert equal(datastore, tmp_path)


def test_neighbours_are_asked_for_together(server: Simulator, sink: FileSink) -> None:
    with session(server) as made:
        read(made, sink, tuple((start, start + PIECE) for start in range(0, 16 * MIB, PIECE) if start != 5 * MIB))
    assert server.counters()["requests"][f"GET {FLAT}"] == 3
    assert sorted(sink.given) == [(start, start + PIECE) for start in range(0, 16 * MIB, PIECE) if start != 5 * MIB]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_cuts(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path, seed: int) -> None:
    """No byte is written twice; read again is at most the piece that was under way."""
    chance = random.Random(seed)
    server.order(match="-flat.vmdk", cuts=[chance.randrange(2 * MIB) for _ in range(20)])
    with session(server) as made:
        read(made, sink)
    assert equal(datastore, tmp_path)
    assert sink.whole(0, SIZE)
    cuts = server.counters()["cuts"]
    assert 15 <= cuts <= 20, "the others came behind the end of an answer"
    assert SIZE < sent(server) <= SIZE + cuts * PIECE
    assert server.counters()["requests"][f"GET {FLAT}"] == -(-SIZE // ranges.REQUEST) + cuts


def test_an_attempt_that_brings_something_counts_for_nothing(server: Simulator, sink: FileSink) -> None:
    """However often a line breaks: the copy goes on while it gets anywhere."""
    server.order(match="-flat.vmdk", cuts=[PIECE + 1000] * 6)
    with session(server, streams=1) as made:
        read(made, sink, ((0, 8 * MIB),), patience=replace(QUICK, attempts=2))
    assert sink.whole(0, 8 * MIB)
    assert server.counters()["cuts"] == 6


@pytest.mark.parametrize("after", [0, 1])
def test_bursts_of_503(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path, after: int) -> None:
    server.order(match="-flat.vmdk", unavailable=6 if after else 20, retryafter=after)
    began = time.monotonic()
    with session(server) as made:
        read(made, sink)
    assert time.monotonic() - began >= after, "what Retry-After says is kept"
    assert equal(datastore, tmp_path)
    assert sent(server) == SIZE


def test_a_server_that_stays_busy(server: Simulator, sink: FileSink) -> None:
    server.order(match="-flat.vmdk", unavailable=10 ** 6)
    with session(server) as made, pytest.raises(UnreachableError, match="503"):
        read(made, sink, patience=replace(QUICK, attempts=3))
    assert all_closed(server)


@pytest.mark.parametrize("api", [True, False])
def test_the_session_ends_meanwhile(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path, api: bool) -> None:
    with session(server) as made:
        found = files(made, ODD_NAME), extents(made)
        server.order(match="-flat.vmdk", expire=10 * MIB) if api else server.expire(api=False)
        ranges.read(*found, ((0, SIZE),), sink, Control(), patience=QUICK)
        assert inventory.machines(made)
        assert server.counters()["calls"]["Login"] == 2, "one for all connections"
    assert equal(datastore, tmp_path)
    assert server.counters()["sessions"] == 0


def test_a_server_that_falls_silent(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path) -> None:
    server.order(match="-flat.vmdk", stalls=4)
    with session(server) as made:
        read(made, sink, patience=replace(QUICK, answer=2))
    assert equal(datastore, tmp_path)


def test_a_slow_server_is_read_by_all_streams(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path) -> None:
    server.order(match="-flat.vmdk", bytes_per_second=8 * MIB)
    with session(server, streams=6) as made:
        read(made, sink)
    assert server.counters()["busiest"] == 6
    assert equal(datastore, tmp_path)


def test_none_joins_where_the_processors_are_busy(server: Simulator, sink: FileSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges.Load, "share", lambda *_: 0.5)
    server.order(match="-flat.vmdk", bytes_per_second=16 * MIB)
    with session(server, streams=6) as made:
        read(made, sink)
    assert server.counters()["busiest"] == ranges.FIRST


def test_the_load_is_that_since_the_last_look(server: Simulator, sink: FileSink, monkeypatch: pytest.MonkeyPatch) -> None:
    load = ranges.Load(processors=2, since=10.0, spent=1.0)
    assert load.share(12.0) == 0.25
    load.spent = 3.0
    assert load.share(14.0) == 0.75
    spent: list[float] = []
    monkeypatch.setattr(ranges._Job, "spent", lambda _, seconds: spent.append(seconds))
    with session(server) as made:
        read(made, sink, ((0, 16 * MIB),))
    assert len(spent) == 16
    assert 0 < sum(spent) < 5


def test_several_disks_share_the_streams_of_a_host(server: Simulator, tmp_path: Path) -> None:
    with session(server, streams=4) as made:
        found = files(made, ODD_NAME), extents(made)
        sinks = [FileSink(tmp_path / f"{number}.raw", SIZE) for number in range(3)]
        server.order(match="-flat.vmdk", bytes_per_second=8 * MIB)
        threads = [threading.Thread(target=ranges.read, args=(*found, ((0, 16 * MIB),), each, Control())) for each in sinks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(each.whole(0, 16 * MIB) for each in sinks)
        assert server.counters()["busiest"] == 4


def test_a_rate(server: Simulator, sink: FileSink) -> None:
    began = time.monotonic()
    with session(server) as made:
        read(made, sink, ((0, 9 * MIB),), control=Control(rate=Rate(16 * MIB)))
    assert time.monotonic() - began >= 0.5


def test_stopped_while_the_server_is_silent(server: Simulator, sink: FileSink) -> None:
    server.order(match="-flat.vmdk", stalls=100)
    stop = Stop()
    timer = threading.Timer(0.3, stop.set, (signal.SIGINT,))
    timer.start()
    with session(server) as made, pytest.raises(StoppedError) as caught:
        read(made, sink, control=Control(stop=stop), patience=Patience())
    assert caught.value.exit_code == 130
    assert sink.given == []


def test_a_full_target_ends_all_connections(server: Simulator, sink: FileSink, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(offset: int, data: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sink, "write", full)
    with session(server) as made, pytest.raises(OSError, match="No space"):
        read(made, sink)
    assert all_closed(server)


def test_a_file_shorter_than_its_descriptor(server: Simulator, sink: FileSink) -> None:
    with session(server) as made:
        longer = tuple(replace(one, length=one.length + 64 * MIB) for one in extents(made))
        for wanted in ((SIZE - MIB, SIZE + MIB), (SIZE + MIB, SIZE + 2 * MIB)):
            with pytest.raises(DamagedError, match="asked for bytes"):
                ranges.read(files(made, ODD_NAME), longer, (wanted,), sink, Control(), patience=QUICK)
    assert all(end <= SIZE for _, end in sink.given)


def test_a_running_machine_is_locked(tmp_path: Path) -> None:
    path = machine(tmp_path, "web01", [MIB])
    with esxi([Datastore(name="ds", directory=tmp_path)], [Registered(path=f"[ds] {path}", running=True)]) as made, \
            session(made) as logged_in, FileSink(tmp_path / "x.raw", MIB) as sink:
        found = files(logged_in, "web01")
        lies = (Extent(path="[ds] web01/web01-flat.vmdk", start=0, length=MIB),)
        with pytest.raises(RefusedError, match="does not give out") as caught:
            ranges.read(found, lies, ((0, MIB),), sink, Control(), patience=QUICK)
        assert "shut it down" in str(caught.value.hint)
        with pytest.raises(RefusedError, match="does not give out"):
            folder.extents(found, "[ds] web01/web01.vmdk")


def test_extents_with_zeros_between(server: Simulator, sink: FileSink, datastore: Path, tmp_path: Path) -> None:
    """A disk of two parts of a file, a hole between them and behind."""
    flat = f"[ds 1] {FLAT}"
    parts = (Extent(path=flat, start=0, length=MIB, offset=2 * MIB),
             Extent(path=flat, start=9 * MIB, length=10 * MIB, offset=512))
    with session(server) as made:
        ranges.read(files(made, ODD_NAME), parts, ((0, 30 * MIB),), sink, Control(), patience=QUICK)
    source, copy = (datastore / FLAT).read_bytes(), (tmp_path / "disk.raw").read_bytes()
    assert sink.whole(0, 30 * MIB)
    assert copy[:MIB] == source[2 * MIB:3 * MIB]
    assert copy[MIB:9 * MIB] == bytes(8 * MIB)
    assert copy[9 * MIB:19 * MIB] == source[512:10 * MIB + 512]
    assert copy[19 * MIB:30 * MIB] == bytes(11 * MIB)


def test_requests_of_a_disk_of_several_extents() -> None:
    """Of two files with a hole between and behind them; each byte is asked for or known to be zero, once."""
    extents = (Extent(path="a", start=0, length=3 * MIB), Extent(path="b", start=4 * MIB, length=2 * MIB, offset=512))
    zeros: list[tuple[int, int]] = []
    sink: Any = SimpleNamespace(zero=lambda at, length: zeros.append((at, at + length)))
    found = ranges.cut(extents, [(MIB, 2 * MIB), (5 * MIB, 8 * MIB)], sink, 2 * MIB)
    assert [(one.extent.path, one.start, one.end) for one in found] == [("a", MIB, 2 * MIB), ("b", MIB + 512, 2 * MIB + 512)]
    assert zeros == [(6 * MIB, 8 * MIB)]
    zeros.clear()
    assert [one.extent.path for one in ranges.cut(extents, [(2 * MIB, 5 * MIB)], sink, 2 * MIB)] == ["a", "b"]
    assert zeros == [(3 * MIB, 4 * MIB)]


def test_what_the_server_forbids_is_not_asked_again(server: Simulator, sink: FileSink) -> None:
    with session(server) as made:
        parts = extents(made)
        server.order(refuse_get=403)
        before = sum(server.counters()["requests"].values())
        with pytest.raises(UnreachableError, match="HTTP 403"):
            ranges.read(files(made, ODD_NAME), parts, [(0, MIB)], sink, Control(), patience=QUICK)
        assert sum(server.counters()["requests"].values()) <= before + 1
