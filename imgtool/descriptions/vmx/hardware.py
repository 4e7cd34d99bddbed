"""VMware's hardware versions: which one a machine needs.

4 is ESX 3.5, 7 is 4.0, 8 is 5.0, 9 is 5.1, 10 is 5.5, 11 is 6.0, 13 is 6.5, 14 is 6.7, 17 is 7.0, 20 is 8.0.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.model.devices import Bus
from imgtool.model.machine import FirmwareKind, Machine

LOWEST = 7
"""The first with PCI Express, which vmxnet3, pvscsi and lsisas1068 sit on; every ESXi since 4.0 runs it."""
GIB = 1 << 30
CPUS = ((8, 7), (32, 8), (64, 9), (128, 11), (256, 15), (768, 18))
"""(virtual CPUs at most, hardware version)."""
MEMORY = ((255 * GIB, 7), (1011 * GIB, 8), (4080 * GIB, 11), (6128 * GIB, 13), (24560 * GIB, 18))
SCSI_UNITS, NVME_UNITS = 16, 15
"""Of one controller, before versions 13 and 21."""
NEWEST = 21


def lowest_hardware(machine: Machine) -> int:
    """The lowest hardware version that has all that a machine needs, so that most hosts can run it."""
    return max([LOWEST, *_needs(machine)])


def _needs(machine: Machine) -> Iterator[int]:
    yield next((version for most, version in CPUS if machine.cpu.count <= most), NEWEST)
    yield next((version for most, version in MEMORY if machine.memory.size <= most), NEWEST)
    if machine.firmware.kind is FirmwareKind.UEFI:
        yield 13 if machine.firmware.secure_boot else 8
    if machine.tpm:
        yield 14
    if machine.cpu.nested:
        yield 9
    if "xhci" in machine.usb or "hda" in machine.sounds:
        yield 8
    if any(nic.model == "e1000e" for nic in machine.nics):
        yield 8
    places = [*((one.bus, 0) for one in machine.controllers), *((one.bus, one.unit) for one in machine.disks),
              *((one.bus, one.unit) for one in machine.drives)]
    for bus, unit in places:
        if bus is Bus.SATA:
            yield 10
        elif bus is Bus.NVME:
            yield 13 if unit < NVME_UNITS else NEWEST
        elif bus is Bus.SCSI and unit >= SCSI_UNITS:
            yield 13
