"""Network cards: model, network, address."""

from __future__ import annotations

import re
from dataclasses import replace

from imgtool.descriptions.guest_os import safe_on_esxi
from imgtool.model.devices import Network, NetworkKind, Nic
from imgtool.model.machine import Machine
from imgtool.model.translation import Wishes, World
from imgtool.retarget.identity import esxi_mac
from imgtool.retarget.log import Log

BRIDGE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
"""Linux: IFNAMSIZ is 16 with the end; blanks and slashes are refused."""
ON_QEMU = ("virtio", "vmxnet3", "e1000e", "e1000", "pcnet", "rtl8139", "igb", "ne2k_pci")
ON_ESXI = ("vmxnet3", "e1000e", "e1000", "pcnet")
MAX_ON_ESXI = 10
"""VMware's configuration maximums: ethernet0 to ethernet9."""
USUAL_MTU = 1500
DEFAULT_NETWORK, DEFAULT_PORT_GROUP = "default", "VM Network"
"""What libvirt, and what ESXi, have after installation."""


def to_kvm(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """A driver that the guest has, and a network that this host may have."""
    nics = []
    for index, nic in enumerate(sorted(machine.nics, key=lambda nic: nic.number)):
        at = f"nics[{index}]"
        model, why = _kvm_model(machine, nic, wishes, log)
        new = replace(nic, model=log.change(f"{at}.model", nic.model, model, why), mac_kind=None, mac_check=None,
                      wake_on_lan=nic.wake_on_lan or None)
        if nic.mac_kind:
            log.change(f"{at}.mac_kind", nic.mac_kind, None, "the address is kept, whoever made it")
        if nic.mac is None:
            log.problem(f"{at}.mac: VMware had not made one yet", "libvirt makes one: DHCP reservations need it")
        nics.append(_connected(new, wishes, log, at))
    _unused(machine, wishes, log)
    return replace(machine, nics=tuple(nics))


def to_esxi(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """A card that the guest surely has a driver for; addresses of QEMU's range only pass with the check off."""
    nics = []
    for index, nic in enumerate(machine.nics):
        at = f"nics[{index}]"
        if index >= MAX_ON_ESXI:
            log.lost(at, nic.mac or nic.network.name or "card", f"a machine of VMware has {MAX_ON_ESXI} network cards at most",
                     "put several networks on one card, as VLANs")
            continue
        model, why = _esxi_model(machine, nic, wishes, log)
        kind, check = (nic.mac_kind, nic.mac_check) if nic.mac_kind else esxi_mac(nic)
        new = replace(nic, model=log.change(f"{at}.model", nic.model, model, why), mtu=None,
                      mac_kind=log.change(f"{at}.mac_kind", nic.mac_kind, kind, "by the range that it is from"),
                      mac_check=log.change(f"{at}.mac_check", nic.mac_check, check, "else VMware refuses a foreign address"))
        if nic.mtu and nic.mtu != USUAL_MTU:
            log.lost(f"{at}.mtu", nic.mtu, "the virtual switch sets it", "set the MTU of the vSwitch")
        nics.append(_connected(new, wishes, log, at))
    _unused(machine, wishes, log)
    return replace(machine, nics=tuple(nics))


def mapped(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """For a machine that stays in its world: only what the user maps."""
    nics = []
    for index, nic in enumerate(machine.nics):
        given = _given(nic.network, wishes)
        nics.append(_on(nic, given, wishes, log, f"nics[{index}]") if given else nic)
    _unused(machine, wishes, log)
    return replace(machine, nics=tuple(nics))


def _kvm_model(machine: Machine, nic: Nic, wishes: Wishes, log: Log) -> tuple[str, str]:
    if able := next((word for word in wishes.capabilities.nic_models if word in ON_QEMU), None):
        return able, "the best that the guest has a driver for"
    if nic.model in ON_QEMU:
        return nic.model, "QEMU emulates the card that the guest knows"
    safe = safe_on_esxi(machine.guest_os)[1]
    if nic.model is None:
        return safe, "not said: what such a guest surely knows"
    model = "pcnet" if nic.model in ("vmxnet", "vmxnet2") else safe
    log.problem(f"a {nic.model} network card, which QEMU does not have: {model} instead",
                "check the guest's network; imgtool adapt helps")
    return model, f"QEMU has no {nic.model}"


def _esxi_model(machine: Machine, nic: Nic, wishes: Wishes, log: Log) -> tuple[str, str]:
    if able := next((word for word in wishes.capabilities.nic_models if word in ON_ESXI), None):
        return able, "the best that the guest has a driver for"
    if nic.model in ON_ESXI:
        return nic.model, "as it was"
    safe = safe_on_esxi(machine.guest_os)[1]
    if nic.model:
        log.problem(f"a {nic.model} network card becomes {safe}: the guest may call it by another name",
                    "imgtool adapt keeps the guest's network settings")
    return safe, "what such a guest surely has a driver for"


def _given(network: Network, wishes: Wishes) -> Network | None:
    return next((new for old, new in wishes.networks if old in _names(network)), None)


def _names(network: Network) -> set[str]:
    """What a user may call it: its names; one that has none by its kind: ``nat``, ``none``."""
    return {name for name in (network.name, network.port_group, network.switch) if name} or {network.kind.value}


def _unused(machine: Machine, wishes: Wishes, log: Log) -> None:
    known = {name for nic in machine.nics for name in _names(nic.network)}
    for old, _ in wishes.networks:
        if old not in known:
            log.problem(f"--map-network {old}=…: no card of the machine is on {old}",
                        f"it has {', '.join(sorted(repr(name) for name in known)) or 'none with a name'}")


def _connected(nic: Nic, wishes: Wishes, log: Log, at: str) -> Nic:
    """The card on a network of the target."""
    if given := _given(nic.network, wishes):
        return _on(nic, given, wishes, log, at)
    new = _kvm_network(nic.network) if wishes.to is World.KVM else _esxi_network(nic.network)
    if new.name and new != nic.network:
        here, there = wishes.to, World.ESXI if wishes.to is World.KVM else World.KVM
        log.problem(f"{at}: {told(nic.network, there)} becomes {told(new, here)}",
                    f"check that it exists, or say --map-network '{nic.network.name or nic.network.port_group or 'NAME'}=…'")
    elif new.kind is NetworkKind.BRIDGE and nic.network.kind is NetworkKind.BRIDGE and wishes.to is World.KVM:
        log.problem(f"{at}: the port group {new.name!r} becomes a bridge of that name",
                    f"check that the host has it, or say --map-network '{new.name}=…'")
    connected = False if nic.network.kind is NetworkKind.NONE else nic.connected
    return replace(nic, network=log.change(f"{at}.network", nic.network, new, "nobody mapped it"),
                   connected=log.change(f"{at}.connected", nic.connected, connected, "it was on no network"))


def _on(nic: Nic, network: Network, wishes: Wishes, log: Log, at: str) -> Nic:
    """The card on the network that the user says; ``none`` pulls its cable out, since QEMU wants a network in any case."""
    why = "--map-network"
    log.change(f"{at}.network", nic.network, network, why)
    if network.kind is NetworkKind.NONE:
        return replace(nic, connected=log.change(f"{at}.connected", nic.connected, False, why),
                       network=_kvm_network(network) if wishes.to is World.KVM else _esxi_network(network))
    return replace(nic, network=network)


def _kvm_network(network: Network) -> Network:
    match network.kind:
        case NetworkKind.BRIDGE if network.name and BRIDGE_NAME.fullmatch(network.name):
            return Network(kind=NetworkKind.BRIDGE, name=network.name, vlan=network.vlan)
        case NetworkKind.NAT | NetworkKind.NONE:  # without a cable it need be none of the host's
            return Network(kind=NetworkKind.NAT)
        case NetworkKind.NETWORK:
            return network
        case _:
            return Network(kind=NetworkKind.NETWORK, name=DEFAULT_NETWORK)


def _esxi_network(network: Network) -> Network:
    """Names of bridges and networks of libvirt say nothing to an ESXi."""
    if network.kind in (NetworkKind.DISTRIBUTED, NetworkKind.OPAQUE):
        return network
    return Network(kind=NetworkKind.BRIDGE, name=DEFAULT_PORT_GROUP)


def told(network: Network, world: World) -> str:
    """A network for a person, in the words of a world."""
    name = network.name or network.port_group or network.switch
    kind = "port group" if world is World.ESXI and network.kind is NetworkKind.BRIDGE else network.kind.value
    return f"{kind} {name!r}" if name else kind
