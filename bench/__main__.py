"""Start-up and memory, next to qemu-img in the same run. Needs 10 GiB of disk and some 5 minutes.

    python -m bench [DIRECTORY]     the disks stand in DIRECTORY (default: the temporary one), and go at the end
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.measure import GIB, IMGTOOL, MIB, ROOT, build, finished, measured, repeated, started

RUNS = 9
INFO_LIMIT = 0.4
"""Seconds."""
MEMORY_LIMIT = 200 * MIB

Row = tuple[str, float, float]
"""Case, imgtool, qemu-img."""


def info_rows(folder: Path) -> Iterator[Row]:
    """`info` of a large thin disk, as a whole process."""
    esxi = build("vmfs", folder / "esxi.vmdk", 384 * GIB, 512 * MIB)
    sparse = folder / "sparse.vmdk"
    measured([*IMGTOOL, "convert", esxi, sparse, "--to", "vmdk", "--no-clone"])
    for name, path in (("vmfs, thin, 384 GiB", esxi), ("monolithicSparse, 384 GiB", sparse)):
        ours, theirs = repeated([[*IMGTOOL, "info", path], ["qemu-img", "info", path]], RUNS)
        yield name, ours, theirs
    for path in (esxi, folder / "esxi-flat.vmdk", sparse):
        path.unlink()


def fragmented_rows(folder: Path) -> Iterator[Row]:
    """A disk of 1 TiB that is another extent each 64 KiB: 16.7 million of them."""
    source = build("fragmented", folder / "fragmented.qcow2", 1024 * GIB, 2 * GIB)
    for target in ("qcow2", "vmdk", "raw"):
        yield _memory(f"1 TiB in 16.7 million extents → {target}", folder, source, ["--to", target], ["-O", target])
    source.unlink()


PLAIN: tuple[tuple[str, list[str], list[str]], ...] = (
    ("qcow2, thick", ["--to", "qcow2", "--thick"], ["-O", "qcow2", "-o", "preallocation=falloc"]),
    ("qcow2, eager", ["--to", "qcow2", "--eager"], ["-O", "qcow2", "-o", "preallocation=full"]),
    ("streamOptimized", ["--to", "vmdk", "--subformat", "streamOptimized"], ["-O", "vmdk", "-o", "subformat=streamOptimized"]),
    ("vhdx", ["--to", "vhdx"], ["-O", "vhdx"]),
)


def plain_rows(folder: Path) -> Iterator[Row]:
    """A raw disk of 4 GiB with 1 GiB of data."""
    source = build("raw", folder / "plain.raw", 4 * GIB, 1 * GIB)
    for name, ours, theirs in PLAIN:
        yield _memory(f"raw, 4 GiB with 1 GiB of data → {name}", folder, source, ours, theirs)
    thin = folder / "thin.qcow2"
    measured([*IMGTOOL, "convert", source, thin, "--to", "qcow2", "--no-clone", "--no-verify"])
    ours = measured([*IMGTOOL, "allocate", thin, "--thick"]).memory
    thin.unlink()
    theirs = measured(["qemu-img", "convert", "-O", "qcow2", "-o", "preallocation=falloc", source, thin]).memory
    yield "allocate --thick, in place, qcow2 of 4 GiB (beside it: qemu-img's copy)", ours, theirs
    thin.unlink()
    source.unlink()


def _memory(name: str, folder: Path, source: Path, ours: Sequence[str], theirs: Sequence[str]) -> Row:
    """The largest resident set of each while it converts; both at the same time, since time is not measured here."""
    one, other = folder / f"imgtool.{ours[1]}", folder / f"qemu-img.{ours[1]}"
    running = [started([*IMGTOOL, "convert", source, one, *ours]), started(["qemu-img", "convert", *theirs, source, other])]
    found = [finished(each).memory for each in running]
    print(f"  {name}", file=sys.stderr)
    for target in (one, other):
        target.unlink()
    return name, found[0], found[1]


def table(title: str, rows: Sequence[Row], show: Callable[[float], str], limit: float) -> list[str]:
    """Markdown."""
    lines = [f"## {title}", "", f"Required: at most {show(limit)}.", "", "| case | imgtool | qemu-img | ratio | required |",
             "| --- | ---: | ---: | ---: | --- |"]
    for name, ours, theirs in rows:
        kept = "kept" if ours <= limit else "NOT KEPT"
        lines.append(f"| {name} | {show(ours)} | {show(theirs)} | {ours / theirs:.2f} | {kept} |")
    return [*lines, ""]


def machine(folder: Path) -> list[str]:
    """Where it was measured, and with what."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    file_system = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()
    qemu = subprocess.run(["qemu-img", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return [f"* {datetime.now(UTC):%Y-%m-%d}, {model[1] if model else platform.machine()}, {os.cpu_count()} processors, "
            f"{memory:.0f} GiB of memory, {file_system}",
            f"* Linux {platform.release()}, Python {platform.python_version()}, {qemu}", ""]


def main() -> int:
    """0 if all that is required is kept."""
    with tempfile.TemporaryDirectory(prefix="imgtool-bench-", dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        about = machine(folder)
        info = list(info_rows(folder))
        memory = [*plain_rows(folder), *fragmented_rows(folder)]
    lines = ["# Results", "", "Made by `make bench`.", "", *about,
             *table(f"`imgtool info`, the whole process: median of {RUNS} runs, wall time", info, lambda s: f"{s * 1000:.0f} ms",
                    INFO_LIMIT),
             *table("Memory: the largest resident set of the process", memory, lambda b: f"{b / MIB:.0f} MiB", MEMORY_LIMIT)]
    text = "\n".join(lines).rstrip() + "\n"
    (ROOT / "bench" / "RESULTS.md").write_text(text, encoding="utf-8")
    print(text)
    assert "numpy" not in sys.modules, "its memory would count for what is measured"
    return int("NOT KEPT" in text)


if __name__ == "__main__":
    sys.exit(main())
