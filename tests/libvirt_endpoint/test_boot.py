"""A real Debian goes to a libvirt host behind ssh, starts there, and is watched through ssh."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import cast

import pytest

from fixtures import debian
from fixtures.libvirtd import Libvirtd
from fixtures.sshd import Sshd
from imgtool import endpoints
from imgtool.descriptions import description
from imgtool.endpoints import FarTarget, uri
from imgtool.formats.disk import open_disk
from imgtool.model.endpoint import Credentials, NewDisk, Placing
from imgtool.progress import Control
from tests.libvirt_endpoint.domains import disk, domain


@pytest.mark.boot
@pytest.mark.long
def test_sent_started_and_watched(daemon: Libvirtd, ssh: Sshd, pool: Path, tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtool.endpoints.libvirt import watch

    monkeypatch.setattr(watch, "CONSOLE_SECONDS", 1200.0)  # it goes off by itself
    built = debian.build(tmp_path / "debian.raw")
    target = cast("FarTarget", endpoints.target(uri.parse(ssh.uri("qemu+ssh", "/system", socket=daemon.socket)), Credentials()))
    target.look(Placing(), Control())
    text = domain("debian", disk("/nowhere/debian-0.qcow2"), "<serial type='pty'><target port='0'/></serial>")
    text = text.replace(">128<", ">512<").encode()
    with open_disk(str(built.path)) as opened:
        disks = [(NewDisk(name="debian-0.qcow2", format="qcow2"), opened)]
        machine = target.send("debian.imgtool-new", description(".xml").parse(text).machine, text, disks, str(tmp_path / "state"),
                              Control())
        target.compare(machine, disks, Control())
    target.rename(machine, "debian")
    target.start(machine)
    seen = target.watch(machine, Control())
    target.close()
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert re.match(r"its serial console says: .*(IMGTOOL|Power down|reboot|systemd|\[)", seen), seen
    assert seen.endswith("it went off")
