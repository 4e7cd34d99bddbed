"""inspect: what a Linux guest is, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable

from imgtool.guests.linux import devices, kernels, rebuild, selinux, tools
from imgtool.guests.linux.bootloaders import efi
from imgtool.guests.linux.bootloaders.find import describe, find
from imgtool.guests.linux.distro import read_os
from imgtool.guests.linux.network import cloud_init
from imgtool.guests.linux.network.find import read as read_network
from imgtool.guests.tree import Tree
from imgtool.model.guest import FileSystem, GuestInfo, OsInfo


def firmware(tree: Tree) -> str:
    """uefi if there is an ESP with loaders, else bios."""
    return "uefi" if efi.esp(tree) else "bios"


def inspect(tree: Tree, filesystems: Iterable[FileSystem]) -> GuestInfo:
    """Everything that the contract's JSON says, and what ``adapt`` would have to touch."""
    filesystems = tuple(filesystems)
    os = read_os(tree) or OsInfo(family="linux")
    found = find(tree)
    menu = found[0] if found else None
    known = kernels.find(tree, menu)
    return GuestInfo(
        os=os, firmware=firmware(tree), kernels=tuple(kernel.info() for kernel in known),
        bootloader=describe(tree, menu, os.arch, firmware(tree)), filesystems=filesystems, nics=read_network(tree),
        tools=tools.find(tree), references=tuple(devices.references(tree, filesystems)), initramfs_tool=rebuild.tool(tree),
        selinux=selinux.mode(tree), cloud_init=cloud_init.installed(tree),
        warnings=tuple(kernel.trouble for kernel in known if kernel.trouble))
