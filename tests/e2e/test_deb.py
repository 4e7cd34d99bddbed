"""The .deb in a clean Debian, installed by the commands of the Containerfile; chroot(8) runs them, for want of an engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clean_debian import inside, made
from tests.program import ROOT

pytestmark = pytest.mark.long
CONTAINERFILE = ROOT / "packaging/Containerfile"
MODULES = "usr/lib/imgtool/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def deb() -> Path:
    """IMGTOOL_DEB names one that is built already."""
    if given := os.environ.get("IMGTOOL_DEB"):
        return Path(given).resolve()
    subprocess.run([str(ROOT / "packaging/deb/build")], check=True)
    return max((ROOT / "dist").glob("imgtool_*.deb"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def host(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the Containerfile makes."""
    with made(tmp_path_factory.mktemp("deb")) as clean:
        yield prepared(clean, deb)


def prepared(clean: Path, deb: Path) -> Path:
    for line in CONTAINERFILE.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "COPY":
                shutil.copy(deb, clean / rest.split()[1].lstrip("/"))
            case "RUN":
                inside(clean, "sh", "-c", rest)
            case "FROM" | "VOLUME" | "ENTRYPOINT" | "#" | "":
                pass
            case _:
                pytest.fail(f"this test cannot do {line}")
    return clean


def test_the_entry_point_says_its_version(host: Path, deb: Path) -> None:
    (entry,) = [line for line in CONTAINERFILE.read_text().splitlines() if line.startswith("ENTRYPOINT")]
    said = inside(host, *json.loads(entry.partition(" ")[2]), "--version").stdout.split()
    assert said[0] == "imgtool"
    assert deb.name.split("_")[1] == said[1].replace(".dev", "~dev")


def test_it_converts_and_verifies(host: Path) -> None:
    shutil.rmtree(host / "srv/t", ignore_errors=True)
    (host / "srv/t").mkdir()
    inside(host, "sh", "-c", "cd /srv/t && head -c 3M /dev/urandom > a.raw && truncate -s 64M a.raw && "
           "qemu-img convert -O vmdk a.raw a.vmdk")
    for to in (("qcow2", "--thick"), ("vhdx",), ("vmdk", "--subformat=streamOptimized", "/srv/t/b.vmdk")):
        source, _, rest = "/srv/t/a.vmdk", *to[:1], to[1:]
        result = json.loads(inside(host, "imgtool", "convert", source, "--to", to[0], *rest, "--json").stdout)
        assert result["verified"] is True
        assert inside(host, "qemu-img", "compare", "/srv/t/a.raw", result["destination"]).returncode == 0


def test_all_that_it_calls_is_there(host: Path) -> None:
    report = json.loads(inside(host, "imgtool", "doctor", "--json", check=False).stdout)
    assert [tool["name"] for tool in report["tools"] if tool["needed"] and not tool["found"]] == []
    assert {tool["name"]: tool["found"] for tool in report["tools"]}["python3-guestfs"]
    wave = host / "srv/wave.yaml"
    wave.write_text("name: w\nmachines: [{name: a, steps: [{verify: {left: /srv/t/a.vmdk, right: /srv/t/a.raw}}]}]\n")
    assert "1 of 1 done" in inside(host, "imgtool", "run", "/srv/wave.yaml").stdout
    modules = "guestfs, nbd, libvirt, pyVmomi, dbos, psycopg, lxml.etree, numpy, isal, deflate, zstandard, lz4.frame"
    inside(host, "/usr/lib/imgtool/bin/python3", "-c", f"import {modules}")


def test_pages_and_completion_lie_where_they_are_looked_for(host: Path) -> None:
    for path in ("man/man1/imgtool.1.gz", "man/man1/imgtool-convert.1.gz", "bash-completion/completions/imgtool",
                 "zsh/vendor-completions/_imgtool", "fish/vendor_completions.d/imgtool.fish", "doc/imgtool/copyright"):
        assert (host / "usr/share" / path).is_file()


def test_nothing_of_the_place_where_it_was_built_is_in_it(host: Path) -> None:
    """Nor can anybody but root change it, nor does running it write there."""
    found = [path for path in (host / "usr/lib/imgtool").rglob("*") if not path.is_symlink()]
    assert [path for path in found if path.stat().st_mode & 0o022 or path.stat().st_uid] == []
    files = [path for path in found if path.is_file()]
    assert [path for path in files if str(ROOT).encode() in path.read_bytes()] == []
    sources = [path for path in files if path.suffix == ".py" and f"{MODULES}/imgtool/" in str(path)]
    compiled = [path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc" for path in sources]
    assert sources
    assert [path for path in compiled if not path.is_file()] == []
    listed = inside(host, "dpkg", "--verify", "imgtool").stdout
    assert listed == ""
    known = set((host / "var/lib/dpkg/info/imgtool.list").read_text().splitlines())
    assert [path for path in files if f"/{path.relative_to(host)}" not in known] == []


def test_it_goes_away(host: Path) -> None:
    inside(host, "dpkg", "--purge", "imgtool")
    assert not (host / "usr/lib/imgtool").exists()
    assert not (host / "usr/bin/imgtool").exists()
