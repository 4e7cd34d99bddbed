"""``--only-used``: what the guest's file systems do not use is not copied, all else is. In the libguestfs appliance, under TCG.

An appliance start takes 12 to 25 s: one disk with all file systems, one start to convert it and one to verify it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from imgtool.errors import MissingToolError
from imgtool.formats.disk import open_disk
from imgtool.guests.used import only_used
from imgtool.progress import Stop
from tests import guest_disk, oracle
from tests.guest_disk import CHECK, DEAD, LIVE, GuestDisk, Part, extracted, hashes, marked, mounted
from tests.program import ENVIRONMENT, ROOT, imgtool

EDGES = 3 * 3 * 32
"""Blocks that may stay: the overlay remembers whole clusters of 64 KiB, and files may be in pieces."""
KEPT = ("sleeping", "unknown")
WITHOUT_GUESTFS = "import sys; sys.modules['guestfs'] = None; from imgtool.__main__ import main; main()"


def sums(path: Path) -> tuple[str, int]:
    """SHA-256 and time of the last change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_mtime_ns


def check_part(raw: Path, part: Part, place: Path) -> None:
    """Clean by its own checker, and all files as they were."""
    path = extracted(raw, part, place)
    tool, *words = CHECK[part.fs]
    oracle.tool(tool, *words, path)
    if part.fs == "vfat":
        for name, wanted in part.live.items():
            oracle.tool("mcopy", "-n", "-i", path, f"::{name}", place / name)
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == wanted, name
    else:
        with mounted(path, part.fs, "ro,norecovery" if part.fs == "xfs" else "ro") as point:
            assert hashes(point) == part.live
    path.unlink()


