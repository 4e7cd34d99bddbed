"""Small machines to move: descriptions with real disks that hold patterns."""

from __future__ import annotations

import os
import random
from pathlib import Path

from fixtures.run import run

MIB = 1 << 20


def raw_disk(path: Path, size: int, seed: int = 1) -> Path:
    """Data here and there, also in the last sector; the rest are holes."""
    chance = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for start in sorted({0, min(5 * MIB, size // 3), size // 2, size - 512}):
            file.seek(start)
            file.write(chance.randbytes(min(3 * MIB + 512, size - start)))
    return path


def vmx(folder: Path, name: str = "web01", disks: tuple[int, ...] = (64 * MIB, 100 * MIB), *, firmware: str = "bios") -> Path:
    """A machine of VMware with flat disks, and beside each its bytes as ``N.raw``."""
    folder.mkdir(exist_ok=True)
    lines = [
        '.encoding = "UTF-8"', 'config.version = "8"', 'virtualHW.version = "10"', f'displayName = "{name}"',
        'guestOS = "debian10-64"', 'memSize = "512"', 'numvcpus = "2"', f'firmware = "{firmware}"',
        'uuid.bios = "56 4d 11 22 33 44 55 66-77 88 99 aa bb cc dd ee"', 'scsi0.present = "TRUE"', 'scsi0.virtualDev = "pvscsi"',
        'ethernet0.present = "TRUE"', 'ethernet0.virtualDev = "vmxnet3"', 'ethernet0.networkName = "VM Network"',
        'ethernet0.addressType = "static"', 'ethernet0.address = "00:50:56:01:02:03"']
    for number, size in enumerate(disks):
        raw = raw_disk(folder / f"{number}.raw", size, number)
        run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", raw, folder / f"d{number}.vmdk"])
        lines += [f'scsi0:{number}.present = "TRUE"', f'scsi0:{number}.fileName = "d{number}.vmdk"']
    path = folder / f"{name}.vmx"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def same(raw: Path, image: Path | str, form: str) -> None:
    """qemu-img sees no difference."""
    run(["qemu-img", "compare", "-q", "-f", "raw", "-F", form, raw, image])


def left_behind(folder: Path) -> list[str]:
    """Names that are no result."""
    return sorted(name for name in os.listdir(folder) if "imgtool" in name)
