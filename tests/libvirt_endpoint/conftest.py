"""One libvirtd for all tests of this folder (of each worker), with pools that hold files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from fixtures.libvirtd import Libvirtd, libvirtd
from fixtures.sshd import Sshd, sshd


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    folder = tmp_path_factory.mktemp("libvirtd")
    with libvirtd(folder / "daemon") as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pool(daemon: Libvirtd, tmp_path: Path) -> Iterator[Path]:
    """A pool called ``default``; it and all domains are gone afterwards."""
    folder = daemon.pool("default", tmp_path / "default")
    yield folder
    connection = libvirt.open(daemon.uri)
    for one in connection.listAllDomains():
        if one.isActive():
            one.destroy()
    for one in connection.listAllDomains():
        one.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                          | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    for one in connection.listAllStoragePools():
        if one.isActive():
            one.destroy()
        one.undefine()
    connection.close()


@pytest.fixture(scope="package")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "it") as running:
        yield running
