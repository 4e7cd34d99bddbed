"""A guest's disk with file systems of every kind, on which files were written and deleted: what is free still has its bytes.

The host's kernel writes into files of the test, by loop mounts; there is no guest. All numbers are bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.loops import loop_device, mounted_image
from tests.oracle import tool

MIB = 1 << 20
FIRST = MIB
"""Where the first partition begins."""
LIVE, DEAD = 2 * MIB, 8 * MIB
BLOCK = 4096
SIZES = {"ext4": 48 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB, "vfat": 48 * MIB, "swap": 16 * MIB, "lvm": 65 * MIB,
         "sleeping": 8 * MIB, "unknown": 8 * MIB, "open": 48 * MIB}
OPEN = "open"
"""The last of them: an ext4 of a guest that crashed while it had a deleted file open."""
PIECES = 3000
"""Of that file: so many that blocks are needed to list them."""
LOGICAL = 24 * MIB
"""The logical volume, with an ext4 in it; the rest of its group is free."""
FIRST_EXTENT = MIB
"""Of a physical volume: LVM's own label and descriptions are before it."""
VOLUME = f"""
logical_volumes {{ root {{
  id = "abcdef-abcd-abcd-abcd-abcd-abcd-abcdef" status = ["READ", "WRITE", "VISIBLE"] flags = [] segment_count = 1
  segment1 {{ start_extent = 0 extent_count = {LOGICAL >> 22} type = "striped" stripe_count = 1 stripes = ["pv0", 0] }}
}} }}"""
MOUNT = {"ext4": "nodiscard", "xfs": "nodiscard", "btrfs": "nodiscard"}
CHECK = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n"), "btrfs": ("btrfs", "check"), "vfat": ("fsck.vfat", "-n")}


@dataclass(frozen=True)
class Part:
    """One partition, or the logical volume in one."""

    name: str
    fs: str
    start: int
    size: int
    live: dict[str, str] = field(default_factory=dict)
    """SHA-256 of its files by name."""


