"""Which fields of a Machine a domain XML has a place for, and what to do about the others."""

from __future__ import annotations


def _of(part: str, names: str) -> frozenset[str]:
    return frozenset(f"{part}.{name}" if part else name for name in names.split())


HOLDS = frozenset().union(
    _of("", "name uuid genid description accelerator chipset rng balloon boot boot_menu sounds usb inputs"),
    _of("guest_os", "id arch release word"),
    _of("cpu", "count maximum mode model features.name features.policy"),
    _of("cpu.topology", "sockets cores threads dies"),
    _of("memory", "size current maximum slots huge_pages"),
    _of("firmware", "kind secure_boot"),
    _of("tpm", "version model"),
    _of("controllers", "bus number model"),
    _of("disks", "path bus controller unit backing format mode cache discard shared read_only rdm serial wwn boot_order"),
    _of("disks", "io_limit"),
    _of("drives", "floppy bus controller unit backing path boot_order"),
    _of("nics", "number model mac connected boot_order mtu limit"),
    _of("nics.network", "kind name port_group vlan device virtual_port"),
    _of("serials", "number kind path server"),
    _of("parallels", "number kind path server"),
    _of("videos", "model memory heads accelerated"),
    _of("graphics", "kind listen port keymap"),
    _of("passthrough", "kind address"),
    _of("shared_folders", "path tag read_only"),
    _of("watchdog", "model action"),
    _of("tools", "agent"),
    _of("clock", "offset timers.name timers.present timers.policy"),
    _of("resources", "cpu_shares cpu_affinity memory_limit"),
)

MEANINGLESS = frozenset({
    "hardware_version",  # the generation of VMware's hardware
    "nics.mac_kind", "nics.mac_check",  # KVM takes every address as it is given
    "disks.capacity", "disks.populated",  # the image itself says them
    "passthrough.name",  # a label; the address names the device
})
"""Fields that mean nothing to a KVM host: left without a word."""

HINTS = {
    "vc_uuid": "vCenter gives the machine another one",
    "cpu.hot_add": "say how many CPUs there may be: cpu.maximum",
    "cpu.hot_remove": "CPUs above the first can be taken out of a KVM guest that has cpu.maximum",
    "cpu.nested": "the CPU mode host-passthrough gives it, on a host that allows it",
    "memory.hot_add": "say how much memory there may be: memory.maximum",
    "firmware.nvram": "it is of another format: UEFI starts with fresh variables, and boots \\EFI\\BOOT\\BOOTX64.EFI of the disk",
    "controllers.shared": "a cluster needs its shared disks marked as shareable",
    "disks.shares": "limit the disk's operations instead: io_limit",
    "disks.change_tracking": "backups use QEMU's bitmaps: `virsh backup-begin`",
    "drives.passthrough": "the guest reads what is in the host's drive, and cannot burn",
    "drives.connected": "eject it: `virsh change-media`",
    "nics.network.switch": "a distributed switch is vCenter's: choose a bridge",
    "nics.network.port": "a distributed switch is vCenter's: choose a bridge",
    "nics.network.connection": "a distributed switch is vCenter's: choose a bridge",
    "nics.wake_on_lan": "start the machine by `virsh start`",
    "serials.connected": "a port is there from the start",
    "parallels.connected": "a port is there from the start",
    "graphics.password": "never carried: set one by `virsh edit`, or keep the screen on localhost",
    "tools.sync_time": "let the guest run an NTP client, or qemu-guest-agent",
    "tools.upgrade": "VMware's tools are not used on KVM",
    "tools.scripts": "qemu-guest-agent has hooks of its own: /etc/qemu/fsfreeze-hook",
    "resources.cpu_reservation": "KVM reserves nothing: give it shares",
    "resources.cpu_limit": "set a quota: `virsh schedinfo`",
    "resources.memory_shares": "KVM has no shares of memory",
    "resources.memory_reservation": "KVM reserves nothing: lock the memory, or use huge pages",
    "template": "define it, and do not start it",
}
"""What to do about a field that has no place, by its pattern."""
