"""Domains for the tests, as XML."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr


def disk(path: str | Path, *, form: str = "qcow2", device: str = "vda", inner: str = "") -> str:
    return (f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file={quoteattr(str(path))}/>"
            f"<target dev='{device}' bus='virtio'/>{inner}</disk>")


def domain(name: str, *devices: str, uuid: str | None = None, uefi: bool = False) -> str:
    """Small, emulated; it would not boot anything."""
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    firmware = " firmware='efi'" if uefi else ""
    return (f"<domain type='qemu'><name>{escape(name)}</name>{identity}<memory unit='MiB'>128</memory><vcpu>1</vcpu>"
            f"<os{firmware}><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>"
            f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{''.join(devices)}"
            "<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>")


NIC = "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>"
CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
SCREEN = "<graphics type='vnc' port='-1' autoport='yes'/><video><model type='vga'/></video>"
