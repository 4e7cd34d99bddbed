"""Which fields of a Machine an OVF has a place for, and what to do about the others."""

from __future__ import annotations

from collections.abc import Iterator

from imgtool.descriptions.fields import losses
from imgtool.descriptions.guest_os import from_vmware, to_vmware_api
from imgtool.descriptions.ovf import words
from imgtool.descriptions.ovf.hardware import network_name
from imgtool.model.devices import Network, NetworkKind
from imgtool.model.machine import GuestOs, Machine
from imgtool.model.problem import Problem

HOLDS = frozenset({
    "name", "description", "guest_os.id", "guest_os.arch", "guest_os.release", "guest_os.word",
    "cpu.count", "cpu.topology.sockets", "cpu.topology.cores", "cpu.hot_add", "cpu.hot_remove", "cpu.nested",
    "memory.size", "memory.hot_add", "firmware.kind", "firmware.secure_boot", "tpm.version", "hardware_version",
    "controllers.bus", "controllers.number", "controllers.model",
    *(f"disks.{name}" for name in ("path", "bus", "controller", "unit", "backing", "format", "capacity", "populated")),
    *(f"drives.{name}" for name in ("floppy", "bus", "controller", "unit", "backing", "path", "passthrough", "connected")),
    *(f"nics.{name}" for name in ("number", "model", "mac", "network.kind", "network.name", "connected", "wake_on_lan")),
    *(f"{kind}.{name}" for kind in ("serials", "parallels") for name in ("number", "kind", "path", "connected")),
    *(f"videos.{name}" for name in ("model", "memory", "heads", "accelerated")), "sounds", "usb",
    "tools.sync_time", "tools.upgrade", "tools.scripts", "boot",
    *(f"resources.{name}" for name in ("cpu_shares", "cpu_reservation", "cpu_limit", "memory_shares", "memory_reservation",
                                       "memory_limit")),
})
HINTS = {
    "uuid": "the host that imports the package makes a new one", "vc_uuid": "vCenter makes a new one",
    "genid": "the host that imports the package makes a new one", "firmware.nvram": "boot entries are made anew",
    "nics.network.vlan": "a port group has its VLAN: choose it when the package is deployed",
    "nics.mac_kind": "the address itself is written", "accelerator": "VMware's hosts run machines in hardware always",
    "chipset": "VMware's hosts have one chipset", "disks.rdm": "the disk's content is in the package, not the mapping",
    "disks.boot_order": "the order of kinds of device is written; choose the disk at the target",
    "snapshots": "an OVF has the present state only",
}


def problems(machine: Machine) -> tuple[Problem, ...]:
    """What of a machine an OVF does not say."""
    return (*losses(machine, HOLDS, where="OVF", hints=HINTS), *_values(machine))


def _values(machine: Machine) -> Iterator[Problem]:
    """Fields that an OVF has, with values that it has not."""
    topology = machine.cpu.topology
    yield from _guest_os(machine.guest_os, machine.hardware_version)
    if topology and topology.sockets * topology.cores != machine.cpu.count:
        yield Problem(what=f"{topology.sockets} sockets of {topology.cores} cores are not {machine.cpu.count} processors",
                      hint="an OVF says the processors that are on, and the cores of a socket")
    if machine.tpm and machine.tpm.version not in (None, "2.0"):
        yield Problem(what=f"tpm.version = {machine.tpm.version}: a package has TPM 2.0 only")
    for index, disk in enumerate(machine.disks):
        if disk.format not in (None, *words.FORMATS):
            yield Problem(what=f"disks[{index}].format = {disk.format}: OVF has no name for it",
                          hint="streamOptimized VMDK is usual")
        if disk.capacity is None:
            yield Problem(what=f"disks[{index}]: how large it is was not said, and the package does not say it")
    for index, nic in enumerate(machine.nics):
        yield from _network(f"nics[{index}].network", nic.network)
    for where, ports in (("serials", machine.serials), ("parallels", machine.parallels)):
        for index, port in enumerate(ports):
            if port.kind not in words.PORT_KINDS:
                yield Problem(what=f"{where}[{index}].kind = {port.kind}: written as a device of the host",
                              hint="connect the port at the target")


def _guest_os(os: GuestOs, hardware_version: int | None) -> Iterator[Problem]:
    """A package has VMware's words, and says the architecture by them."""
    word = to_vmware_api(os, hardware_version)
    written = from_vmware(word)
    if os.word and written.word != os.word:
        yield Problem(what=f"guest_os.word = {os.word}: an OVF has VMware's words only", hint=f"{word!r} is written")
    if written.arch != os.arch:
        yield Problem(what=f"guest_os.arch = {os.arch}: an OVF says it by the guest's word only", hint=f"{word!r} is written")
    if not os.word and written.id != os.id:
        yield Problem(what=f"guest_os.id = {os.id}: hardware version {hardware_version} has no word for it",
                      hint=f"{word!r} is written; a later version may know it")


def _network(where: str, network: Network) -> Iterator[Problem]:
    if network.kind not in (NetworkKind.BRIDGE, NetworkKind.NONE, NetworkKind.NAT, NetworkKind.HOST_ONLY):
        yield Problem(what=f"{where}.kind = {network.kind}: an OVF has names of networks only")
    elif network.name not in (None, network_name(network)):
        yield Problem(what=f"{where}.name = {network.name}: written as {network_name(network)!r}")
    elif network.kind is NetworkKind.BRIDGE and network.name is None:
        yield Problem(what=f"{where}.kind = bridge: without a name it is on no network", hint="--map-network")
