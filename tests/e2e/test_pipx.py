"""What ``make dist`` makes, installed in a clean Debian by the commands of docs/install.md. Minutes: most of it is apt."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import markdown
from tests.e2e.clean_debian import inside, made
from tests.program import ROOT

pytestmark = pytest.mark.long
WHEELS = "/srv/wheels"
ALONE = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} PATH=/root/.local/bin:$PATH"
"""pip has what is in this folder only: the index of this machine is perhaps not one that the clean one reaches."""

WAVE = "name: w\nmachines: [{name: a, steps: [{verify: {left: /srv/a.vmdk, right: /srv/a.raw}}]}]\n"


def documented(word: str) -> str:
    """The line of docs/install.md that begins so."""
    lines = [line for block in markdown.blocks(ROOT / "docs/install.md") for line in block.text.splitlines()]
    (found,) = [line for line in lines if line.startswith(word)]
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, an sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True)
    return folder


@pytest.fixture(scope="module")
def host(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian with what the guide installs by apt, the sdist unpacked in /srv/imgtool, and what pip asks an index for."""
    with made(tmp_path_factory.mktemp("pipx")) as root:
        (sdist,) = dist.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(root / "srv")
        (root / "srv" / sdist.name.removesuffix(".tar.gz")).rename(root / "srv/imgtool")
        needed = f"{root}/srv/imgtool[batch]"
        tools = ("pip", "setuptools>=77", "setuptools-scm>=8", "wheel", "packaging")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", f"{root}{WHEELS}", needed, *tools]
        subprocess.run(argv, check=True)
        for path in dist.iterdir():
            shutil.copy(path, root / "srv")
        inside(root, "sh", "-c", f"apt-get update && {documented('apt-get install pipx')} --yes --no-install-recommends")
        yield root


def works(host: Path) -> None:
    """It runs, sees the distribution's bindings, converts, and has its pages where the guide says."""
    report = json.loads(inside(host, "sh", "-c", f"{ALONE} imgtool doctor --json", check=False).stdout)
    found = {tool["name"]: tool["found"] for tool in report["tools"]}
    assert all(found[name] for name in ("qemu-img", "python3-guestfs", "python3-libnbd", "python3-libvirt", "ssh")), found
    inside(host, "sh", "-c", "cd /srv && head -c 3M /dev/urandom > a.raw && truncate -s 64M a.raw && "
                             "qemu-img convert -O vmdk a.raw a.vmdk")
    made = json.loads(inside(host, "sh", "-c", f"{ALONE} imgtool convert /srv/a.vmdk --to qcow2 --thick --force --json").stdout)
    assert made["verified"] is True
    assert inside(host, "qemu-img", "compare", "/srv/a.raw", made["destination"]).returncode == 0
    pages = markdown.SPAN.search((ROOT / "docs/install.md").read_text().split("The manual pages are in the environment:")[1])
    assert pages is not None
    _, option, folder, page = shlex.split(pages[1])
    assert option == "-M"
    assert (host / folder.replace("~", "root") / "man1" / f"{page}.1").is_file()
    assert "complete" in inside(host, "sh", "-c", f"{ALONE} imgtool completion bash").stdout


def test_from_the_sources(host: Path) -> None:
    """Of the sdist, with batches."""
    inside(host, "sh", "-c", f"cd /srv/imgtool && {ALONE} {documented('pipx install')}")
    works(host)
    (host / "srv/w.yaml").write_text(WAVE)
    assert "1 of 1 done" in inside(host, "sh", "-c", f"{ALONE} imgtool run /srv/w.yaml").stdout


def test_the_wheel_without_batches(host: Path, dist: Path) -> None:
    """``run`` says what is missing, all else works."""
    (wheel,) = dist.glob("*.whl")
    inside(host, "sh", "-c", f"{ALONE} pipx uninstall imgtool; {ALONE} pipx install --system-site-packages /srv/{wheel.name}")
    works(host)
    said = inside(host, "sh", "-c", f"{ALONE} imgtool --version").stdout
    assert said.split()[1].split("+")[0] == wheel.name.split("-")[1].split("+")[0]
    (host / "srv/w.yaml").write_text(WAVE)
    lacks = inside(host, "sh", "-c", f"{ALONE} imgtool run /srv/w.yaml", check=False)
    assert lacks.returncode == 6
    assert "'.[batch]'" in lacks.stderr
