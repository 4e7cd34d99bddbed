"""What a shell offers at TAB: images, machines, formats, addresses, jobs. It is quick, asks nothing, and fails in silence.

The scripts of the shells are in ``shells/``. They send the line before the cursor, and what follows it in ``AFTER``; the answer
is typer's for fish: a line a value. Names that come from files and hypervisors are hostile: what is not printable is not offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from imgtool.errors import ImgtoolError, UsageError
from imgtool.suffixes import MACHINES

SHELLS = {"bash": "bash/imgtool", "zsh": "zsh/_imgtool", "fish": "fish/imgtool.fish"}
AFTER = "IMGTOOL_COMPLETE_AFTER"
"""The variable that has what stands behind the cursor."""

DISKS = (".qcow2", ".vmdk", ".raw", ".img", ".vhdx", ".vhd", ".vdi")
ADDRESSES = ("esx://", "vpx://", "qemu:///system", "qemu+ssh://")
METAL = ("metal+ssh://", "metal:///dev/")
BY_ID = "/dev/disk/by-id/"

SECONDS = 4.0
"""For which a TAB waits until a hypervisor has listed its machines."""
MEMORY = 4 << 30
FRESH_SECONDS, FAILED_SECONDS = 60, 300
"""For which an answer counts. One that failed longer: with a wrong password each try brings the account nearer to its lock."""


def register(app: typer.Typer) -> None:
    """Adds the command of this module to the program."""
    app.command()(completion)


def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="For which shell.", autocompletion=lambda: SHELLS)],
) -> None:
    """Print the script that completes command lines in a shell.

    The packages have installed it. Else load it where the shell starts.

    \b
    Examples:
      source <(imgtool completion bash)
      imgtool completion fish > ~/.config/fish/completions/imgtool.fish
    """
    if shell not in SHELLS:
        raise UsageError(f"no completion for {shell}", f"one of: {', '.join(SHELLS)}")
    typer.echo((Path(__file__).parent / "shells" / SHELLS[shell]).read_text(encoding="utf-8"), nl=False)


def disks(incomplete: str) -> list[str]:
    """Disk images, folders on the way to them, block devices."""
    return list(_paths(incomplete, DISKS))


def machine_files(incomplete: str) -> list[str]:
    """Disk images and descriptions of machines."""
    return list(_paths(incomplete, DISKS + MACHINES))


def descriptions(incomplete: str) -> list[str]:
    return list(_paths(incomplete, MACHINES))


def runbooks(incomplete: str) -> list[str]:
    return list(_paths(incomplete, (".yaml", ".yml")))


def formats() -> list[str]:
    from imgtool.steps.spec import SUFFIX_OF

    return list(SUFFIX_OF)


def subformats(context: typer.Context) -> list[str]:
    """Those of the format that ``--to`` names; of all, where it is not there yet."""
    from imgtool.steps.spec import SUBFORMATS

    to = _said(context, "to", "--to")
    return [name for format_, names in SUBFORMATS.items() if to in (None, format_) for name in names]


def sources(incomplete: str) -> list[str]:
    """Where a machine can come from."""
    return [*ADDRESSES, *descriptions(incomplete)]


def targets(incomplete: str) -> list[str]:
    """Where a machine can go: folders are among the paths."""
    return [*ADDRESSES, *_paths(incomplete, ())]


def metal(incomplete: str) -> list[str]:
    """Physical machines, and disks of this one."""
    local = "metal://"
    return [*METAL, *(local + path for path in _paths(incomplete.removeprefix(local), ()) if incomplete.startswith(local))]


def metal_hosts() -> list[str]:
    return list(METAL[:1])


def metal_disks(incomplete: str) -> list[str]:
    """``SOURCE=/dev/disk/by-id/X``; whole disks only."""
    before, equals, _ = incomplete.rpartition("=")
    with suppress(OSError):
        names = sorted(os.listdir(BY_ID))
        return [f"{before}{equals}{BY_ID}{name}" for name in names if "-part" not in name and name.isprintable()]
    return []


def job_ids() -> list[tuple[str, str]]:
    """The latest first; only of this host's state folder."""
    from imgtool.runs.jobs import stores

    with suppress(ImgtoolError), stores(None) as known:
        found = [job for store in known for job in store.jobs()]
        return [(job.id, f"{job.state}, {job.machine or '?'}") for job in reversed(found) if job.id.isprintable()]
    return []


def machines(context: typer.Context) -> list[str]:
    """Names of the machines at ``--from``, wherever that stands in the line."""
    uri = _said(context, "source", "--from")
    if not uri or "://" not in uri:
        return []
    file = next((said for name, option in (("from_password_file", "--from-password-file"), ("password_file", "--password-file"))
                 if (said := _said(context, name, option))), None)
    return [name for name in _listed(uri, file) if name.isprintable()]


def machines_or_files(context: typer.Context, incomplete: str) -> list[str]:
    return [*machines(context), *machine_files(incomplete)]


def _said(context: typer.Context, name: str, option: str) -> str | None:
    """What an option has been given, before the cursor or behind it."""
    if context.params.get(name):
        return str(context.params[name])
    try:
        words = shlex.split(os.environ.get(AFTER, ""))
    except ValueError:  # a quote is open
        return None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option or word.startswith(f"{option}="):
            return (following if word == option else word.partition("=")[2]) or None
    return None


def _listed(uri: str, password_file: str | None) -> list[str]:
    """As ``migrate --list`` has them; a minute's old answer will do."""
    key = hashlib.sha256(json.dumps([uri, password_file]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgtool" / f"machines-{key}.json"
    with suppress(OSError, ValueError):
        names = json.loads(cache.read_text(encoding="utf-8"))
        if time.time() - cache.stat().st_mtime < (FRESH_SECONDS if names else FAILED_SECONDS):
            return [str(name) for name in names]
    names = _asked(uri, password_file)
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.write_text(json.dumps(names), encoding="utf-8")
    return names


def _asked(uri: str, password_file: str | None) -> list[str]:
    """In a process of its own: without a terminal it cannot ask for a password, and it ends in time."""
    from imgtool import proc
    from imgtool.endpoints.password import VARIABLE
    from imgtool.progress import Stop

    argv = [sys.executable, "-P", "-m", "imgtool", "migrate", "--list", "--json", f"--from={uri}",
            *([f"--password-file={password_file}"] if password_file else [])]
    try:
        done = proc.run(argv, stop=Stop(), limits=proc.Limits(seconds=SECONDS, memory=MEMORY), keep=(VARIABLE, "SSH_AUTH_SOCK"))
        return [str(one["name"]) for one in json.loads(done.stdout)["machines"]] if done.returncode == 0 else []
    except (ImgtoolError, OSError, ValueError):
        return []


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Folders, block devices, and files with one of the suffixes, as they would be typed."""
    folder, name = os.path.split(incomplete)
    with suppress(OSError), os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            shown = entry.name.startswith(name) and (name or not entry.name.startswith("."))
            if shown and entry.name.isprintable():
                mode = _mode(entry)
                if stat.S_ISDIR(mode):
                    yield os.path.join(folder, entry.name) + "/"
                elif entry.name.lower().endswith(suffixes) or stat.S_ISBLK(mode):
                    yield os.path.join(folder, entry.name)


def _mode(entry: os.DirEntry[str]) -> int:
    """0 for a link that leads nowhere, or in a circle."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0
