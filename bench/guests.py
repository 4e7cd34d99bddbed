"""Guests that were born on ESXi, adapted for KVM by imgtool and by virt-v2v, each on a copy of the same disk: do they boot, is
their network there, and how long did it take? Needs root, virt-v2v, 6 GiB of disk and half an hour: not part of `make bench`.

    python -m bench.guests                  all; writes bench/GUESTS.md
    python -m bench.guests --only MBR       the guests whose name begins so; writes to build/bench
    python -m bench.guests --whole          the copy and conversion of the disk, too
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from bench.measure import ENVIRONMENT, IMGTOOL, ROOT, load, measured, others
from bench.report import machine, seconds
from fixtures import debian_guests
from fixtures.boot import BootReport, boot
from fixtures.debian_guests import Guest, GuestDisk
from fixtures.hardware import MAC, VIRTIO_BLK

GUESTS = {
    "MBR, `/dev/sda1`, ifupdown": Guest("esxi"),
    "LVM, netplan": Guest("esxi", layout="lvm", stable=True, network="netplan"),
    "GPT, UUID, networkd": Guest("esxi", layout="gpt", stable=True, network="networkd"),
}
REQUIRED = 5
"""imgtool must be so many times as fast."""
TCG = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
"""For virt-v2v, which hangs where KVM is there but does not work; imgtool finds out by itself."""
TIMEOUT = 600
DOMAIN = """<domain type='qemu'>
  <name>guest</name><memory unit='KiB'>1048576</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='sda' bus='scsi'/></disk>
    <interface type='bridge'><mac address='{mac}'/><source bridge='lan'/><model type='vmxnet3'/></interface>
  </devices>
</domain>
"""
VMX = """.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "14"
displayName = "guest"
guestOS = "debian10-64"
memSize = "1024"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "guest.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "static"
ethernet0.address = "{mac}"
"""
HEADER = ("guest", "program", "boots", "network", "wall time", "imgtool is", "what is wrong")


@dataclass(frozen=True, slots=True)
class Way:
    """One program's way with a guest: gives the disk that it made, and its format; what it needs is made before."""

    name: str
    whole: bool
    """Copies and converts the disk, too; else the guest is changed in place."""
    prepare: Callable[[Path, Path], None]
    commands: Callable[[Path], Sequence[Sequence[object]]]
    result: tuple[str, str]


def _copied(place: Path, disk: Path) -> None:
    _run("cp", "--sparse=always", disk, place / "guest.raw")


def _described(place: Path, disk: Path) -> None:
    _copied(place, disk)
    (place / "guest.xml").write_text(DOMAIN.format(disk=place / "guest.raw", mac=MAC), encoding="utf-8")


def _on_esxi(place: Path, disk: Path) -> None:
    (place / "esxi").mkdir()
    _run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", disk, place / "esxi/guest.vmdk")
    (place / "esxi/guest.vmx").write_text(VMX.format(mac=MAC), encoding="utf-8")


WAYS = (
    Way("imgtool adapt", False, _copied, lambda place: [[*IMGTOOL, "adapt", place / "guest.raw", "--for", "kvm"]],
        ("guest.raw", "raw")),
    Way("virt-v2v-in-place -i libvirtxml", False, _described,
        lambda place: [["virt-v2v-in-place", "-i", "libvirtxml", place / "guest.xml"]], ("guest.raw", "raw")),
    Way("imgtool convert, adapt", True, _on_esxi,
        lambda place: [[*IMGTOOL, "convert", place / "esxi/guest.vmx", place / "kvm", "--to", "qcow2"],
                       [*IMGTOOL, "adapt", place / "kvm/guest.qcow2", "--for", "kvm"]], ("kvm/guest.qcow2", "qcow2")),
    Way("virt-v2v -i vmx -o local", True, _on_esxi,
        lambda place: [["mkdir", place / "kvm"],
                       ["virt-v2v", "-i", "vmx", place / "esxi/guest.vmx", "-o", "local", "-os", place / "kvm", "-of", "qcow2"]],
        ("kvm/guest-sda", "qcow2")),
)


