"""Folders of machines as they stand on a datastore: .vmx, descriptors, flat files with data and holes."""

from __future__ import annotations

import os
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


def machine(datastore: Path, name: str, sizes: Sequence[int] = (8 * MIB,), *, folder: str | None = None, extra: str = "",
            data: Sequence[tuple[int, int]] | None = None, extent: str | None = None) -> str:
    """A machine's folder with its disks; the path of its .vmx below the datastore. ``extent``: another name in the descriptor."""
    folder = folder or name
    (datastore / folder).mkdir()
    lines = ['.encoding = "UTF-8"', 'config.version = "8"', 'virtualHW.version = "13"', f'displayName = "{name}"',
             'guestOS = "debian10-64"', 'memSize = "512"', 'numvcpus = "2"',
             'scsi0.present = "TRUE"', 'scsi0.virtualDev = "pvscsi"',
             'ethernet0.present = "TRUE"', 'ethernet0.virtualDev = "vmxnet3"', 'ethernet0.networkName = "VM Network"',
             'ethernet0.address = "00:50:56:00:00:01"']
    for number, size in enumerate(sizes):
        disk = f"{name}_{number}" if number else name
        add_disk(datastore / folder, disk, size, data=data, seed=number, extent=extent)
        lines += [f'scsi0:{number}.present = "TRUE"', f'scsi0:{number}.deviceType = "scsi-hardDisk"',
                  f'scsi0:{number}.fileName = "{disk}.vmdk"']
    (datastore / folder / f"{name}.vmx").write_text("\n".join([*lines, extra]) + "\n", encoding="utf-8")
    return f"{folder}/{name}.vmx"


def add_disk(folder: Path, name: str, size: int, *, data: Sequence[tuple[int, int]] | None = None, seed: int = 0,
             extent: str | None = None) -> None:
    """A descriptor and its flat file."""
    flat(folder / f"{name}-flat.vmdk", size, data=data, seed=seed)
    line = f'RW {size // 512} VMFS "{extent or name + "-flat.vmdk"}"'
    text = render(Descriptor(name=name, create_type="vmfs", extents=(line,), sectors=size // 512, cid=content_id(name)))
    (folder / f"{name}.vmdk").write_text(text, encoding="utf-8")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder: what must not change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*")) if path.is_file()}


def allocated(path: Path) -> int:
    """Bytes that a file takes."""
    return os.stat(path).st_blocks * 512
