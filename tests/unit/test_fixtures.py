"""The fixtures' own promises: which sources are Debian's, and a cache that is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures import marker
from fixtures.apt import debian_sources
from fixtures.boot import FAILURES
from fixtures.cache import cached
from fixtures.run import ToolError, need, run

PROJECT = Path(__file__).resolve().parents[2]

DEB822 = """
Types: deb deb-src
# a comment
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://vendor.invalid/apt
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg

Types: deb
Enabled: no
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """
# deb http://comment.invalid/debian bookworm main
deb http://security.invalid/debian-security bookworm-security main # trailing words
deb-src http://source.invalid/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/other.gpg] http://other.invalid bookworm stable
deb http://other.invalid/apt cloud-bookworm main
deb cdrom:[Debian]/ bookworm main
"""


def test_only_debians_own_sources_are_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "old.list.disabled").write_text("deb http://old.invalid bookworm main\n")
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert debian_sources("bookworm", tmp_path).splitlines() == [
        "deb http://security.invalid/debian-security bookworm-security main",
        f"deb {key} http://mirror.invalid/debian bookworm main contrib",
        f"deb {key} http://mirror.invalid/debian bookworm-updates main contrib",
    ]


def test_no_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no Debian source for bookworm"):
        debian_sources("bookworm", tmp_path)


def test_a_missing_program_is_an_error_that_names_the_cure() -> None:
    with pytest.raises(ToolError, match=r"no-such-program is not installed; `make setup` installs it"):
        need("no-such-program")


def test_a_failed_program_is_an_error_with_its_words() -> None:
    with pytest.raises(ToolError, match=r"(?s)ls failed with status 2.*/nowhere"):
        run(["ls", "/nowhere"])


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise ToolError("stop")

    with pytest.raises(ToolError, match="stop"):
        cached(tmp_path, "thing", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


MAKER = """
import sys, time
from pathlib import Path
from fixtures.cache import cached
def make(directory):
    (directory / "half").write_text("half")
    print("making", flush=True)
    time.sleep(float(sys.argv[2]))
    (directory / "whole").write_text("whole")
print((cached(Path(sys.argv[1]), "thing", make) / "whole").read_text())
"""


def _maker(cache: Path, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", MAKER, str(cache), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=PROJECT)


def test_two_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    makers = [_maker(tmp_path, 0.5) for _ in range(2)]
    said = sorted(maker.communicate(timeout=30)[0] for maker in makers)
    assert said == ["making\nwhole\n", "whole\n"]


def test_a_killed_build_is_made_again_and_its_rest_removed(tmp_path: Path) -> None:
    killed = _maker(tmp_path, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "making\n"
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "thing").exists()
    assert _maker(tmp_path, 0).communicate(timeout=30)[0] == "making\nwhole\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing", "thing.lock"]


STARTER = """
import subprocess
from fixtures.run import bound
process = subprocess.Popen(bound(["sleep", "60"]))
print(process.pid, flush=True)
process.wait()
"""


def test_a_program_dies_with_the_process_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    _wait_for(lambda: not _is_alive(child))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _wait_for(true, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_the_marker_block_is_found_among_other_lines() -> None:
    serial = (
        "[   20.1] IMGTOOL BEGIN\r\n"
        "[  OK  ] Reached target [   20.2] IMGTOOL root /dev/vda1 ext4\r\n"
        "[   20.3] random: crng init done\r\n"
        "[   20.4] IMGTOOL cmdline root=UUID=1\r\n"
        "[   20.5] IMGTOOL failed some.service\r\n"
        "[   20.6] IMGTOOL payload abc\r\n"
        "[   20.7] IMGTOOL END"
    )
    assert not marker.is_whole(serial)
    assert marker.is_whole(serial + "\r\n")
    found = marker.parse(serial + "\r\n")
    assert found is not None
    assert (found.root_source, found.payload_sha256) == ("/dev/vda1", "abc")
    assert found.failed_units == ("some.service",)
    assert marker.parse(serial.replace("IMGTOOL END", "")) is None


@pytest.mark.parametrize(("words", "failed"), [
    ("error: file `/boot/grub/i386-pc/normal.mod' not found.", True), ("error: no such device: 1234.", True),
    ("error: file `/boot/grub/fonts/unicode.pf2' not found.", False), ("ALERT!  /dev/sda1 does not exist.", True)])
def test_what_a_machine_says_when_it_will_not_boot(words: str, failed: bool) -> None:
    """GRUB goes on without a font: whoever made its menu anew may have asked for one."""
    assert bool(FAILURES.search(f"Booting\r\n{words}\r\n")) is failed
