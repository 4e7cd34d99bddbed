"""Configuration files of Linux guests: one of a phony guest is replaced by the input.

The first byte says which. Guests are looked at; one input of ``TURNS`` is adapted, too, in a guest that is made for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from imgtool.guests.linux import adapt, inspect
from imgtool.model.guest import AdaptRequest, Platform
from tests.phony import DISK, GUESTS, tree
from tools.fuzz.target import Reader, Target

NAMES = ("debian12", "rocky8", "sles15", "ubuntu2004", "alpine319", "rhel6", "arch", "centos7")
TURNS = 10
LARGEST = 4096
REQUEST = AdaptRequest(images=(), platform=Platform.KVM, nics=("52:54:00:00:00:01",))


def _files() -> list[tuple[str, str, bytes]]:
    """(guest, path, content) of all files of text."""
    found = []
    for name in NAMES:
        for block in ("\n" + (GUESTS / f"{name}.tree").read_text("utf-8")).split("\n@file ")[1:]:
            head, _, body = block.split("\n@")[0].partition("\n")
            found.append((name, head.strip(), body.encode()[:LARGEST - 1]))
    return found[:256]


def seeds(folder: Path) -> Iterator[bytes]:
    for number, (_, _, content) in enumerate(_files()):
        yield bytes([number]) + content


def reader(folder: Path) -> Reader:
    files = _files()
    guests = {name: tree(name, folder / name / "guest") for name in NAMES}

    def read(data: bytes) -> None:
        number = data[0] % len(files) if data else 0
        name, path, _ = files[number]
        guest = guests[name]
        try:
            guest.write(path, data[1:])
            inspect(guest, DISK)
            if crc32(data) % TURNS == 0:
                adapt(guest, DISK, REQUEST)
        finally:
            if crc32(data) % TURNS == 0:
                shutil.rmtree(folder / name)
                tree(name, guest.root)
            else:
                guest.write(path, files[number][2])

    return read


TARGET = Target(seeds, reader, largest=LARGEST, words=(
    b"UUID=", b"/dev/sda1", b"/dev/disk/by-", b"auto eth0\n", b"iface eth0 inet static\n", b"hwaddress ether ", b"HWADDR=",
    b"DEVICE=", b"ethernets:", b"match: {macaddress: ", b"[Match]\n", b"MACAddress=", b"00:50:56:aa:bb:cc", b"menuentry '",
    b"linux /boot/vmlinuz root=/dev/sda1", b"root=", b"resume=", b"&a", b"*a", b"!!python/object:", b"ATTR{address}==",
    b"NAME=\"", b"\\\n", b"${", b"\xff\xfe"))
