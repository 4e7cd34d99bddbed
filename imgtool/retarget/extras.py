"""Ports, screens, sound, USB, agents; devices of the old host that stay there."""

from __future__ import annotations

from dataclasses import replace

from imgtool.descriptions.guest_os import is_linux
from imgtool.model.devices import Graphics, Port, Video
from imgtool.model.machine import Machine, Tools
from imgtool.model.translation import Wishes
from imgtool.retarget.log import Log

LOCALHOST = "127.0.0.1"
NETWORK_PORTS = ("tcp", "telnet", "tls")
SOUND_ON_QEMU = ("ac97", "sb16", "ich6", "ich9", "usb")
SCRIPTS = ("afterPowerOn", "afterResume", "beforeSuspend", "beforePowerOff")
"""What VMware's tools run in the guest, and every new machine has."""


def to_kvm(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """A console, a screen on localhost, an agent; what else a KVM host has for a guest."""
    _left_behind(machine, log)
    linux = is_linux(machine.guest_os)
    abilities = wishes.capabilities
    if machine.parallels:
        ports = tuple(port.path or port.kind for port in machine.parallels)
        log.lost("parallels", ports, "a port of the other host", "add it by hand")
    balloon = machine.balloon or ("virtio" if abilities.balloon or linux else "none")
    rng = machine.rng or ("/dev/urandom" if abilities.rng or linux else None)
    return replace(
        machine, parallels=(), passthrough=(), shared_folders=(), serials=_kvm_serials(machine, log),
        videos=_kvm_videos(machine, log), graphics=_kvm_graphics(machine, log), sounds=_kvm_sounds(machine, log),
        tools=_kvm_tools(machine, wishes, log),
        inputs=machine.inputs if "tablet" in machine.inputs else log.change(
            "inputs", machine.inputs, (*machine.inputs, "tablet"), "the pointer of the screen and of the guest agree"),
        rng=log.change("rng", machine.rng, rng, "Linux has the driver"),
        balloon=log.change("balloon", machine.balloon, balloon, "Linux has the driver" if linux else "nobody knows of a driver"))


def to_esxi(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """What ESXi has for a guest, and what it has not."""
    _left_behind(machine, log)
    watchdog = machine.watchdog
    log.lost("watchdog", watchdog and f"{watchdog.model} ({watchdog.action})", "ESXi has none",
             "vSphere HA can watch the guest through VMware Tools")
    log.lost("rng", machine.rng, "ESXi has none", "guests of this century gather entropy themselves")
    log.lost("sounds", machine.sounds, "ESXi has none", "use the sound of the remote desktop")
    log.change("balloon", machine.balloon, None, "VMware's own comes with open-vm-tools")
    log.change("inputs", machine.inputs, (), "VMware's mouse is always there")
    return replace(
        machine, passthrough=(), shared_folders=(), serials=_esxi_ports("serials", machine.serials, log),
        parallels=_esxi_ports("parallels", machine.parallels, log), videos=_esxi_videos(machine, log),
        graphics=_esxi_graphics(machine, log), sounds=(), inputs=(), watchdog=None, rng=None, balloon=None,
        tools=_esxi_tools(machine.tools, log))


def _left_behind(machine: Machine, log: Log) -> None:
    for number, one in enumerate(machine.passthrough):
        log.lost(f"passthrough[{number}]", f"{one.kind} {one.address or one.name or ''}".strip(), "a device of the other host",
                 "hand a device of the new host through by hand, if it has one")
    for number, folder in enumerate(machine.shared_folders):
        log.lost(f"shared_folders[{number}]", folder.path, "a folder of the other host", "share it over the network, or copy it")


def _kvm_serials(machine: Machine, log: Log) -> tuple[Port, ...]:
    """The ports; a console if there is none."""
    ports = []
    for index, port in enumerate(machine.serials):
        at = f"serials[{index}]"
        if port.kind in ("thinprint", "proxy"):
            log.lost(at, f"{port.kind} {port.path or ''}".strip(), "VMware's own kind of port",
                     "the console is reached with virsh console")
            continue
        if port.kind in ("device", "file", "pipe"):
            log.lost(at, f"{port.kind} {port.path or ''}".strip(), "a place on the other host: the port is a console (pty) here",
                     "virsh console, or set another backend")
            port = replace(port, kind="pty", path=None, server=None)  # noqa: PLW2901
        ports.append(replace(port, connected=None))
    if ports:
        return tuple(ports)
    return log.change("serials", machine.serials, (Port(kind="pty"),), "a console: virsh console")


def _kvm_videos(machine: Machine, log: Log) -> tuple[Video, ...]:
    before = tuple(video.model for video in machine.videos)
    return log.change("videos", before, (Video(model="vga"),), "each guest has a driver for it")


def _kvm_graphics(machine: Machine, log: Log) -> tuple[Graphics, ...]:
    screens = tuple(f"{one.kind} {one.listen or ''}:{one.port or ''}" for one in machine.graphics)
    keymap = next((one.keymap for one in machine.graphics if one.keymap), None)
    log.change("graphics", screens, f"vnc {LOCALHOST}", "a screen that only this host reaches")
    return (Graphics(kind="vnc", listen=LOCALHOST, keymap=keymap),)


def _kvm_sounds(machine: Machine, log: Log) -> tuple[str, ...]:
    sounds = tuple(sound if sound in SOUND_ON_QEMU else "ich9" if sound == "hda" else "ac97" for sound in machine.sounds)
    return log.change("sounds", machine.sounds, sounds, "what QEMU emulates and most guests know")


def _kvm_tools(machine: Machine, wishes: Wishes, log: Log) -> Tools:
    """VMware's tools mean nothing here; QEMU's agent has a channel."""
    tools = machine.tools
    if tools.sync_time:
        log.lost("tools.sync_time", True, "VMware Tools set the guest's clock", "let the guest use NTP (chrony)")
    for name in ("upgrade", "scripts"):
        log.change(f"tools.{name}", getattr(tools, name), None, "of VMware Tools")
    agent = wishes.capabilities.agent or is_linux(machine.guest_os) or None
    return Tools(agent=log.change("tools.agent", tools.agent, agent, "for qemu-guest-agent"))


def _esxi_ports(row: str, ports: tuple[Port, ...], log: Log) -> tuple[Port, ...]:
    kept = []
    for index, port in enumerate(ports):
        if port.kind in NETWORK_PORTS:
            kept.append(port)
        elif row == "serials" and port.kind == "pty":
            log.change(f"{row}[{index}]", port.kind, None, "virsh's console: ESXi's is the screen")
        else:
            log.lost(f"{row}[{index}]", f"{port.kind} {port.path or ''}".strip(), "a place on the other host",
                     "add a port by hand")
    return tuple(kept)


def _esxi_videos(machine: Machine, log: Log) -> tuple[Video, ...]:
    before = tuple(video.model for video in machine.videos)
    return log.change("videos", before, (Video(model="vmvga"),), "the only one that ESXi has")


def _esxi_graphics(machine: Machine, log: Log) -> tuple[Graphics, ...]:
    return log.change("graphics", tuple(one.kind for one in machine.graphics), (), "ESXi's own console shows the screen")


def _esxi_tools(tools: Tools, log: Log) -> Tools:
    if tools.agent:
        log.lost("tools.agent", True, "QEMU's guest agent has no channel here", "open-vm-tools in its place: imgtool adapt")
    return Tools(sync_time=log.change("tools.sync_time", tools.sync_time, bool(tools.sync_time), "as usual"),
                 upgrade=log.change("tools.upgrade", tools.upgrade, tools.upgrade or "manual", "as usual"),
                 scripts=log.change("tools.scripts", tools.scripts, tools.scripts or SCRIPTS, "as usual"))
