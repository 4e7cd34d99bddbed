"""qemu-img and qemu-nbd as typed functions. The format of every image is always given, never probed."""

from __future__ import annotations

import json
import os
import re
import socket as socketlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from imgtool import files, proc, storage
from imgtool.errors import DamagedError, ImgtoolError, NoSpaceError, RefusedError
from imgtool.model import ImageFile
from imgtool.progress import Control, Stop

INFO_LIMITS = proc.Limits(seconds=20, memory=2 << 30)
CHECK_LIMITS = proc.Limits(seconds=3600, memory=8 << 30)
"""A check reads all metadata: of a large disk on a slow storage it takes long."""
COPY_LIMITS = proc.Limits(seconds=None, memory=8 << 30)
FULL = 1 << 20
"""Bytes. With less than this free, a write that failed did so for want of space: qemu-img names other reasons for VMDK."""
PERCENT = re.compile(r"\(\s*([0-9.]+)/100%\)")

Graph = Mapping[str, object]
"""A block graph in QEMU's words (``BlockdevOptions``): what ``json:`` file names and ``--image-opts`` take."""


def file_node(file: ImageFile, *, locking: bool = True) -> Graph:
    """A file in QEMU's words. Without ``locking`` it is read although a machine writes to it.

    The words are JSON, which cannot hold a name that is no UTF-8: such a file goes by our descriptor.
    So does an archive, of which QEMU shall see a range.
    """
    path = file.path if is_utf8(file.path) and not file.base else f"/proc/{os.getpid()}/fd/{file.fd}"
    driver = "host_device" if path.startswith("/dev/") and not os.path.isfile(path) else "file"
    whole = {"driver": driver, "filename": path, "locking": "auto" if locking else "off"}
    return {"driver": "raw", "offset": file.base, "size": file.size, "file": whole} if file.base else whole


def is_utf8(path: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in path)


def info(path: str, driver: str, *, stop: Stop) -> dict[str, object]:
    """``qemu-img info`` of one image, its backing file untouched. Raises DamagedError."""
    done = proc.run(["qemu-img", "info", "-U", "--output=json", "-f", driver, path], stop=stop, limits=INFO_LIMITS)
    if done.returncode:
        raise DamagedError(f"{path}: {_reason(done.stderr)}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def check(graph: Graph, *, stop: Stop) -> tuple[dict[str, object], str]:
    """``qemu-img check``: its report and what it said."""
    argv = ["qemu-img", "check", "-U", "--output=json", "json:" + json.dumps(graph)]
    done = proc.run(argv, stop=stop, limits=CHECK_LIMITS)
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        return {"check-errors": 1}, _reason(done.stderr)


def convert(source: Graph, destination: str, driver: str, *, options: Sequence[tuple[str, str]], compress: bool,
            size: int, control: Control) -> None:
    """``qemu-img convert`` to a new file. ``size`` in bytes, for progress. Raises NoSpaceError, RefusedError, ImgtoolError."""
    argv = ["qemu-img", "convert", "-p", "-O", driver]
    if compress:
        argv.append("-c")
    if control.rate.limit:
        argv += ["-r", str(control.rate.limit)]
    if options:
        argv += ["-o", ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options)]
    argv += ["json:" + json.dumps(source), destination]
    with control.progress.bar(size, "convert") as bar:
        shown = 0

        def on_line(line: str) -> None:
            nonlocal shown
            if match := PERCENT.search(line):
                done = int(size * float(match[1]) / 100)
                bar.update(done - shown)
                shown = done

        finished = proc.run(argv, stop=control.stop, on_line=on_line, limits=COPY_LIMITS)
    if finished.returncode:
        raise _failure(finished.stderr, destination)


def create_overlay(path: str, backing: str, size: int, *, stop: Stop) -> None:
    """An empty qcow2 image over raw bytes (a file, an NBD URI) that are not opened here. Raises ImgtoolError."""
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path, str(size)]
    done = proc.run(argv, stop=stop, limits=INFO_LIMITS)
    if done.returncode:
        raise ImgtoolError(f"qemu-img create: {_reason(done.stderr)}")


def commit(graph: Graph, *, stop: Stop) -> None:
    """Writes what the top image of a graph holds into the one below it, and flushes that. Raises NoSpaceError, ImgtoolError."""
    done = proc.run(["qemu-img", "commit", "-q", "-d", "json:" + json.dumps(graph)], stop=stop, limits=COPY_LIMITS)
    if done.returncode and _is_full(done.stderr):
        raise NoSpaceError(f"no space left: {_reason(done.stderr)}")
    if done.returncode:
        raise ImgtoolError(f"qemu-img commit: {_reason(done.stderr)}")


def _is_full(stderr: str) -> bool:
    return "No space left" in stderr or "Disk quota exceeded" in stderr


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"^qemu-(img|nbd): ", "", lines[-1]) if lines else "qemu-img failed without a word"


def _failure(stderr: str, destination: str) -> ImgtoolError:
    reason = _reason(stderr)
    full = "error while writing" in stderr and storage.free_space(os.path.dirname(destination)) < FULL
    if full or _is_full(stderr):
        return NoSpaceError(f"no space left while writing {destination}", "free some space, or choose another file system")
    if "Failed to get" in stderr and "lock" in stderr:
        return RefusedError(f"an image is in use: {reason}", "shut down the machine that uses it")
    return ImgtoolError(f"qemu-img convert: {reason}")


def _listens(path: str) -> bool:
    """Whether a server takes connections there: the socket is in the directory a moment earlier."""
    with socketlib.socket(socketlib.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


@contextmanager
def nbd_server(graph: Graph, *, stop: Stop) -> Iterator[str]:
    """Serves an image, read-only, on a Unix socket; yields the socket's path."""
    with files.scratch("nbd") as folder:
        socket = os.path.join(folder, "nbd.sock")
        argv = ["qemu-nbd", "--persistent", "--read-only", "--shared=8", "--socket", socket, "json:" + json.dumps(graph)]
        with proc.serve(argv, lambda: _listens(socket), stop=stop, limits=COPY_LIMITS):
            yield socket
