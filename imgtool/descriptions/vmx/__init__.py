"""VMware's ``.vmx``: ``text`` (lines, escapes) → ``read*`` → Machine → ``write*`` → text; ``onto`` changes a file that exists.

Keys and fields are paired in ``keys``, which both directions use. ``neighbours`` are the files beside a ``.vmx``.
"""

from __future__ import annotations

from dataclasses import replace

from imgtool.descriptions.vmx.check import lost
from imgtool.descriptions.vmx.hardware import lowest_hardware
from imgtool.descriptions.vmx.keys import MACHINE
from imgtool.descriptions.vmx.neighbours import belongs_to, snapshots
from imgtool.descriptions.vmx.onto import rewritten, without_secrets
from imgtool.descriptions.vmx.read import parse
from imgtool.descriptions.vmx.text import statement, take_apart
from imgtool.descriptions.vmx.write import Setting, settings
from imgtool.descriptions.vmx.write_devices import devices
from imgtool.model.description import Rendered, Trace
from imgtool.model.machine import Machine

__all__ = ["HOLDS", "belongs_to", "lowest_hardware", "parse", "render", "snapshots", "without_secrets"]

HOLDS = frozenset(one.field for one in MACHINE) | frozenset({
    "genid", "guest_os.id", "guest_os.arch", "guest_os.word", "cpu.topology.sockets", "cpu.topology.cores", "memory.size",
    "tpm.version", "controllers.bus", "controllers.number", "controllers.model", "controllers.shared",
    "disks.path", "disks.bus", "disks.controller", "disks.unit", "disks.format", "disks.mode", "disks.cache", "disks.shared",
    "disks.rdm", "disks.boot_order", "disks.io_limit", "disks.shares", "disks.change_tracking",
    "drives.floppy", "drives.bus", "drives.controller", "drives.unit", "drives.backing", "drives.path", "drives.passthrough",
    "drives.connected",
    "nics.number", "nics.model", "nics.mac", "nics.mac_kind", "nics.mac_check", "nics.network.kind", "nics.network.name",
    "nics.network.port_group", "nics.network.switch", "nics.network.port", "nics.network.connection", "nics.network.device",
    "nics.connected", "nics.wake_on_lan", "nics.boot_order",
    "serials.number", "serials.kind", "serials.path", "serials.server", "serials.connected",
    "parallels.number", "parallels.kind", "parallels.path", "parallels.connected",
    "videos.model", "videos.memory", "videos.heads", "videos.accelerated",
    "graphics.kind", "graphics.listen", "graphics.port", "graphics.keymap", "sounds", "usb", "inputs",
    "passthrough.kind", "passthrough.address", "passthrough.name",
    "shared_folders.path", "shared_folders.tag", "shared_folders.read_only",
    "tools.scripts", "boot", "resources.cpu_shares", "resources.cpu_affinity", "resources.memory_shares",
})
"""Fields of Machine that a ``.vmx`` has a place for."""


def render(machine: Machine, *, onto: bytes | None = None) -> Rendered:
    """A ``.vmx`` that a stock ESXi powers on. Without a hardware version the machine gets the lowest that has what it needs.
    ``onto``: a ``.vmx`` in which only what must change is changed. Raises DamagedError, RefusedError: ``onto`` cannot be read."""
    if onto is None:
        lines = _settings(machine)
        text = "".join(f"{statement(one.key, one.value)}\n" for one in lines).encode()
    else:
        old = parse(onto).machine
        machine = machine if machine.hardware_version else replace(machine, hardware_version=old.hardware_version)
        lines = _settings(machine)
        text = rewritten(take_apart(onto), _settings(old), lines)
    trace = tuple(Trace(one.field, one.key, one.value) for one in lines if one.field)
    return Rendered(text=text, trace=trace, problems=lost(machine, parse(text).machine))


def _settings(machine: Machine) -> list[Setting]:
    return settings(machine, devices(machine))
