"""Consoles that only the old hypervisor had: Xen's become the serial port, and X gets a driver that fits any screen."""

from __future__ import annotations

import re

from imgtool.guests.linux.bootloaders import command_lines
from imgtool.guests.linux.edit import Editor

XEN = re.compile(r"\b(?:xvc|hvc)0\b")
CONSOLE = re.compile(r"(?<![^\s\"'])console=(?:xvc|hvc)0(?![^\s\"',])")
GETTY = re.compile(r"^(?!#).*\b(?:xvc|hvc)0\b.*$", re.MULTILINE)
DRIVER = re.compile(r"^([ \t]*Driver[ \t]+)\"(?:vmware|vmwlegacy|cirrus|qxl|vboxvideo|fglrx|nvidia|vesa)\"",
                    re.MULTILINE | re.IGNORECASE)
"""Drivers of screens, in xorg.conf(5)."""
WHY = "the target has no such console"


def adapt(editor: Editor) -> None:
    """Kernel arguments, inittab, securetty, xorg.conf."""
    command_lines.change(editor, lambda old: CONSOLE.sub("console=ttyS0", old), what="console is the serial port", why=WHY)
    editor.change("/etc/inittab", _inittab, what="login on ttyS0", why=WHY)
    editor.change("/etc/securetty", _securetty, what="root may log in on ttyS0", why=WHY)
    for path in ("/etc/X11/xorg.conf", "/etc/X11/XF86Config", *editor.tree.glob("/etc/X11/xorg.conf.d/*.conf")):
        editor.change(path, lambda old: DRIVER.sub(r'\1"modesetting"', old), what="X uses what the kernel drives",
                      why="the target has another graphics card")


def _inittab(old: str) -> str:
    return GETTY.sub(lambda found: XEN.sub("ttyS0", found[0]), old)


def _securetty(old: str) -> str:
    lines = old.split("\n")
    if "ttyS0" in lines or not any(XEN.fullmatch(line.strip()) for line in lines):
        return old
    return old + ("" if old.endswith("\n") else "\n") + "ttyS0\n"
