"""Volumes of a storage pool: made, filled through libvirt's streams, read back, removed. Source: libvirt's storage XML format.

A stream carries the *file's* bytes: for a qcow2 volume a qcow2 file is sent. Holes stay holes (sparse streams).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from imgtool import storage
from imgtool.progress import Bar, Control

if TYPE_CHECKING:
    import libvirt


def volume_xml(name: str, capacity: int, kind: str, *, thick: bool = False) -> str:
    """``capacity`` in bytes; ``kind``: raw, qcow2, vmdk."""
    from lxml import etree

    root = etree.Element("volume")
    for tag, text in (("name", name), ("capacity", str(capacity)), ("allocation", str(capacity if thick else 0))):
        etree.SubElement(root, tag, {} if tag == "name" else {"unit": "bytes"}).text = text
    etree.SubElement(etree.SubElement(root, "target"), "format", {"type": kind})
    return etree.tostring(root, encoding="unicode")


@contextmanager
def new_volume(pool: libvirt.virStoragePool, name: str, capacity: int, kind: str, *, thick: bool = False) -> Iterator[Any]:
    """A volume that is removed again where the block fails."""
    import libvirt

    volume = pool.createXML(volume_xml(name, capacity, kind, thick=thick), 0)
    try:
        yield volume
    except BaseException:
        with suppress(libvirt.libvirtError):
            volume.delete(0)
        raise


def upload(connection: libvirt.virConnect, volume: Any, file: IO[bytes], control: Control) -> int:
    """Sends a file, holes as holes. The bytes of data that were sent."""
    import libvirt

    size = os.fstat(file.fileno()).st_size
    stream = connection.newStream(0)
    volume.upload(stream, 0, size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    with control.progress.bar(size, f"sending {volume.name()}") as bar:
        sender = _Sender(file, size, bar, control)
        try:
            stream.sparseSendAll(sender.data, sender.hole, sender.skip, None)
            stream.finish()
        except BaseException:
            with suppress(libvirt.libvirtError):
                stream.abort()
            raise
    return sender.sent


class _Sender:
    """The three call-backs of virStreamSparseSendAll. An exception in one aborts the stream."""

    def __init__(self, file: IO[bytes], size: int, bar: Bar, control: Control) -> None:
        self.fd, self.size, self.bar, self.control = file.fileno(), size, bar, control
        self.at = self.sent = 0

    def data(self, _stream: Any, count: int, _opaque: object) -> bytes:
        self.control.stop.check()
        self.control.rate.take(count, self.control.stop)
        piece = os.pread(self.fd, count, self.at)
        self._forward(len(piece))
        self.sent += len(piece)
        return piece

    def hole(self, _stream: Any, _opaque: object) -> tuple[bool, int]:
        """(in data, how far to the end of that)."""
        if self.at >= self.size:
            return False, 0
        piece = next(storage.pieces(self.fd, self.at, self.size))
        return piece.data, piece.length

    def skip(self, _stream: Any, count: int, _opaque: object) -> int:
        self.control.stop.check()
        self._forward(count)
        return 0

    def _forward(self, count: int) -> None:
        self.at += count
        self.bar.update(count)


def download(connection: libvirt.virConnect, volume: Any, file: IO[bytes], control: Control) -> int:
    """Reads a volume's file into ``file`` (empty), holes as holes. The bytes of data that came."""
    import libvirt

    stream = connection.newStream(0)
    volume.download(stream, 0, 0, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
    came = 0

    def data(_stream: Any, piece: bytes, _opaque: object) -> int:
        nonlocal came
        control.stop.check()
        control.rate.take(len(piece), control.stop)
        came += len(piece)
        return file.write(piece)

    def hole(_stream: Any, count: int, _opaque: object) -> int:
        file.seek(count, os.SEEK_CUR)
        return 0

    try:
        stream.sparseRecvAll(data, hole, None)
        stream.finish()
    except BaseException:
        with suppress(libvirt.libvirtError):
            stream.abort()
        raise
    file.truncate(file.tell())
    return came
