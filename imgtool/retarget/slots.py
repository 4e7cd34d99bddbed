"""Where disks and drives are plugged in: controllers of each model, and how much goes onto one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from imgtool.model.devices import Bus, Controller


class Room(NamedTuple):
    units: tuple[int, ...]
    """Places on one controller."""
    controllers: int


SCSI_ESXI = (*range(7), *range(8, 16))
"""Unit 7 is the controller itself."""
IDE = Room((0, 1), 2)
ESXI: Mapping[Bus, Room] = {Bus.SCSI: Room(SCSI_ESXI, 4), Bus.SATA: Room(tuple(range(30)), 4),
                            Bus.NVME: Room(tuple(range(15)), 4), Bus.IDE: IDE}
"""VMware's tables of configuration maximums, hardware version 10 to 21."""
KVM: Mapping[Bus, Room] = {Bus.SCSI: Room(tuple(range(15)), 16), Bus.SATA: Room(tuple(range(6)), 8), Bus.IDE: IDE,
                           Bus.VIRTIO: Room(tuple(range(64)), 1), Bus.USB: Room(tuple(range(8)), 1)}
"""SATA: the ports of QEMU's AHCI. VirtIO disks have no controller: each is a PCI device."""
NARROW = ("lsilogic", "lsisas1068", "ncr53c90", "dc390")
"""Models of QEMU with seven places, their own not counted (hw/scsi: LSI_MAX_DEVS, ESP_MAX_DEVS, MPTSAS_NUM_PORTS)."""
WITHOUT_CONTROLLER = (Bus.IDE, Bus.VIRTIO, Bus.USB)
"""Their controllers are part of the machine, or of the disk."""


@dataclass
class Slots:
    """Gives places, in order."""

    rooms: Mapping[Bus, Room]
    controllers: list[Controller] = field(default_factory=list)
    _used: dict[tuple[Bus, int], int] = field(default_factory=dict)

    def take(self, bus: Bus, model: str | None = None) -> tuple[int, int] | None:
        """Number of a controller of this model, and a unit on it; None if all are full."""
        room = self.rooms.get(bus)
        if room is None:
            return None
        units = room.units[:7] if self.rooms is KVM and model in NARROW else room.units
        for one in self.controllers:
            used = self._used[bus, one.number] if one.bus is bus and one.model == model else len(units)
            if used < len(units):
                self._used[bus, one.number] = used + 1
                return one.number, units[used]
        number = sum(one.bus is bus for one in self.controllers)
        if number == room.controllers:
            return None
        self.controllers.append(Controller(bus=bus, number=number, model=model))
        self._used[bus, number] = 1
        return number, units[0]

    def described(self) -> tuple[Controller, ...]:
        """The controllers that a description lists, by bus and number."""
        listed = (one for one in self.controllers if one.bus not in WITHOUT_CONTROLLER)
        return tuple(sorted(listed, key=lambda one: (list(Bus).index(one.bus), one.number)))
