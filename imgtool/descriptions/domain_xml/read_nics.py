"""``<interface>``: network cards, and what they are plugged into."""

from __future__ import annotations

import re

from imgtool.descriptions.domain_xml.document import Node
from imgtool.descriptions.domain_xml.words import NETWORKS, NICS, VMWARE
from imgtool.model.devices import Network, NetworkKind, Nic

OTHER = {"hostdev": "a network card of the host, passed through (SR-IOV)", "vhostuser": "a switch behind a socket (DPDK)",
         "vdpa": "a network card of the host (vDPA)", "internal": "a network of the host's hypervisor"}
"""Types without a counterpart."""
VDS = (("switch", "switch"), ("portgroup", "port_group"), ("port", "port"), ("connection", "connection"))
"""A port of vCenter's distributed switch: our names of its ids."""
OWN_NAMES = re.compile(r"(vnet|macvtap|macvlan|vif)\d+(\.\d+)?(-emu)?")
"""Of the host's end, chosen anew at each start."""
KILOBYTES = 8000
"""Bits of libvirt's unit of bandwidth, which is tc's kilobyte."""
MAX_MTU, MAX_VLAN, MAX_ORDER = 65535, 4095, 1 << 16
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def nics(devices: Node, hypervisor: str) -> tuple[Nic, ...]:
    """In the order of the document."""
    found = enumerate(devices.children("interface"))
    return tuple(_nic(node.of(f"nics[{number}]"), number, hypervisor) for number, node in found)


def _nic(node: Node, number: int, hypervisor: str) -> Nic:
    model = node.get("model/@type", "model")
    if model in NICS and model != "vlance":
        node.problem(f"model {model} becomes {NICS[model]}")
    state = node.get("link/@state", "connected")
    return Nic(
        number=number, model=NICS.get(model, model) if model else None, mac=_mac(node), mac_kind=_mac_kind(node),
        mac_check=node.yes("mac/@check", "mac_check"), network=_network(node, hypervisor),
        connected=None if state is None else state == "up",
        boot_order=node.number("boot/@order", "boot_order", low=1, high=MAX_ORDER),
        mtu=node.number("mtu/@size", "mtu", high=MAX_MTU), limit=_limit(node))


def _mac(node: Node) -> str | None:
    mac = node.get("mac/@address", "mac")
    if mac and not MAC.fullmatch(mac.lower().replace("-", ":")):
        node.problem(f"{mac!r} is no MAC address: not carried over")
        return None
    return mac.lower().replace("-", ":") if mac else None


def _mac_kind(node: Node) -> str | None:
    """libvirt's ESX driver says ``generated`` for vCenter's addresses too."""
    return node.get("mac/@type", "mac_kind")


def _network(node: Node, hypervisor: str) -> Network:
    kind = node.get("@type", "network.kind") or ""
    virtual_port = node.get("virtualport/@type", "network.virtual_port")
    vlan = _vlan(node)
    if kind not in NETWORKS:
        node.problem(f"{OTHER.get(kind, f'type {kind}')}: the card is kept, connected to nothing",
                     "choose a network for it: --map-network", fatal=False)
        for name in ("source", "target", "driver"):
            if part := node.child(name):
                part.skip()
        return Network(kind=NetworkKind.NONE, virtual_port=virtual_port, vlan=vlan)
    if kind == "vds":
        switch, group, port, connection = (node.get(f"source/@{name}id", f"network.{field}") for name, field in VDS)
        return Network(kind=NetworkKind.DISTRIBUTED, switch=switch, port_group=group, port=port, connection=connection)
    device = _device(node)
    known = NETWORKS[kind]
    if hypervisor == VMWARE and known is NetworkKind.BRIDGE and device:
        known = NetworkKind.CUSTOM
    source = {"bridge": "source/@bridge", "network": "source/@network", "direct": "source/@dev"}.get(kind)
    if kind == "network":
        node.get("source/@bridge")
    return Network(kind=known, name=node.get(source, "network.name") if source else None,
                   port_group=node.get("source/@portgroup", "network.port_group"), device=device,
                   virtual_port=virtual_port, vlan=vlan)


def _device(node: Node) -> str | None:
    name = node.get("target/@dev")
    if name is None or OWN_NAMES.fullmatch(name):
        return None
    return node.get("target/@dev", "network.device")


def _vlan(node: Node) -> int | None:
    tags = node.child("vlan")
    if tags is None:
        return None
    found = tags.children("tag")
    if tags.get("@trunk") == "yes" or len(found) != 1:
        tags.problem(f"a trunk of {len(found)} VLANs: not carried over", "give the card a trunk at the target")
        tags.skip()
        return None
    return found[0].number("@id", "network.vlan", high=MAX_VLAN)


def _limit(node: Node) -> int | None:
    """Only a limit that is the same both ways has a field."""
    both = [one.get("average") for way in ("inbound", "outbound") for one in node.element.findall(f"bandwidth/{way}")]
    if len(both) != 2 or both[0] is None or both[0] != both[1]:
        return None
    node.get("bandwidth/inbound/@average")
    average = node.number("bandwidth/outbound/@average", "limit")
    return average * KILOBYTES if average else None
