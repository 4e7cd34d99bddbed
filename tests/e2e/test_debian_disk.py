"""A real Debian disk is converted, and boots: the guest itself says that its bytes came through."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.boot import boot
from fixtures.debian import build
from fixtures.run import ALONE, run

PROJECT = Path(__file__).resolve().parents[2]
SPARSE = ("-o", "subformat=monolithicSparse")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A directory that is emptied at once: a thick disk is too large to be kept for the next runs."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def imgtool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run imgtool's command line in a process of its own, as a user does."""
    argv = [sys.executable, "-m", "imgtool", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=300)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.long
@pytest.mark.boot
def test_debian_boots_from_the_thick_qcow2(work: Path) -> None:
    disk = build(work / "debian.raw")
    vmdk, qcow2 = work / "debian.vmdk", work / "debian.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", *SPARSE, disk.path, vmdk])

    done = imgtool("convert", vmdk, "--to", "qcow2", "--thick")
    assert done.returncode == 0, done.stderr
    before = sha256(qcow2)
    report = boot(qcow2, format="qcow2")

    assert report.booted, "\n".join([report.why, *report.lines])
    assert report.payload_sha256 == disk.payload_sha256
    assert report.failed_units == ()
    assert report.root_source == "/dev/vda1"
    assert report.lines[-1] == disk.marker
    assert sha256(qcow2) == before, "the watcher changed the disk that it booted"


@pytest.mark.boot
def test_a_disk_of_zeros_is_reported_as_not_booting(work: Path) -> None:
    zeros = work / "zeros.raw"
    run(["truncate", "-s", "16M", zeros])
    start = time.monotonic()
    report = boot(zeros, format="raw", timeout=60)
    assert not report.booted
    assert "No bootable device" in report.why
    assert time.monotonic() - start < 30


@pytest.mark.boot
def test_a_disk_that_qemu_cannot_open_is_reported_with_its_words(work: Path) -> None:
    report = boot(work / "missing.qcow2", format="qcow2", timeout=60)
    assert not report.booted
    assert "No such file or directory" in report.why


def test_what_a_build_mounts_is_never_seen_by_the_machine(work: Path) -> None:
    """Else whoever clears up after a killed build would find the machine's own /proc and /sys in its rest."""
    inner = run([*ALONE, "sh", "-c", 'mount -t tmpfs none "$1" && cat /proc/mounts', "sh", work])
    assert str(work) in inner
    assert str(work) not in Path("/proc/mounts").read_text()
