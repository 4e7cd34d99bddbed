"""imgtool next to the best that there is, in the same run. Needs root, 20 GiB of disk and some 10 minutes; twice that
on a machine that is busy with other things.

    python -m bench                                   all; writes bench/RESULTS.md and bench/results.svg
    python -m bench --only stream --runs 5            one topic (or several); writes to build/bench
    python -m bench --large --every                   16 GiB of shared data, too, and every pair of formats: 45 GiB of disk
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

from bench import chart, report
from bench.case import Case, Outcome, Table
from bench.measure import GIB, ROOT, load, others
from bench.runner import OFTEN, SHORT, race
from bench.topics import Settings, Topic, codecs, compressed, copy, esxi, hard, p2v, share, startup, stream, thin, verify

TOPICS: dict[str, tuple[str, Topic]] = {
    "startup": ("Start-up", startup.cases),
    "share": ("Shared blocks: XFS and btrfs", share.cases),
    "stream": ("streamOptimized VMDK", stream.cases),
    "copy": ("Copied bytes: ext4", copy.cases),
    "thin": ("A nearly empty disk: cost follows the data", thin.cases),
    "verify": ("Verification", verify.cases),
    "compressed": ("Compressed qcow2", compressed.cases),
    "codecs": ("Codecs", codecs.cases),
    "hard": ("Hard for memory", hard.cases),
    "esxi": ("From ESXi over HTTPS", esxi.cases),
    "p2v": ("A physical disk over ssh", p2v.cases),
}
APART = {"p2v"}
"""Run only when asked for: a quarter of an hour, with imgtool in this process."""
UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(text: str) -> int:
    """``64M``, ``4G``, ``1T``."""
    if not text[:-1].isdecimal() or text[-1] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text}: as in 64M, 4G, 1T")
    return int(text[:-1]) * UNITS[text[-1]]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=TOPICS, help="this topic; may be repeated")
    parser.add_argument("--data", type=size, default=4 * GIB, help="data of the large disks (4G)")
    parser.add_argument("--small", type=size, default=GIB, help="data of the small disks (1G)")
    parser.add_argument("--thin", type=size, default=1024 * GIB, help="size of the nearly empty disks (1T)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds after which only who is quick runs again (10)")
    parser.add_argument("--large", action="store_true", help="shared blocks with 16 GiB of data, too")
    parser.add_argument("--every", action="store_true", help="every pair of formats, not a choice")
    parser.add_argument("--directory", type=Path, help="where the disks stand; default: the temporary directory")
    parser.add_argument("--out", type=Path, help="where the results go; default: bench/, or build/bench/ with --only")
    found = parser.parse_args(argv)
    found.out = found.out or (ROOT / "build" / "bench" if found.only else ROOT / "bench")
    return found


def run(topic: Topic, settings: Settings, runs: int, patience: float) -> list[Outcome | Table]:
    """The disks of a topic go when it ends, also when it fails or is interrupted."""
    with closing(cast("Generator[Case | Table]", topic(settings))) as found:
        return [each if isinstance(each, Table) else race(each, runs, patience) for each in found]


def main() -> int:
    """0 if all that is required is kept."""
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    done = []
    with tempfile.TemporaryDirectory(prefix="imgtool-bench-", dir=args.directory) as name:
        settings = Settings(Path(name), args.data, args.small, args.thin, every=args.every, large=args.large)
        about = report.machine(settings.place, f"data: {args.data / GIB:g} GiB and {args.small / GIB:g} GiB; nearly empty disks: "
                               f"{args.thin / GIB:g} GiB; the quickest of up to {args.runs} runs in turn, of {OFTEN * args.runs} "
                               f"where all take less than {SHORT:g} s; warm caches; results flushed")
        for topic in args.only or [each for each in TOPICS if each not in APART]:
            title, cases = TOPICS[topic]
            print(title, file=sys.stderr)
            before, began = load(), time.monotonic()
            found = run(cases, settings, args.runs, args.patience)
            about_load = Table(f"Programs of others used {others(before, load()):.0%} of the processors; "
                               f"this took {time.monotonic() - began:.0f} s.", (), ())
            done.append((title, [*found, about_load]))
            write(args.out, about, done)
    assert "numpy" not in sys.modules or APART & {*(args.only or ())}, "its memory would count for what is measured"
    return int(any(each.missed() for _, found in done for each in found if isinstance(each, Outcome)))


def write(folder: Path, about: Sequence[str], done: Sequence[tuple[str, Sequence[Outcome | Table]]]) -> None:
    """After each topic: what was measured is there although a later one fails."""
    outcomes = [each for _, found in done for each in found if isinstance(each, Outcome)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(report.document(about, done), encoding="utf-8")
    (folder / "results.svg").write_text(chart.svg(chart.bars(outcomes)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
