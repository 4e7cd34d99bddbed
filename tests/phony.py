"""Phony Linux guests: trees with the configuration files of real tools, and kernels whose modules are dummies.

``fixtures/guests/NAME.tree`` describes one: ``@file PATH`` and its lines, ``@link PATH TARGET``, ``@empty PATH``, and
``@kernel VERSION IMAGE INITRAMFS key=value…`` with ``layout``, ``packing``, ``early`` (modules in the initramfs), ``without``,
``builtin`` and ``ending``. Archives and packing are made by the programs of the host (cpio, zstd, …), not by imgtool.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from imgtool.guests.linux.modules import module_name
from imgtool.model.guest import FileSystem
from tests.folder_tree import FolderTree
from tests.program import ROOT

GUESTS = ROOT / "fixtures" / "guests"
NEEDS: dict[str, list[str]] = {
    "virtio/virtio": [], "virtio/virtio_ring": [], "virtio/virtio_pci_modern_dev": [],
    "virtio/virtio_pci": ["virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev"],
    "block/virtio_blk": ["virtio/virtio_ring", "virtio/virtio"], "scsi/scsi_common": [], "scsi/scsi_mod": ["scsi/scsi_common"],
    "scsi/virtio_scsi": ["scsi/scsi_mod", "scsi/scsi_common", "virtio/virtio_ring", "virtio/virtio"],
    "net/failover": [], "net/net_failover": ["net/failover"],
    "net/virtio_net": ["net/net_failover", "net/failover", "virtio/virtio_ring", "virtio/virtio"],
    "scsi/vmw_pvscsi": ["scsi/scsi_mod", "scsi/scsi_common"], "net/vmxnet3/vmxnet3": [],
    "message/fusion/mptbase": [], "message/fusion/mptscsih": ["message/fusion/mptbase", "scsi/scsi_mod", "scsi/scsi_common"],
    "scsi/scsi_transport_spi": ["scsi/scsi_mod", "scsi/scsi_common"],
    "scsi/scsi_transport_sas": ["scsi/scsi_mod", "scsi/scsi_common"],
    "message/fusion/mptspi": ["message/fusion/mptscsih", "message/fusion/mptbase", "scsi/scsi_transport_spi", "scsi/scsi_mod",
                              "scsi/scsi_common"],
    "message/fusion/mptsas": ["message/fusion/mptscsih", "message/fusion/mptbase", "scsi/scsi_transport_sas", "scsi/scsi_mod",
                              "scsi/scsi_common"],
    "ata/libata": ["scsi/scsi_mod", "scsi/scsi_common"], "ata/libahci": ["ata/libata", "scsi/scsi_mod", "scsi/scsi_common"],
    "ata/ahci": ["ata/libahci", "ata/libata", "scsi/scsi_mod", "scsi/scsi_common"],
    "ata/ata_piix": ["ata/libata", "scsi/scsi_mod", "scsi/scsi_common"],
    "nvme/nvme-core": [], "nvme/nvme": ["nvme/nvme-core"], "scsi/sd_mod": ["scsi/scsi_mod", "scsi/scsi_common"],
    "net/e1000e/e1000e": [], "net/e1000/e1000": [], "scsi/megaraid/megaraid_sas": ["scsi/scsi_mod", "scsi/scsi_common"],
    "usb/usb-common": [], "usb/usbcore": ["usb/usb-common"], "usb/xhci-hcd": ["usb/usbcore", "usb/usb-common"],
    "usb/xhci-pci": ["usb/xhci-hcd", "usb/usbcore", "usb/usb-common"], "scsi/hpsa": ["scsi/scsi_transport_sas", "scsi/scsi_mod"],
    "usb/storage/usb-storage": ["scsi/scsi_mod", "scsi/scsi_common", "usb/usbcore", "usb/usb-common"],
    "crypto/crc32c": [],
}
"""Module → what it needs, as a real modules.dep has it: everything, the nearest first."""
SOFT = "softdep nvme pre: crc32c\n"
LAYOUT_FILES = {"initramfs-tools": ["conf/initramfs.conf", "conf/modules", "scripts/functions"], "dracut": ["lib/dracut-lib.sh"],
                "mkinitcpio": ["init_functions", "config"], "mkinitfs": ["sbin/nlplug-findfs"], "mkinitrd": ["run_all.sh"]}
PACKERS = {"gzip": ["gzip", "-nc"], "zstd": ["zstd", "-qc"], "xz": ["xz", "--check=crc32", "-c"], "lzma": ["lzma", "-c"],
           "bzip2": ["bzip2", "-c"], "lz4": ["lz4", "-qlc"], "lzo": ["lzop", "-c"], "cpio": ["cat"]}
DISK = (
    FileSystem(device="/dev/sda1", type="ext4", uuid="11111111-aaaa-4aaa-8aaa-111111111111", partuuid="0badc0de-01"),
    FileSystem(device="/dev/sda2", type="ext4", uuid="22222222-bbbb-4bbb-8bbb-222222222222"),
    FileSystem(device="/dev/sda3", type="swap", uuid="33333333-cccc-4ccc-8ccc-333333333333"),
)
"""What the appliance would say of the disk of each of them."""


def packed(data: bytes, packing: str) -> bytes:
    return subprocess.run(PACKERS[packing], input=data, capture_output=True, check=True).stdout


def archive(folder: Path) -> bytes:
    """A newc archive of a folder, by cpio."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    done = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], input="\n".join(names).encode(), cwd=folder,
                          capture_output=True, check=True)
    return done.stdout


