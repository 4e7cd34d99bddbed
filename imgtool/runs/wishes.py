"""What the words of a command line or a runbook mean, where both say them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imgtool.errors import UsageError
from imgtool.suffixes import DESCRIPTIONS, is_archive, suffix_of

if TYPE_CHECKING:
    from imgtool.model import ImageSpec
    from imgtool.model.devices import Network

SIDES = {"qcow2": ".xml", "raw": ".xml", "vmdk": ".vmx"}
"""Format of the disks → the description of those who can use it."""


def network(text: str) -> Network:
    """``br0`` and ``bridge:br0`` are a bridge or a port group, ``network:prod`` a network of libvirt, ``nat`` is QEMU's own."""
    from imgtool.model.devices import Network, NetworkKind

    kind, colon, name = text.partition(":")
    if text in ("none", "nat"):
        return Network(kind=NetworkKind(text))
    if colon and name and kind in ("bridge", "network"):
        return Network(kind=NetworkKind(kind), name=name)
    return Network(kind=NetworkKind.BRIDGE, name=text)


def described(destination: str) -> str:
    """The suffix of a description that is to be written. Raises UsageError."""
    suffix = suffix_of(destination)
    if suffix not in DESCRIPTIONS:
        raise UsageError(f"{destination} does not say which description is to be written", "name it .vmx, .xml or .ovf")
    return suffix


def side(form: str) -> str:
    """The description of those who can use a format. Raises UsageError."""
    if form not in SIDES:
        raise UsageError(f"no hypervisor that imgtool describes machines for uses {form}", "--to qcow2, raw or vmdk")
    return SIDES[form]


def spec_of(to: str, destination: str, *, whole: bool, subformat: str | None, **words: Any) -> ImageSpec:
    """For ESXi the disks of a machine are those that it powers on; in an OVA they are packed."""
    from imgtool.steps.spec import image_spec

    packed = whole and is_archive(destination)
    if packed and (to != "vmdk" or subformat not in (None, "streamOptimized")):
        raise UsageError("the disks in an OVA are streamOptimized VMDKs", "--to vmdk, without --subformat")
    if whole and to == "vmdk" and subformat is None and not words["compress"]:
        subformat = "streamOptimized" if packed else "vmfs"
    return image_spec(to, subformat=subformat, **words)
