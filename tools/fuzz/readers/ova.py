"""OVA: a tar archive; its description, its manifest, its disks where they lie."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from imgtool.descriptions import ovf
from imgtool.ova.disks import open_file
from imgtool.ova.manifest import check_manifest
from imgtool.ova.read import read_ova
from imgtool.progress import Control, Stop
from tools.fuzz.target import Reader, Target

ENVELOPE = (b'<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">'
            b'<References><File ovf:href="d.raw" ovf:id="f"/></References><DiskSection><Info/>'
            b'<Disk ovf:diskId="d" ovf:capacity="512" ovf:fileRef="f"/></DiskSection>'
            b'<VirtualSystem ovf:id="x"><Info/></VirtualSystem></Envelope>')
MEMBERS = {"x.ovf": ENVELOPE, "x.mf": b"SHA1(d.raw)= 5c3eb80066420002bc3dcc7ca4ab6efad7ed4ae5\n", "d.raw": bytes(512)}
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def seeds(folder: Path) -> Iterator[bytes]:
    for form in FORMATS:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(data), {"comment": "x" * 120}
                archive.addfile(info, io.BytesIO(data))
        yield packed.getvalue()[:7 << 10]


def reader(folder: Path) -> Reader:
    path = folder / "x.ova"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        package = read_ova(str(path))
        for reference in ovf.files(package.text):
            with open_file(package, reference, str(folder), Stop()) as disk:
                assert sum(extent.length for extent in disk.content()) == disk.virtual_size
        check_manifest(package, Control())

    return read


TARGET = Target(seeds, reader, (b"ustar\0", b"ustar  \0", b"././@LongLink", b"GNU.sparse.map=", b"GNU.sparse.major=1\n", b"x.ovf",
                                b"path=", b"size=", b"../", b"ovf:compression=\"gzip\"", b"ovf:chunkSize=\"1\"", b"\x1f\x8b\x08",
                                b"S", b"L", b"K", b"x", b"g", b"\x80\0\0\0\0\0\0\0"), largest=12 << 10)
