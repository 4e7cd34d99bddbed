"""The arithmetic and the tables of bench/: the quickest, who goes on, what is missed. No timings."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import chart, report, runner
from bench.__main__ import TOPICS, arguments, size
from bench.case import Bound, Case, Contender, Outcome, Table, outcome
from bench.measure import GIB, MIB, Load, Run, load, others
from bench.mounts import mounted
from bench.programs import KINDS, Source, ours, qemu
from bench.runner import race, warm
from bench.statistics import best, summary, survivors
from bench.topics import share

OURS = Contender("imgtool", "imgtool", (("true",),))
QEMU = Contender("qemu-img", "qemu-img", (("true",),))
FAST = Contender("qemu-img", "qemu-img -W", (("true",),))
CP = Contender("cp", "cp", (("true",),))


def runs(*seconds: float, memory: int = MIB, size: int = 0) -> list[Run]:
    return [Run(each, memory, size) for each in seconds]


def made(*bounds: Bound, seconds: float | None = None, growth: float | None = None, memory: int = MIB) -> Outcome:
    """We take 2 s, qemu-img 8 s and with options 5 s, cp 1 s."""
    case = Case("a < b", OURS, (QEMU, FAST, CP), bounds=bounds, seconds=seconds, growth=growth)
    return outcome(case, [runs(2.5, 2.0, 3.0, memory=memory, size=120), runs(8.0, size=100), runs(7.0, 6.0, 5.0, size=100),
                          runs(1.0, 1.0, 1.0)])


def test_a_summary_is_of_all_runs() -> None:
    found = summary("f", "n", [Run(3.0, 5, 7), Run(1.0, 9, 8), Run(2.5, 6, 7)])
    assert (found.seconds, found.memory, found.size, found.runs) == (1.0, 9, 8, 3)


def test_who_ran_more_often_has_no_better_chance() -> None:
    """Whichever of the two it is."""
    case = Case("a", OURS, (CP,))
    often, once = runs(3.0, 2.0), runs(6.0)
    assert outcome(case, [often, once]).ratio("cp") == 2.0
    assert outcome(case, [once, often]).ratio("cp") == 0.5
    assert outcome(case, [often, runs(6.0, 5.0)]).ratio("cp") == 2.5
    assert [row[1:4] for row in report.rows(outcome(case, [often, once]))] == [("3.00 s", "cp", "6.00 s")]


def test_the_best_is_the_fastest_of_those_that_ran_to_the_end() -> None:
    lucky = summary("q", "once", runs(0.5))
    steady = summary("q", "always", runs(1.0, 1.0))
    assert best([lucky, steady], "q") == steady
    assert best([lucky, steady], "other") is None


def test_the_fastest_of_each_family_goes_on() -> None:
    assert survivors(["q", "q", "cp", "q"], [3.0, 1.0, 9.0, 2.0]) == [1, 2]


def test_ratios_are_against_the_fastest_of_a_family() -> None:
    assert made().ratio("qemu-img") == 2.5
    assert made().ratio("cp") == 0.5
    assert made().ratio("nbdcopy") is None


@pytest.mark.parametrize(("done", "words"), [
    (made(Bound("qemu-img", 2.5)), []),
    (made(Bound("qemu-img", 2.6)), ["2.50 times qemu-img, required 2.6"]),
    (made(Bound("nbdcopy", 9.0)), []),
    (made(Bound("qemu-img", 2.5), Bound("cp", 0.95)), ["0.50 times cp, required 0.95"]),
    (made(seconds=2.0), []),
    (made(seconds=1.9), ["2.00 s, required 1.9 s"]),
    (made(growth=1.2), []),
    (made(growth=1.1), ["1.20 times the size of qemu-img, required 1.1", "1.20 times the size of qemu-img -W, required 1.1"]),
    (made(memory=200 * MIB), []),
    (made(memory=201 * MIB), ["201 MiB, required 200 MiB"]),
])
def test_what_is_missed(done: Outcome, words: list[str]) -> None:
    assert done.missed() == words


def test_a_row_for_each_family() -> None:
    one, other = report.rows(made(Bound("qemu-img", 2.0), Bound("cp", 0.95)))
    assert one == ("a < b", "2.00 s", "qemu-img -W", "5.00 s", "2.50", "2", "3", "1 MiB", "1 MiB", "kept")
    assert (*other[2:6], other[-1]) == ("cp", "1.00 s", "0.50", "0.95", "MISSED")
    assert [row[-1] for row in report.rows(made(Bound("qemu-img", 2.0), seconds=1.9))] == ["MISSED", "MISSED"]
    assert report.rows(made())[0][-1] == ""
    assert report.rows(made(seconds=2.0))[0][-1] == "kept"


def test_the_document_names_what_is_missed() -> None:
    table = Table("Of grains.", ("codec", "MB/s"), (("zlib", "35"),))
    text = report.document(["* here"], [("Topic", [made(Bound("cp", 0.95)), table])])
    assert "## Missed\n\n* a < b: 0.50 times cp, required 0.95\n" in text
    assert "Of grains.\n\n| codec | MB/s |\n| --- | ---: |\n| zlib | 35 |\n" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith(("| case", "| a <"))}
    assert widths == {len(report.HEADER) + 1}
    assert "## Missed\n\nNothing.\n" in report.document([], [("Topic", [made()])])


def test_seconds_are_shown_in_the_unit_that_can_be_read() -> None:
    assert [report.seconds(value) for value in (0.0401, 0.999, 1.0, 61.234)] == ["40 ms", "999 ms", "1.00 s", "61.23 s"]


def test_the_chart_has_a_bar_for_each_requirement() -> None:
    bars = chart.bars([made(Bound("qemu-img", 2.0), Bound("cp", 0.95)), made()])
    assert bars == [("a < b (qemu-img)", 2.5, 2.0), ("a < b (cp)", 0.5, 0.95), ("a < b (qemu-img)", 2.5, None)]
    picture = ET.fromstring(chart.svg(bars))
    colours = [each.get("fill") for each in picture.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert colours == [chart.KEPT, chart.MISSED, chart.KEPT]


def test_the_scale_is_logarithmic_and_ends() -> None:
    assert chart.position(10) - chart.position(1) == pytest.approx(chart.position(100) - chart.position(10))
    assert chart.position(1e9) == chart.position(chart.HIGH) == chart.LABEL + chart.WIDTH
    assert chart.position(1e-9) == chart.LABEL


@pytest.fixture
def no_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SHORT", 0.0)


@pytest.mark.usefixtures("no_short_ones")
def test_all_run_first_and_then_the_fastest_of_each_family(tmp_path: Path) -> None:
    count = tmp_path / "count"
    slow = Contender("q", "slow", (("sleep", "0.3"), ("sh", "-c", f"echo >> {count}")), tmp_path / "slow")
    quick = Contender("q", "quick", (("touch", tmp_path / "quick" / "made"),), tmp_path / "quick")
    done = race(Case("case", OURS, (slow, quick)), 3)
    assert [(each.name, each.runs) for each in (done.ours, *done.rivals)] == [("imgtool", 3), ("slow", 1), ("quick", 3)]
    assert not list((tmp_path / "quick").iterdir())
    assert count.read_text() == "\n"


@pytest.mark.usefixtures("no_short_ones")
def test_who_takes_longer_than_another_of_its_family_is_stopped(tmp_path: Path) -> None:
    quick = Contender("q", "quick", (("sleep", "0.2"),), tmp_path / "quick")
    slow = Contender("q", "slow", (("sleep", "0.1"), ("sh", "-c", f"echo x > {tmp_path}/slow/x; exec sleep 60"), ("false",)),
                     tmp_path / "slow")
    other = Contender("r", "other", (("sleep", "0.4"),))
    done = race(Case("case", OURS, (quick, slow, other)), 2)
    assert [(each.name, each.runs, each.size) for each in done.rivals] == [("quick", 2, 0), ("slow", 1, 0), ("other", 2, 0)]
    assert done.rivals[1].seconds < 30
    with pytest.raises(RuntimeError):
        race(Case("case", OURS, (quick, replace(slow, commands=(("false",),)))), 1)


@pytest.mark.usefixtures("no_short_ones")
def test_what_takes_long_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its case are."""
    monkeypatch.setattr(runner, "QUICK", 0.2)
    slow, quick = Contender("q", "slow", (("sleep", "0.3"),), tmp_path / "q"), Contender("r", "quick", (("true",),))
    done = race(Case("case", OURS, (slow, quick)), 3, patience=0.0)
    assert [each.runs for each in (done.ours, *done.rivals)] == [3, 1, 3]
    done = race(Case("case", OURS, (slow, quick)), 3, patience=60.0)
    assert [each.runs for each in (done.ours, *done.rivals)] == [3, 3, 3]
    monkeypatch.setattr(runner, "QUICK", 0.0)
    done = race(Case("case", OURS, (slow, quick)), 3, patience=0.0)
    assert [each.runs for each in (done.ours, *done.rivals)] == [1, 1, 1]