def _run(*argv: object) -> None:
    measured(argv)


def main() -> int:
    """0 if imgtool is at least as often right as virt-v2v, and quick enough."""
    parser = argparse.ArgumentParser(prog="python -m bench.guests", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--directory", type=Path, help="where the disks stand; default: the temporary directory")
    args = parser.parse_args()
    if not (which("virt-v2v") and which("nbdkit")):
        parser.error("virt-v2v is missing: apt-get install virt-v2v nbdkit libnbd-bin")
    ENVIRONMENT.update(TCG)
    out = ROOT / "build" / "bench" if args.only else ROOT / "bench"
    out.mkdir(parents=True, exist_ok=True)
    before, rows, worse = load(), list[tuple[str, ...]](), 0
    with tempfile.TemporaryDirectory(prefix="imgtool-guests-", dir=args.directory) as name:
        about = machine(Path(name), "one run each; TCG for both; hardware of the boots: virtio-blk, virtio-net")
        for guest in (one for one in GUESTS if one.startswith(args.only)):
            for row, good in _guest(guest, Path(name), whole=args.whole):
                rows.append(row)
                worse += not good
                share = f"Programs of others used {others(before, load()):.0%} of the processors."
                (out / "GUESTS.md").write_text(_document(about, rows, share), encoding="utf-8")
    return int(worse > 0)


def _guest(name: str, place: Path, *, whole: bool) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Its rows, and whether imgtool did as it must in each."""
    disk = debian_guests.build(place / "born.raw", GUESTS[name])
    ours, ours_right = 0.0, (False, False)
    for way in (one for one in WAYS if whole or not one.whole):
        with tempfile.TemporaryDirectory(dir=place) as own:
            took, report = _tried(way, Path(own), disk)
        right = (report.booted and report.payload_sha256 == disk.payload_sha256, _has_network(report, disk))
        words = "" if all(right) else _why(report)
        mine = way.name.startswith("imgtool")
        if mine:
            ours, ours_right = took, right
        ratio = "" if mine else f"{took / ours:.1f} times as fast"
        good = mine or (ours_right >= right and (way.whole or took >= REQUIRED * ours))
        print(f"{name}; {way.name}: {right}, {took:.1f} s; {words}", file=sys.stderr)
        yield (name, f"`{way.name}`", *("yes" if one else "**no**" for one in right), seconds(took), ratio, words), good
    disk.path.unlink()


def _tried(way: Way, place: Path, disk: GuestDisk) -> tuple[float, BootReport]:
    way.prepare(place, disk.path)
    took = sum(measured(command).seconds for command in way.commands(place))
    name, image_format = way.result
    return took, boot(place / name, format=image_format, hardware=VIRTIO_BLK, timeout=TIMEOUT)


def _has_network(report: BootReport, disk: GuestDisk) -> bool:
    up = [nic.split() for nic in report.nics]
    return any(words[2] == "UP" and disk.address in words for words in up)


def _why(report: BootReport) -> str:
    if not report.booted:
        return report.why.splitlines()[0].strip()
    nics = "; ".join(" ".join(nic.split()[1:3]) for nic in report.nics if not nic.split()[1].startswith("lo"))
    return f"{nics}; failed: {', '.join(report.failed_units) or 'nothing'}"


def _document(about: Sequence[str], rows: Sequence[tuple[str, ...]], share: str) -> str:
    lines = ["# Guests: imgtool and virt-v2v side by side", "",
             "Debian 12, born on ESXi-like hardware (pvscsi, vmxnet3), static address on `ens192`; adapted for KVM. Boots: root",
             "mounted and the same payload on virtio-blk. Network: the card is up with its address. By `python -m bench.guests`.",
             "", *about, "", _line(HEADER), "|" + " --- |" * len(HEADER), *map(_line, rows), "", share]
    return "\n".join(lines) + "\n"


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


if __name__ == "__main__":
    sys.exit(main())
