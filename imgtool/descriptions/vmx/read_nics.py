"""Network cards of a ``.vmx``."""

from __future__ import annotations

from typing import Any

from imgtool.descriptions.vmx.keys import ADDRESS, DISTRIBUTED, MAC_KEYS, NIC, OPAQUE
from imgtool.descriptions.vmx.settings import Settings, shown
from imgtool.descriptions.vmx.values import SAID
from imgtool.model.devices import Network, NetworkKind, Nic

EVIDENCE = ("virtualDev", "connectionType", "networkName", "vnet", "dvs.switchId", "dvs.portgroupId", "opaqueNetwork.id")
CONNECTIONS = {
    "bridged": NetworkKind.BRIDGE, "bridge": NetworkKind.BRIDGE, "monitor_dev": NetworkKind.BRIDGE, "nat": NetworkKind.NAT,
    "hostonly": NetworkKind.HOST_ONLY, "custom": NetworkKind.CUSTOM, "pvn": NetworkKind.CUSTOM, "none": NetworkKind.NONE,
}
LAN_SEGMENT = "pvn:"
"""Before the id of Workstation's LAN segment, in ``Network.device``."""
VMXNET2_FEATURES = "15"
OPAQUE_TYPE = "nsx.logicalswitch"


def read_nics(settings: Settings) -> list[Nic]:
    """The cards that are there, by number; gaps stay."""
    found: list[Nic] = []
    for match, head in settings.numbered(r"ethernet(\d{1,4})"):
        if settings.present(head, *EVIDENCE):
            found.append(_nic(settings, head, int(match[1]), f"nics[{len(found)}]"))
    return found


def _nic(settings: Settings, head: str, number: int, where: str) -> Nic:
    fields = settings.all(head, NIC, where)
    if settings.get(f"{head}.features") == VMXNET2_FEATURES and fields.get("model") == "vmxnet":
        fields["model"] = "vmxnet2"
    return Nic(number=number, **fields, **_address(settings, head, where), network=_network(settings, head, f"{where}.network"))


def _address(settings: Settings, head: str, where: str) -> dict[str, Any]:
    """The MAC address and who gave it. Without ``addressType`` it is generated, unless the file only has ``address``."""
    kind = (settings.get(f"{head}.addressType") or "").lower()
    given = {key: settings.get(f"{head}.{key}") for key in ("address", "generatedAddress")}
    if kind and kind not in MAC_KEYS:
        settings.odd(f"{head}.addressType = {shown(kind)}: not static, generated or vpx", hint="check the card's MAC address")
    if kind not in MAC_KEYS:
        kind = "static" if given["address"] and not given["generatedAddress"] else "generated"
    key = MAC_KEYS[kind]
    mac = settings.take(f"{head}.{key}", f"{where}.mac", ADDRESS.codec)
    settings.note(f"{where}.mac_kind", f"{head}.addressType", kind)
    return {"mac": mac, "mac_kind": kind}


def _network(settings: Settings, head: str, where: str) -> Network:
    name = settings.take(f"{head}.networkName", f"{where}.name", SAID)
    for kind, keys in ((NetworkKind.DISTRIBUTED, DISTRIBUTED), (NetworkKind.OPAQUE, OPAQUE)):
        fields = settings.all(head, keys, where)
        if fields and (kind is NetworkKind.DISTRIBUTED or "switch" in fields):
            _opaque_type(settings, head)
            return Network(kind=kind, name=name, **fields)
    word = (settings.get(f"{head}.connectionType") or "").lower()
    if word and word not in CONNECTIONS:
        settings.odd(f"{head}.connectionType = {shown(word)}: no kind of connection that is known")
    kind = CONNECTIONS.get(word, NetworkKind.BRIDGE if name else NetworkKind.NONE)
    if word:
        settings.note(f"{where}.kind", f"{head}.connectionType", word)
    device = settings.take(f"{head}.vnet", f"{where}.device", SAID)
    if word == "pvn" and (segment := settings.take(f"{head}.pvnID", f"{where}.device", SAID)):
        device = LAN_SEGMENT + segment
    return Network(kind=kind, name=name, device=device)


def _opaque_type(settings: Settings, head: str) -> None:
    kind = settings.get(f"{head}.opaqueNetwork.type")
    if kind and kind.lower() != OPAQUE_TYPE:
        settings.odd(f"{head}.opaqueNetwork.type = {shown(kind)}: not carried")
