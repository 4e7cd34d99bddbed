"""libvirt's domain XML: read, changed in place, and translated."""

from __future__ import annotations

from tools.fuzz.descriptions import described
from tools.fuzz.target import Target

TARGET: Target = described(".xml", words=(
    b"<domain", b"<disk type='file'", b"<source file='x'/>", b"<target dev='vda' bus='virtio'/>", b"<driver name='qemu'",
    b"<interface type=", b"<mac address=", b"<controller type='scsi'", b"<hostdev mode='subsystem'", b"<memory unit='GiB'>",
    b"<vcpu>", b"<os firmware='efi'>", b"<loader secure='yes'", b"<cpu mode='custom'>", b"<topology", b"<metadata>", b"<graphics",
    b"<!DOCTYPE x", b"<!ENTITY", b"&#x", b"<![CDATA[", b"<?xml version='1.0' encoding='", b"utf-16", b"xmlns:a='b'",
    b"99999999999999999999", b"-1", b"<serial type=", b"<tpm", b"<filesystem", b"<address type='drive'"))