@dataclass(frozen=True)
class GuestDisk:
    path: Path
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def dead(name: str, length: int) -> bytes:
    """Bytes that do not compress and are known again: the mark is at the beginning of each block."""
    return b"".join(mark(name) + os.urandom(BLOCK - len(mark(name))) for _ in range(length // BLOCK))


def mark(name: str) -> bytes:
    """What each block of a deleted file begins with."""
    return f"deleted from {name}: ".encode()


def marked(path: Path, part: Part) -> int:
    """Blocks of deleted files that a raw image still has in a partition."""
    with path.open("rb") as file:
        file.seek(part.start)
        count = left = 0
        while left < part.size:
            data = file.read(min(4 * MIB, part.size - left))
            if not data:
                break
            count += data.count(mark(part.name))
            left += len(data)
    return count


@contextmanager
def mounted(image: Path, fs: str, options: str) -> Iterator[Path]:
    """A file system that is there already, for as long as the block lasts."""
    with mounted_image(image, image.with_name(f"{image.name}.mnt"), fs, options) as point:
        yield point


def hashes(point: Path) -> dict[str, str]:
    """SHA-256 of all files of a mounted file system."""
    return {str(path.relative_to(point)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(point.rglob("*")) if path.is_file()}


def _use(image: Path, name: str, fs: str, *, crashed: bool = False) -> dict[str, str]:
    """Writes files and deletes half of them; the space of the deleted ones keeps their bytes.

    ``crashed``: the image becomes what was on the disk just behind an fsync, with a journal that is to be replayed.
    """
    with mounted(image, fs, MOUNT[fs]) as point:
        for number in range(3):
            (point / f"live-{number}").write_bytes(os.urandom(LIVE + number))
            (point / f"dead-{number}").write_bytes(dead(name, DEAD // 3))
        (point / "folder").mkdir()
        (point / "folder" / "note").write_text(f"a note in {name}\n")
        os.sync()
        for number in range(3):
            (point / f"dead-{number}").unlink()
        open_file = _deleted_while_open(point) if crashed and name in (OPEN, "xfs") else None
        if crashed:
            os.sync()
            with (point / "live-0").open("r+b", buffering=0) as file:
                for _ in range(3):  # btrfs writes all its trees at the first one, and a log at the others
                    file.seek(0)
                    file.write(os.urandom(BLOCK))
                    os.fsync(file.fileno())
            tool("cp", "--sparse=always", image, image.with_name("crashed"))
        found = hashes(point)
        if open_file is not None:
            os.close(open_file)
    if crashed:
        image.with_name("crashed").rename(image)
    return found


def _deleted_while_open(point: Path) -> int:
    """What lists its pieces is where it belongs, no longer in the journal."""
    file = os.open(point / "open", os.O_RDWR | os.O_CREAT)
    for number in range(PIECES):
        os.pwrite(file, bytes(BLOCK), number * 2 * BLOCK)
    os.fsync(file)
    tool("fsfreeze", "--freeze", point)
    tool("fsfreeze", "--unfreeze", point)
    (point / "open").unlink()
    return file


def _sized(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _by_mount(image: Path, name: str, fs: str, *, crashed: bool = False) -> dict[str, str]:
    tool(f"mkfs.{fs}", "-q", image)
    return _use(image, name, fs, crashed=crashed)


def _vfat(image: Path, name: str) -> dict[str, str]:
    tool("mkfs.vfat", image)
    file = image.with_name("vfat.file")
    live: dict[str, str] = {}
    for number in range(3):
        file.write_bytes(dead(name, DEAD // 3))
        tool("mcopy", "-i", image, file, f"::dead-{number}")
        file.write_bytes(os.urandom(LIVE + number))
        tool("mcopy", "-i", image, file, f"::live-{number}")
        live[f"live-{number}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    for number in range(3):
        tool("mdel", "-i", image, f"::dead-{number}")
    file.unlink()
    return live


def _swap(image: Path, name: str, *, sleeping: bool) -> None:
    """Swap in which pages have been; of a system that sleeps in it, or not."""
    with image.open("r+b") as file:
        file.write(dead(name, image.stat().st_size))
    tool("mkswap", image)
    if sleeping:
        with image.open("r+b") as file:
            file.seek(BLOCK - 10)
            file.write(b"S1SUSPEND\0")


def _lvm(image: Path, place: Path) -> tuple[dict[str, str], int]:
    """A volume group with one logical volume, none of it active: files of the ext4 in it, and where it begins.

    lvcreate wants the device mapper, which a container has not: the volume comes with a restored description of the group.
    """
    with image.open("r+b") as file:
        file.seek(FIRST_EXTENT)
        file.write(dead("lvm", image.stat().st_size - FIRST_EXTENT))
    with loop_device(image) as device:
        config = (f'--config=devices {{ filter=["a|^{device}$|", "r|.*|"] use_devicesfile=0 }} '
                  "backup { backup=0 archive=0 }")
        group, described = f"guest{os.getpid()}", place / "group"
        tool("pvcreate", "-qq", "-ff", "-y", config, device)
        tool("vgcreate", "-qq", config, group, device)
        tool("vgcfgbackup", "-qq", config, "-f", described, group)
        head, end, rest = described.read_text().rpartition("\n}\n")
        described.write_text(head + VOLUME + end + rest)
        tool("vgcfgrestore", "-qq", config, "-f", described, group)
        described.unlink()
        start = int(tool("pvs", config, "--units", "b", "--nosuffix", "--noheadings", "-o", "pe_start", device).stdout)
    assert start == FIRST_EXTENT
    inner = _sized(place / "logical", LOGICAL)
    live = _by_mount(inner, "logical", "ext4")
    with image.open("r+b") as file:
        file.seek(start)
        file.write(inner.read_bytes())
    inner.unlink()
    return live, start


def _make(place: Path, name: str, start: int, *, crashed: bool) -> tuple[Path, list[Part]]:
    image, size = _sized(place / name, SIZES[name]), SIZES[name]
    live: dict[str, str] = {}
    if name in MOUNT:
        live = _by_mount(image, name, name, crashed=crashed)
    elif name == OPEN:
        live = _by_mount(image, name, "ext4", crashed=crashed)
        return image, [Part(name, "ext4", start, size, live)]
    elif name == "vfat":
        live = _vfat(image, name)
    elif name in ("swap", "sleeping"):
        _swap(image, name, sleeping=name == "sleeping")
    elif name == "unknown":
        image.write_bytes(dead(name, size))
    elif name == "lvm":
        live, inner = _lvm(image, place)
        return image, [Part("lvm", "lvm", start, size), Part("logical", "ext4", start + inner, LOGICAL, live)]
    return image, [Part(name, name, start, size, live)]


def build(place: Path, names: tuple[str, ...] = tuple(SIZES)[:-1], *, crashed: bool = False) -> GuestDisk:
    """A GPT disk with a partition of each of the names; ``crashed``: of a guest that was not shut down."""
    disk, parts, position = place / "guest.raw", [], FIRST
    _sized(disk, FIRST + sum(SIZES[name] for name in names) + MIB)
    table = place / "table"
    table.write_text("label: gpt\n" + "".join(f"size={SIZES[name] // 512}\n" for name in names))
    tool("sh", "-c", f"sfdisk -q '{disk}' < '{table}'")
    for name in names:
        image, made = _make(place, name, position, crashed=crashed)
        tool("dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={position // MIB}", "conv=notrunc,sparse", "status=none")
        image.unlink()
        parts += made
        position += SIZES[name]
    table.unlink()
    return GuestDisk(disk, tuple(parts))


def extracted(raw: Path, part: Part, place: Path) -> Path:
    """The partition of a raw disk as a file of its own, sparse."""
    path = _sized(place / f"{part.name}.fs", part.size)
    tool("dd", f"if={raw}", f"of={path}", "bs=1M", f"skip={part.start}", f"count={part.size}", "iflag=skip_bytes,count_bytes",
         "conv=notrunc,sparse", "status=none")
    return path
