"""NFS datastores that this host has mounted as well: read in place, nothing is sent."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from imgtool.endpoints.vsphere import properties
from imgtool.endpoints.vsphere.folder import StorePath
from imgtool.endpoints.vsphere.login import Session
from imgtool.model.endpoint import RemoteDisk

MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def local(session: Session, disk: RemoteDisk, descriptor: bytes) -> str | None:
    """The path here of a disk's descriptor on an NFS datastore; None unless it is there, with the same bytes."""
    share = _share(session, disk)
    if share is None:
        return None
    below = StorePath.parse(disk.path).path
    for root in roots(*share, MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")):
        path = os.path.join(root, below)
        try:
            if os.path.realpath(path).startswith(os.path.realpath(root) + os.sep) and Path(path).read_bytes() == descriptor:
                return path
        except OSError:
            continue
    return None


def _share(session: Session, disk: RemoteDisk) -> tuple[str, str] | None:
    """(host, path) of the export behind a disk's datastore."""
    if not disk.datastore_kind.upper().startswith("NFS"):
        return None
    for seen in properties.all_of(session, "Datastore", ("summary.name", "info"), "reading the datastores").values():
        nas = getattr(seen.get("info"), "nas", None)
        if nas is not None and seen.get("summary.name") == disk.datastore:
            return str(nas.remoteHost or ""), str(nas.remotePath or "")
    return None


def roots(host: str, path: str, mountinfo: str) -> list[str]:
    """Folders of this host that are ``path`` of the NFS server ``host``. Source: proc(5), /proc/pid/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        words, _, rest = line.partition(" - ")
        kind, source, *_ = [*rest.split(" "), "", ""]
        if kind not in ("nfs", "nfs4") or ":/" not in source:
            continue
        server, _, exported = _decoded(source).partition(":/")
        _, _, _, inside, point, *_ = words.split(" ")
        exported = _plain(exported + "/" + _decoded(inside))
        wanted = _plain(path)
        if _same_host(server, host) and (wanted == exported or wanted.startswith(exported.rstrip("/") + "/")):
            found.append(os.path.normpath(os.path.join(_decoded(point), os.path.relpath(wanted, exported))))
    return found


def _plain(path: str) -> str:
    """Absolute, without doubled slashes (normpath keeps two in front)."""
    return os.path.normpath("/" + path.strip("/"))


def _decoded(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _same_host(one: str, other: str) -> bool:
    return one == other or bool(_addresses(one.strip("[]")) & _addresses(other.strip("[]")))


def _addresses(name: str) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(name, None)}
    except OSError:
        return set()