def check_free(source: Path, raw: Path, part: Part) -> None:
    """What was deleted is in the source and not in the result; of what nobody knows, all of it is in both."""
    before, after = marked(source, part), marked(raw, part)
    if part.name in KEPT:
        assert after == before > 0
    else:
        assert before >= DEAD // 4096 // 2, f"{part.name}: the source has no deleted data: {before} blocks"
        assert after <= min(EDGES, before // 2), f"{part.name}: {after} of {before} blocks of free space were copied"


def check_result(disk: GuestDisk, raw: Path, place: Path) -> None:
    for part in disk.parts:
        check_free(disk.path, raw, part)
        if part.live:
            check_part(raw, part, place)
    kept = sum(part.size for part in disk.parts if part.name in KEPT)
    live = 4 * LIVE * sum(bool(part.live) for part in disk.parts)
    assert raw.stat().st_blocks * 512 < kept + live + (24 << 20) < disk.path.stat().st_blocks * 512


def test_all_file_systems(tmp_path: Path) -> None:
    disk = guest_disk.build(tmp_path)
    before = sums(disk.path)
    result = tmp_path / "result.qcow2"
    done = imgtool("convert", disk.path, result, "--to", "qcow2", "--only-used", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["verified"]
    assert sums(disk.path) == before
    warned = [warning for warning in made["warnings"] if "copied whole" in warning]
    assert len(warned) == 2, made["warnings"]
    assert any("/dev/sda7" in warning for warning in warned), warned
    assert any("/dev/sda8" in warning for warning in warned), warned
    oracle.clean(result, "qcow2")
    oracle.tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk.path, result, ok=(1,))
    raw = tmp_path / "result.raw"
    oracle.tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", result, raw)
    check_result(disk, raw, tmp_path)
    said = imgtool("verify", disk.path, result, "--only-used")
    assert said.returncode == 0, said.stdout + said.stderr
    said = imgtool("verify", disk.path, result)
    assert said.returncode == 3, said.stdout + said.stderr
    assert sums(disk.path) == before


@pytest.mark.long
def test_verify_sees_a_changed_file(tmp_path: Path) -> None:
    """What is compared is compared: one byte of a file, and it is not identical."""
    disk = guest_disk.build(tmp_path, ("ext4",))
    result = tmp_path / "result.raw"
    assert imgtool("convert", disk.path, result, "--to", "raw", "--only-used").returncode == 0
    part = disk.part("ext4")
    with result.open("r+b") as file:
        file.seek(part.start)
        data = file.read(part.size)
        at = part.start + data.index(b"a note in ext4\n")
        file.seek(at)
        file.write(b"A")
    said = imgtool("verify", disk.path, result, "--only-used", "--json")
    assert said.returncode == 3, said.stderr
    assert json.loads(said.stdout)["first_difference"] == at


@pytest.mark.long
def test_of_a_guest_that_crashed(tmp_path: Path) -> None:
    """Journals are replayed when the guest starts: by then all that they need must be there. ext4 with no more than that to do
    loses what is free; all others are copied whole.
    """
    disk = guest_disk.build(tmp_path, ("ext4", "xfs", "btrfs", guest_disk.OPEN), crashed=True)
    before, raw = sums(disk.path), tmp_path / "result.raw"
    done = imgtool("convert", disk.path, raw, "--to", "raw", "--only-used")
    assert done.returncode == 0, done.stderr
    assert sums(disk.path) == before
    for number, fs in ((2, "xfs"), (3, "btrfs"), (4, "ext4")):
        assert f"/dev/sda{number} ({fs}) is copied whole" in done.stderr, done.stderr
    assert done.stderr.count("copied whole") == 3
    for part in disk.parts:
        if part.name == "ext4":
            check_free(disk.path, raw, part)
        else:
            assert marked(raw, part) == marked(disk.path, part) > 0
        path = extracted(raw, part, tmp_path)
        with mounted(path, part.fs, "rw") as point:
            found = hashes(point)
        assert found == part.live
        tool, *words = CHECK[part.fs]
        oracle.tool(tool, *words, path)


def children(pid: int) -> dict[int, str]:
    """Command lines of all processes below one."""
    found: dict[int, str] = {}
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for one in parents:
        above, seen = one, 0
        while above > 1 and above != pid and seen < 100:
            above, seen = parents.get(above, 0), seen + 1
        if above == pid and one != pid:
            with suppress(OSError):
                found[one] = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.long
def test_interrupted(tmp_path: Path) -> None:
    """SIGINT while the appliance starts: nothing of it outlives us, nothing stays on the disk."""
    disk = guest_disk.build(tmp_path, ("ext4",))
    before, names = sums(disk.path), {path.name for path in tmp_path.iterdir()}
    process = subprocess.Popen([sys.executable, "-m", "imgtool", "convert", disk.path, tmp_path / "y.qcow2", "--to", "qcow2",
                                "--only-used"], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started: dict[int, str] = {}
    for _ in range(1200):
        started = children(process.pid)
        if process.poll() is not None or any("qemu-system" in line and "overlay" in line for line in started.values()):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert any("qemu-system" in line and "overlay" in line for line in started.values()), stderr
    assert process.returncode == 130, stderr
    folder = next(word.partition("file=")[2].partition("overlay.qcow2")[0] or word for line in started.values()
                  for word in line.split() if "overlay.qcow2" in word)
    for _ in range(50):
        if not any(map(alive, started)):
            break
        time.sleep(0.1)
    assert not [line for pid, line in started.items() if alive(pid)]
    assert not os.path.exists(folder), folder
    assert {path.name for path in tmp_path.iterdir()} == names
    assert sums(disk.path) == before


def test_without_guestfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(bytes(1 << 20))
    monkeypatch.setitem(sys.modules, "guestfs", None)
    with (open_disk(str(path), source_format="raw") as disk, pytest.raises(MissingToolError, match="libguestfs") as raised,
          only_used(disk, Stop())):
        pass
    assert raised.value.hint == "apt-get install python3-guestfs"
    for words in (("convert", str(path), "--to", "qcow2", "--only-used"), ("verify", str(path), str(path), "--only-used")):
        done = subprocess.run([sys.executable, "-c", WITHOUT_GUESTFS, *words], cwd=tmp_path, env=ENVIRONMENT,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 6, done.stderr
        assert "python3-guestfs" in done.stderr
        assert [one.name for one in tmp_path.iterdir()] == ["x.raw"]
