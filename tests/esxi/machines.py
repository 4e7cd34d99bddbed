"""Folders of machines as they stand on a datastore: .vmx, descriptors, flat files with data and holes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from fixtures.vmdk_text import Descriptor, content_id, render

MIB = 1 << 20
ODD_NAME = "Büro #1 [a+b] 50%"
"""Of a machine: blank, hash, brackets, plus, percent, not ASCII."""


def flat(path: Path, size: int, *, data: Sequence[tuple[int, int]] | None = None, seed: int = 0) -> Path:
    """A sparse file with random bytes at (offset, length); without ``data``: everywhere."""
    bytes_of = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in data if data is not None else ((0, size),):
            for start in range(offset, offset + length, MIB):
                file.seek(start)
                file.write(bytes_of.randbytes(min(MIB, offset + length - start)))
    return path


def machine(datastore: Path, name: str, sizes: Sequence[int], *, folder: str | None = None, extra: str = "",
            data: Sequence[tuple[int, int]] | None = None, extent: str | None = None) -> str:
    """A machine's folder with its disks; the path of its .vmx below the datastore. ``extent``: another name in the descriptor."""
    place = datastore / (folder or name)
    place.mkdir()
    for number, size in enumerate(sizes):
        flat(place / f"{disk_name(name, number)}-flat.vmdk", size, data=data, seed=number)
    return describe(datastore, name, sizes, folder=folder, extra=extra, extent=extent)


def disk_name(name: str, number: int) -> str:
    """As ESXi counts: web01, web01_1."""
    return f"{name}_{number}" if number else name


def describe(datastore: Path, name: str, sizes: Sequence[int], *, folder: str | None = None, extra: str = "",
             extent: str | None = None) -> str:
    """The .vmx and the descriptors of disks whose flat files are there; the path of the .vmx below the datastore."""
    folder = folder or name
    lines = ['.encoding = "UTF-8"', 'config.version = "8"', 'virtualHW.version = "13"', f'displayName = "{name}"',
             'guestOS = "debian10-64"', 'memSize = "512"', 'numvcpus = "2"',
             'scsi0.present = "TRUE"', 'scsi0.virtualDev = "pvscsi"',
             'ethernet0.present = "TRUE"', 'ethernet0.virtualDev = "vmxnet3"', 'ethernet0.networkName = "VM Network"',
             'ethernet0.address = "00:50:56:00:00:01"']
    for number, size in enumerate(sizes):
        disk = disk_name(name, number)
        _descriptor(datastore / folder, disk, size, extent or f"{disk}-flat.vmdk")
        lines += [f'scsi0:{number}.present = "TRUE"', f'scsi0:{number}.deviceType = "scsi-hardDisk"',
                  f'scsi0:{number}.fileName = "{disk}.vmdk"']
    (datastore / folder / f"{name}.vmx").write_text("\n".join([*lines, extra]) + "\n", encoding="utf-8")
    return f"{folder}/{name}.vmx"


def add_disk(folder: Path, name: str, size: int) -> None:
    """A descriptor and its flat file."""
    flat(folder / f"{name}-flat.vmdk", size)
    _descriptor(folder, name, size, f"{name}-flat.vmdk")


def _descriptor(folder: Path, name: str, size: int, extent: str) -> None:
    line = f'RW {size // 512} VMFS "{extent}"'
    text = render(Descriptor(name=name, create_type="vmfs", extents=(line,), sectors=size // 512, cid=content_id(name)))
    (folder / f"{name}.vmdk").write_text(text, encoding="utf-8")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder: what must not change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*")) if path.is_file()}

