"""What an OVF does not carry into a machine, set afterwards: its uuid, the addresses of its cards, firmware, topology."""

from __future__ import annotations

from typing import Any

from imgtool.endpoints.vsphere import properties, tasks
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import ImgtoolError
from imgtool.model.devices import Nic
from imgtool.model.machine import FirmwareKind, Machine
from imgtool.progress import Stop

FIRMWARE = {FirmwareKind.BIOS: "bios", FirmwareKind.UEFI: "efi"}


def reconfigure(session: Session, machine: str, made: Machine, stop: Stop) -> None:
    """Raises ImgtoolError."""
    seen = properties.of(session, ("VirtualMachine", machine), ("config.hardware.device",), "looking at the new machine")
    cards = sorted((one for one in seen.get("config.hardware.device", ()) if hasattr(one, "macAddress")), key=lambda one: one.key)
    nics = sorted(made.nics, key=lambda nic: nic.number)
    if len(cards) != len(nics):
        raise ImgtoolError(f"{session.account.host} made {len(cards)} network cards of {len(nics)}",
                           "is there a model among them that this host does not know?")

    def begin(stub: Any) -> Any:
        spec = _spec(made, list(zip(cards, nics, strict=True)))
        return properties.bound(("VirtualMachine", machine), stub).ReconfigVM_Task(spec)

    tasks.run(session, f"setting up {made.name}", begin, stop)


def _spec(made: Machine, cards: list[tuple[Any, Nic]]) -> Any:
    from pyVmomi import vim

    spec = vim.vm.ConfigSpec(uuid=made.uuid, firmware=FIRMWARE[made.firmware.kind], cpuHotAddEnabled=made.cpu.hot_add,
                             memoryHotAddEnabled=made.memory.hot_add, nestedHVEnabled=made.cpu.nested)
    if made.cpu.topology:
        spec.numCoresPerSocket = made.cpu.topology.cores
    if made.firmware.secure_boot is not None:
        spec.bootOptions = vim.vm.BootOptions(efiSecureBootEnabled=made.firmware.secure_boot)
    spec.deviceChange = [_card(device, nic) for device, nic in cards if nic.mac]
    spec.extraConfig = [vim.option.OptionValue(key=f"ethernet{nic.number}.checkMACAddress", value="FALSE")
                        for _, nic in cards if nic.mac and nic.mac_check is False]
    return spec


def _card(device: Any, nic: Nic) -> Any:
    from pyVmomi import vim

    device.addressType, device.macAddress = "manual", nic.mac
    return vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)


def newest(session: Session, pool: str) -> tuple[int | None, bool]:
    """(the newest virtual hardware that can be made there, whether all its hosts are in maintenance mode)."""
    owner = properties.of(session, ("ResourcePool", pool), ("owner",), "asking the resource pool").get("owner")
    if owner is None:
        return None, False
    seen = properties.of(session, owner, ("environmentBrowser", "host"), "asking the compute resource")
    hosts = properties.of_all(session, list(seen.get("host") or ()), ("runtime.inMaintenanceMode",), "asking the hosts")
    resting = bool(hosts) and all(each.get("runtime.inMaintenanceMode") for each in hosts.values())
    browser = seen.get("environmentBrowser")
    if browser is None:
        return None, resting
    known = session.call("asking which hardware there is", lambda stub: list(
        properties.bound(browser, stub).QueryConfigOptionDescriptor() or ()))
    versions = [int(one.key.removeprefix("vmx-")) for one in known
                if one.createSupported is not False and str(one.key).removeprefix("vmx-").isdecimal()]
    return max(versions, default=None), resting
