"""Whether libvirt takes a domain: its schema, and its QEMU driver loaded into virsh, without a daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fixtures.libvirtd import QEMU_CONF, WITH_USER, add_user
from fixtures.run import bound

DEFINE, START = "define --validate", "domxml-to-native qemu-argv --xml"


def refusals(domains: Mapping[str, bytes], directory: Path, *, commands: Sequence[str] = (DEFINE, START)) -> dict[str, str]:
    """What ``virt-xml-validate`` and ``virsh define --validate`` have against each of the domains, by its file's name.

    Each must have a name of its own. ``START`` makes QEMU's command line, and finds what only a start would find.
    """
    files = {name: directory / name for name in domains}
    found: dict[str, str] = {}
    for name, path in files.items():
        path.write_bytes(domains[name])
        done = subprocess.run(bound(["virt-xml-validate", path, "domain"]), capture_output=True, text=True, check=False)
        if done.returncode:
            found[name] = done.stdout + done.stderr
    for command in commands:
        for name, path in files.items():
            found[name] = found.get(name) or _refusal(f"{command} {path}", directory)
    return {name: why for name, why in found.items() if why}


def _refusal(command: str, directory: Path) -> str:
    root = directory / "embed"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(QEMU_CONF)
    add_user(root)
    uri = f"qemu:///embed?root={root}"
    argv = bound(["virsh", "-q", "-c", uri, command])
    if os.geteuid() == 0:  # who is not root needs no user for the driver
        argv = bound(["unshare", "--mount", "sh", "-c", f'{WITH_USER} && shift && exec "$@"', "sh", root, *argv])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "\n".join(line for line in done.stderr.splitlines() if line.startswith("error"))
