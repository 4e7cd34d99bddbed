"""What others say of an image: qemu-img of its bytes, stat and filefrag (FIEMAP) of its space. Nothing of imgtool is in here."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_SIZE = re.compile(r"^File size of .* is (\d+) \(\d+ blocks? of (\d+) bytes\)$", re.MULTILINE)
CLOCK, CLOCK_TRIES = "Unable to get accurate CPU usage", 20


def tool(*argv: object, cwd: Path | None = None, ok: Iterable[int] = (0,)) -> subprocess.CompletedProcess[str]:
    """A program's output; a missing program is an error of the machine, not a reason to skip."""
    if shutil.which(str(argv[0])) is None:
        pytest.fail(f"{argv[0]} is missing; run: make setup")
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode in ok, f"{argv}: exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done


def luks(*argv: object) -> None:
    """qemu-img that writes a LUKS header. It measures how fast it hashes, and gives up where its clock has not moved meanwhile,
    which happens on a processor that is fast, or shared with others."""
    for _ in range(CLOCK_TRIES):
        done = tool("qemu-img", *argv, ok=(0, 1))
        if CLOCK not in done.stderr:
            break
    assert done.returncode == 0, done.stderr


def qemu_info(path: Path, fmt: str) -> dict[str, Any]:
    """What qemu-img says of an image whose format is given."""
    told: dict[str, Any] = json.loads(tool("qemu-img", "info", "-U", "--output=json", "-f", fmt, path).stdout)
    return told


def virtual_size(path: Path, fmt: str) -> int:
    """Bytes of the guest's disk. A raw file's are those of the file, in whole sectors."""
    if fmt == "raw":
        return -(-path.stat().st_size // 512) * 512
    return int(qemu_info(path, fmt)["virtual-size"])


def same(a: Path, fmt_a: str, b: Path, fmt_b: str) -> None:
    """Fails unless both disks have one size and the same bytes."""
    assert virtual_size(a, fmt_a) == virtual_size(b, fmt_b), f"{a} and {b} have different sizes"
    tool("qemu-img", "compare", "-U", "-f", fmt_a, "-F", fmt_b, a, b)


def same_there(a: Path, fmt_a: str, b: Path, fmt_b: str, start: int, length: int) -> None:
    """Fails unless a part of both disks has the same bytes: for disks of which qemu-img reads the whole in minutes only."""
    opened = [f"driver=raw,offset={start},size={length},file.driver={fmt},file.file.driver=file,file.file.filename={path}"
              for path, fmt in ((a, fmt_a), (b, fmt_b))]
    tool("qemu-img", "compare", "-U", "--image-opts", *opened)


def clean(path: Path, fmt: str, *, leaks: bool = False) -> None:
    """Fails unless qemu-img finds nothing wrong. ``leaks``: lost clusters are allowed. Raw and VHD know no check (63)."""
    knows_none = fmt in ("raw", "vpc")
    codes = (63,) if knows_none else (0, 3) if leaks else (0,)
    done = tool("qemu-img", "check", "-U", "--output=json", "-f", fmt, path, ok=codes)
    if knows_none:
        return
    told = json.loads(done.stdout)
    found = {key: told.get(key, 0) for key in ("corruptions", "check-errors", *(() if leaks else ("leaks",)))}
    assert not any(found.values()), f"{path}: {found}: {done.stderr}"


@dataclass(frozen=True)
class Space:
    """Where a file has space: (start, end, flags) of each extent, in bytes."""

    size: int
    allocated: int
    extents: tuple[tuple[int, int, frozenset[str]], ...]

    def flagged(self, flag: str) -> bool:
        """Whether an extent has a flag of filefrag: unwritten, shared, ..."""
        return any(flag in flags for _, _, flags in self.extents)

    def holes(self) -> Iterator[tuple[int, int]]:
        """Ranges of the file that no extent covers."""
        position = 0
        for start, end, _ in self.extents:
            if start > position:
                yield position, start
            position = max(position, end)
        if position < self.size:
            yield position, self.size


def space(path: Path) -> Space:
    """By ``stat`` and by ``filefrag -v``, what is in the page cache written out first."""
    text = tool("filefrag", "-s", "-v", path).stdout
    head = _SIZE.search(text)
    assert head, text
    rows = [line.split(":") for line in text.splitlines() if line.partition(":")[0].strip().isdigit()]
    size, found = int(head[1]), [_extent(row, int(head[2])) for row in rows]
    # XFS keeps space behind the end for a while: no part of the file.
    return Space(size, path.stat().st_blocks * 512, tuple(extent for extent in found if extent[0] < size))


def _extent(row: list[str], block: int) -> tuple[int, int, frozenset[str]]:
    """``0:  48.. 63:  12944176.. 12944191:  16:  [expected:]  flags`` in bytes."""
    first, last = (int(number) for number in row[1].split(".."))
    return first * block, (last + 1) * block, frozenset(row[-1].strip().split(","))


def allocation(files: Iterable[Path], size: int) -> str:
    """``thin``, ``thick`` or ``eager``: of the files that hold the data of a disk of so many bytes."""
    found = [space(path) for path in files]
    if sum(one.allocated for one in found) < size or any([*one.holes()] or one.flagged("shared") for one in found):
        return "thin"
    return "thick" if any(one.flagged("unwritten") for one in found) else "eager"


def state(directory: Path) -> dict[str, tuple[int, str]]:
    """What stands in a directory: time of the last change and SHA-256 of each file."""
    return {path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(directory.iterdir()) if path.is_file()}
