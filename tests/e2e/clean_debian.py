"""A Debian with nothing in it, to install imgtool as a new user would; chroot(8) stands for a machine of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures import apt
from fixtures.run import ALONE


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """A minimal Debian, with this machine's sources of packages."""
    root, settings = folder / "root", folder / "apt.conf"
    settings.write_text(apt.network_settings() or "# nothing set\n", encoding="utf-8")
    release = apt.codename()
    argv = [*ALONE, "mmdebstrap", "--mode=root", "--variant=minbase", f"--aptopt={settings}", release, str(root), "-"]
    subprocess.run(argv, input=apt.debian_sources(release), text=True, check=True)
    try:
        yield root
    finally:
        shutil.rmtree(root)


def inside(root: Path, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """In namespaces of its own: what it mounts is gone when it ends."""
    prepared = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && cp /etc/resolv.conf "$1/etc/" && exec chroot "$@"'
    clean_environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*ALONE, "sh", "-c", prepared, "sh", str(root), *argv], env=clean_environment, capture_output=True,
                          text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
