"""A cell of the boot matrix: a guest that was born on one hardware, moved to another, and what must then be true."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fixtures import debian_guests, hardware
from fixtures.boot import BootReport, boot
from fixtures.debian_guests import Guest, GuestDisk
from fixtures.hardware import Hardware
from tests.program import imgtool

TIMEOUT = 900
"""Seconds for a boot under TCG on a very busy machine; it takes 25 to 60."""


@dataclass(frozen=True)
class Cell:
    guest: Guest
    platform: str
    target: str
    """A name of fixtures.hardware."""
    words: tuple[str, ...] = ()
    """More options of adapt."""

    def __str__(self) -> str:
        guest = self.guest
        named = "uuid" if guest.stable else "names"
        return "-".join([guest.born, guest.layout, guest.root, named, guest.network, "to", self.platform, self.target.lower(),
                         *(word.strip("-") for word in self.words)])

    @property
    def hardware(self) -> Hardware:
        found: Hardware = getattr(hardware, self.target)
        return found.uefi() if self.guest.layout.startswith("uefi") else found


def build(cell: Cell, place: Path) -> GuestDisk:
    return debian_guests.build(place / "guest.raw", cell.guest)


def adapt(disk: Path, cell: Cell) -> dict[str, object]:
    done = imgtool("adapt", disk, "--for", cell.platform, *cell.words, "--json", timeout=1200)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def fails(disk: GuestDisk, where: Hardware) -> None:
    """It does not boot there, or has no network: else the cell would show nothing."""
    report = boot(disk.path, format="raw", hardware=where, timeout=TIMEOUT)
    assert not report.booted or disk.address not in " ".join(report.nics), "it boots without adapt"


def works(disk: GuestDisk, where: Hardware, *, network: bool = True) -> BootReport:
    """Root mounted, the payload as it was, no failed unit, the card up with its address."""
    report = boot(disk.path, format="raw", hardware=where, timeout=TIMEOUT)
    assert report.booted, "\n".join([report.why, *report.lines])
    assert report.payload_sha256 == disk.payload_sha256
    if network:
        assert report.failed_units == (), report.lines
        up = [nic.split() for nic in report.nics]
        assert any(words[2:3] == ["UP"] and disk.address in words for words in up), report.lines
    return report


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
