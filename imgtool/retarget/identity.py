"""Name, uuid, generation id, MAC addresses: kept, or all made anew for a clone."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from dataclasses import replace

from imgtool.model.devices import Nic
from imgtool.model.machine import Machine
from imgtool.model.translation import Wishes, World
from imgtool.retarget.log import Log

NO_NAME = re.compile(r"[/\x00-\x1f\x7f]")
"""libvirt makes a file of the name: no slash, no newline (virXMLCheckIllegalChars)."""
STATIC_LIMIT = 0x40
"""VMware takes 00:50:56:00:00:00 to 00:50:56:3f:ff:ff for addresses that a person gives."""

CHANCE = secrets.token_bytes(32)
"""Of this process."""


def identity(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """A name that the target can have; new identifiers if they are wished. Comes after the rules of the network cards."""
    name = wishes.name or machine.name
    if wishes.to is World.KVM:
        name = NO_NAME.sub("_", name).strip() or "machine"
        name = "_" if name in (".", "..") else name
        machine = replace(machine, vc_uuid=log.change("vc_uuid", machine.vc_uuid, None, "vCenter's own number for the machine"))
    machine = replace(machine, name=log.change("name", machine.name, name, "asked for" if wishes.name else
                                               "libvirt allows neither slashes nor control characters"))
    if machine.template:
        log.lost("template", True, "the description is one of a machine that starts",
                 "--new-identity for each machine made of it")
        machine = replace(machine, template=None)
    return _renewed(machine, wishes, log) if wishes.new_identity else machine


def _renewed(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    why = "--new-identity"
    draw = Draw(wishes.draw)
    new_uuid, new_genid = draw.uuid("uuid"), draw.uuid("genid") if machine.genid else None
    kind = "static" if wishes.to is World.ESXI else None
    nics = tuple(replace(nic, mac_kind=kind, mac_check=None,
                         mac=log.change(f"nics[{index}].mac", nic.mac, draw.mac(index, wishes.to), why))
                 for index, nic in enumerate(machine.nics))
    if nics:
        log.problem(f"new MAC addresses, drawn at random: {', '.join(str(nic.mac) for nic in nics)}",
                    "nobody asked your network whether they are free; DHCP reservations, and guests that name their old address, "
                    "need the new one")
    return replace(machine, uuid=log.change("uuid", machine.uuid, new_uuid, why), vc_uuid=None, nics=nics,
                   genid=log.change("genid", machine.genid, new_genid, why))


class Draw:
    """What is drawn by chance for one machine; with the same words, in the same process, the same."""

    def __init__(self, words: str | None) -> None:
        self._words = (words or "").encode("utf-8", "surrogateescape")
        self._key = secrets.token_bytes(32) if words is None else CHANCE

    def uuid(self, what: str) -> str:
        return str(uuid.UUID(bytes=self._bytes(what), version=4))

    def mac(self, number: int, to: World) -> str:
        """QEMU's prefix and 24 bits; of VMware's range for static addresses 22."""
        tail = bytearray(self._bytes(f"mac {number}")[:3])
        if to is World.ESXI:
            tail[0] %= STATIC_LIMIT
        return ("00:50:56:" if to is World.ESXI else "52:54:00:") + tail.hex(":")

    def _bytes(self, what: str) -> bytes:
        return hashlib.blake2b(what.encode() + b"\0" + self._words, key=self._key, digest_size=16).digest()


def esxi_mac(nic: Nic) -> tuple[str | None, bool | None]:
    """How a ``.vmx`` must call an address that is kept: kind, and whether VMware may check it.

    By range: 00:0c:29 VMware makes from the uuid; 00:50:56:00-3f is static; 00:50:56:80-bf is vCenter's. Any other is refused at
    power-on unless the check is off.
    """
    if nic.mac is None:
        return "generated", None
    if nic.mac.startswith("00:0c:29:"):
        return "generated", None
    if nic.mac.startswith("00:50:56:"):
        third = int(nic.mac[9:11], 16)
        if third < STATIC_LIMIT:
            return "static", None
        if 0x80 <= third <= 0xBF:
            return "vpx", None
    return "static", False
