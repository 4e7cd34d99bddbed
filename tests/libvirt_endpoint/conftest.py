"""One libvirtd for all tests of this folder (of each worker), with pools that hold files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.libvirtd import Libvirtd, libvirtd


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
    for name in filter(None, daemon.virsh("list", "--all", "--uuid").split()):
        if name in daemon.virsh("list", "--uuid").split():
            daemon.virsh("destroy", name)
        daemon.virsh("undefine", name, "--nvram", "--managed-save", "--snapshots-metadata")
    for name in filter(None, map(str.strip, daemon.virsh("pool-list", "--all", "--name").splitlines())):
        if name in daemon.virsh("pool-list", "--name").split():
            daemon.virsh("pool-destroy", name)
        daemon.virsh("pool-undefine", name)