def tree(name: str, root: Path) -> FolderTree:
    """The guest that ``fixtures/guests/NAME.tree`` describes, made in ``root``."""
    phony = FolderTree(root)
    kernels = []
    for block in ("\n" + (GUESTS / f"{name}.tree").read_text(encoding="utf-8")).split("\n@")[1:]:
        head, _, body = block.partition("\n")
        kind, *words = head.split()
        if kind == "file":
            phony.write(words[0], (body if body.endswith("\n") or not body else body + "\n").encode())
        elif kind == "empty":
            phony.write(words[0], b"")
        elif kind == "link":
            phony.symlink(words[1], words[0])
        elif kind == "kernel":
            kernels.append(words)
    for words in kernels:
        kernel(phony, words[0], words[1], words[2], **dict(word.split("=", 1) for word in words[3:]))
    return phony


def kernel(phony: FolderTree, version: str, image: str, initramfs: str, *, layout: str = "dracut", packing: str = "gzip",
           early: str = "", without: str = "", builtin: str = "", ending: str = ".ko", merged: str = "yes") -> None:
    """A kernel with its modules, and an initramfs with some of them. ``-`` for no initramfs."""
    gone, inside = set(without.split(",")), set(builtin.split(","))
    folder = f"/lib/modules/{version}"
    files = {name: f"kernel/drivers/{name}{ending}" for name in NEEDS if module_name(name) not in gone | inside}
    for name, path in files.items():
        phony.write(f"{folder}/{path}", f"\x7fELF {name}".encode())
    lines = [f"{path}: {' '.join(files[one] for one in NEEDS[name] if one in files)}\n" for name, path in files.items()]
    phony.write(f"{folder}/modules.dep", "".join(lines).encode())
    phony.write(f"{folder}/modules.dep.bin", b"index of " + version.encode())
    phony.write(f"{folder}/modules.softdep", SOFT.encode())
    built = [f"kernel/drivers/{name}.ko\n" for name in NEEDS if module_name(name) in inside]
    phony.write(f"{folder}/modules.builtin", "".join(built).encode())
    phony.write(image, f"kernel {version}".encode())
    if initramfs != "-":
        _initramfs(phony, version, initramfs, layout, packing, set(early.split(",")), files, merged == "yes")


def _initramfs(phony: FolderTree, version: str, path: str, layout: str, packing: str, early: set[str], files: dict[str, str],
               merged: bool) -> None:
    root = phony.root.parent / f"initramfs-{version}"
    lib = root / ("usr/lib" if merged else "lib")
    modules = lib / "modules" / version
    modules.mkdir(parents=True)
    if merged:
        (root / "lib").symlink_to("usr/lib")
    for name, file in files.items():
        if module_name(name) in early:
            target = modules / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"\x7fELF {name}")
    (modules / "modules.dep").write_text("short\n")
    for name in LAYOUT_FILES[layout]:
        file_ = root / name
        file_.parent.mkdir(parents=True, exist_ok=True)
        file_.write_text("")
    microcode = phony.root.parent / f"microcode-{version}"
    (microcode / "kernel/x86/microcode").mkdir(parents=True)
    (microcode / "kernel/x86/microcode/GenuineIntel.bin").write_bytes(os.urandom(1000))
    phony.write(path, archive(microcode) + packed(archive(root), packing), mode=0o600)
