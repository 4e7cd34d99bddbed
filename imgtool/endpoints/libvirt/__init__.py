"""Machines of a libvirt host (QEMU/KVM), here or over ssh.

==============  ==============================================================
``connection``  libvirtd, here or through ssh
``inventory``   machines, networks, storage pools
``disks``       which image stands behind a domain's disk
``source``      the endpoint that is read from
``near``        its disks on this machine
``far``         its disks on a far one: qemu-nbd there, libnbd here
``target``      the endpoint that is written to, and this machine as one
``far_target``  a far machine as one; ``send``, ``compare``: its disks
``upload``      the same where there is no Python
``define``      machines made, named, started, removed
``watch``       a look at a machine that was started
``storage``     volumes through libvirt's streams, where nothing else goes
==============  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgtool.endpoints.libvirt.connection import Host
from imgtool.endpoints.libvirt.far_target import FarTarget
from imgtool.endpoints.libvirt.source import LibvirtSource
from imgtool.endpoints.libvirt.target import NearTarget

if TYPE_CHECKING:
    from imgtool.model.endpoint import Credentials, Uri
    from imgtool.progress import Stop


def source(uri: Uri, credentials: Credentials, stop: Stop) -> LibvirtSource:
    """Raises UsageError, MissingToolError, UnreachableError. Who we are is ssh's, or libvirt's, own business."""
    return LibvirtSource(Host(uri, stop))


def target(uri: Uri, credentials: Credentials, stop: Stop) -> NearTarget | FarTarget:
    """As ``source``."""
    host = Host(uri, stop)
    return FarTarget(host) if host.far else NearTarget(host)