def test_what_is_short_is_run_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where all that go on are: who ran more often than the other has no better chance."""
    monkeypatch.setattr(runner, "SHORT", 0.2)
    slow, quick = Contender("q", "slow", (("sleep", "0.3"),), tmp_path / "q"), Contender("r", "quick", (("true",),))
    assert [each.runs for each in race(Case("case", OURS, (slow, quick)), 1).rivals] == [1, 1]
    assert [each.runs for each in race(Case("case", OURS, (replace(slow, family="r"), quick)), 1).rivals] == [1, 3]
    assert race(Case("case", OURS, (quick,), runs=1), 2).ours.runs == 1


def test_what_others_used_of_the_processors() -> None:
    assert others(Load(10.0, 5.0, 1.0), Load(20.0, 9.0, 3.0)) == pytest.approx(0.2)
    assert others(Load(10.0, 5.0, 1.0), Load(20.0, 6.0, 3.0)) == 0.0
    now = load()
    assert now.available >= now.used >= now.own > 0


def test_a_program_that_fails_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="false"):
        race(Case("case", OURS, (Contender("q", "q", (("false",),), tmp_path / "q"),)), 1)


def test_warming_reads_past_holes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"data")
    warm(path)
    assert path.stat().st_blocks * 512 < MIB


def test_command_lines_of_both_sides() -> None:
    source = Source(KINDS["raw"], Path("/d/a.raw"), (Path("/d/a.raw"),))
    (command,) = ours(source, KINDS["flat"], Path("/w")).commands
    assert command[3:] == ("convert", Path("/d/a.raw"), Path("/w/imgtool/x.vmdk"), "--to", "vmdk", "--subformat", "vmfs",
                           "--no-verify")
    assert "--no-verify" not in ours(source, KINDS["flat"], Path("/w"), "--verify").commands[0]
    convert, flush, compare = qemu(source, KINDS["flat"], Path("/w"), compare=True)[0].commands
    assert convert[:7] == ("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o")
    assert flush == ("sync", Path("/w/qemu-img/x.vmdk"), Path("/w/qemu-img/x-flat.vmdk"))
    assert compare[:6] == ("qemu-img", "compare", "-f", "raw", "-F", "vmdk")


def test_what_sharing_must_reach_depends_on_the_data() -> None:
    assert share.required(GIB) == ()
    assert share.required(4 * GIB) == (Bound("qemu-img", 5.0),)
    assert share.required(16 * GIB) == (Bound("qemu-img", 20.0),)


def test_arguments() -> None:
    found = arguments(["--only", "stream", "--data", "64M", "--runs", "1"])
    assert (found.only, found.data, found.runs, found.out.parts[-2:]) == (["stream"], 64 * MIB, 1, ("build", "bench"))
    assert (arguments(["--large"]).large, arguments([]).data) == (True, 4 * GIB)
    assert arguments([]).out.name == "bench"
    assert set(TOPICS) >= {"share", "stream", "copy", "thin", "verify", "compressed", "codecs", "hard", "startup"}
    with pytest.raises(ArgumentTypeError, match="as in"):
        size("64")


def fail(place: Path) -> None:
    with mounted(place, "ext4", 16 * MIB) as point:
        assert point.is_mount()
        raise ZeroDivisionError


def test_a_mount_is_gone_although_its_user_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path)
    assert not list(tmp_path.iterdir())
