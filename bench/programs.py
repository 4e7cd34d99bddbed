"""The command lines of a conversion: imgtool's, and those of the best that there is beside it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.case import Command, Contender
from bench.measure import IMGTOOL

QEMU = ("qemu-img", "convert")
VARIANTS: tuple[tuple[str, ...], ...] = ((), ("-W", "-m", "16"), ("-W", "-m", "16", "-t", "none"))
"""Options of qemu-img that make it faster, or not: the fastest counts. ``-T none`` would read past the warm cache."""
CACHED: tuple[tuple[str, ...], ...] = VARIANTS[:2]
"""For sparse VMDK: with ``-t none`` qemu-img took 83 s where it took 15 s without (4 GiB)."""
IN_ORDER: tuple[tuple[str, ...], ...] = ((), ("-m", "16"))
"""For compressed qcow2: qemu-img does not write it out of order."""
ONE_BY_ONE: tuple[tuple[str, ...], ...] = ((),)
"""For streamOptimized: qemu-img compresses one grain after the other, whatever the options."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of image, in the words of both programs."""

    name: str
    suffix: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    variants: tuple[tuple[str, ...], ...] = VARIANTS

    @property
    def format(self) -> str:
        return self.theirs[1]


def _vmdk(subformat: str, ours: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    return ("--to", "vmdk", "--subformat", ours or subformat), ("-O", "vmdk", "-o", f"subformat={subformat}")


KINDS = {kind.name: kind for kind in (
    Kind("raw", "raw", ("--to", "raw"), ("-O", "raw")),
    Kind("qcow2", "qcow2", ("--to", "qcow2"), ("-O", "qcow2")),
    Kind("sparse", "vmdk", *_vmdk("monolithicSparse"), CACHED),
    Kind("flat", "vmdk", *_vmdk("monolithicFlat", "vmfs")),
    Kind("stream", "vmdk", *_vmdk("streamOptimized"), ONE_BY_ONE),
    Kind("vhdx", "vhdx", ("--to", "vhdx"), ("-O", "vhdx")),
    Kind("vdi", "vdi", ("--to", "vdi"), ("-O", "vdi")),
    Kind("qcow2, zlib", "qcow2", ("--to", "qcow2", "--compress", "--compress-type", "zlib"), ("-O", "qcow2", "-c"), IN_ORDER),
    Kind("qcow2, zstd", "qcow2", ("--to", "qcow2", "--compress", "--compress-type", "zstd"),
         ("-O", "qcow2", "-c", "-o", "compression_type=zstd"), IN_ORDER),
    Kind("qcow2, thick", "qcow2", ("--to", "qcow2", "--thick"), ("-O", "qcow2", "-o", "preallocation=falloc")),
    Kind("qcow2, eager", "qcow2", ("--to", "qcow2", "--eager"), ("-O", "qcow2", "-o", "preallocation=full")),
)}


@dataclass(frozen=True, slots=True)
class Source:
    """An image to read, and all its files."""

    kind: Kind
    path: Path
    files: tuple[Path, ...]

    def remove(self) -> None:
        for file in self.files:
            file.unlink()


def flush(target: Path, kind: Kind) -> Command:
    """qemu-img does not flush; imgtool does before it ends."""
    files = (target, target.with_name(f"{target.stem}-flat.vmdk")) if kind.name == "flat" else (target,)
    return ("sync", *files)


def ours(source: Source, to: Kind, work: Path, *options: str, name: str = "imgtool", family: str = "imgtool") -> Contender:
    """imgtool, without verification unless the options say so."""
    folder = work / "imgtool"
    verify = () if "--verify" in options else ("--no-verify",)
    command = (*IMGTOOL, "convert", source.path, folder / f"x.{to.suffix}", *to.ours, *verify, *options)
    return Contender(family, name, (command,), folder)


def qemu(source: Source, to: Kind, work: Path, *, compare: bool = False) -> tuple[Contender, ...]:
    """qemu-img with each set of options, flushed; and compared, if said."""
    found = []
    folder = work / "qemu-img"
    target = folder / f"x.{to.suffix}"
    for options in to.variants:
        convert = (*QEMU, "-f", source.kind.format, *to.theirs, *options, source.path, target)
        commands: list[Command] = [convert, flush(target, to)]
        if compare:
            commands.append(compared(source, to, target))
        found.append(Contender("qemu-img", " ".join(("qemu-img", *options)), tuple(commands), folder))
    return tuple(found)


def compared(source: Source, to: Kind, target: Path) -> Command:
    return ("qemu-img", "compare", "-f", source.kind.format, "-F", to.format, source.path, target)


def cp(file: Path, work: Path, option: str) -> Contender:
    """cp of the one file that has the data."""
    target = work / "cp" / "x.raw"
    return Contender("cp", f"cp {option}", (("cp", option, file, target), ("sync", target)), target.parent)


def nbdcopy(file: Path, work: Path) -> tuple[Contender, ...]:
    """Where it is installed."""
    target = work / "nbdcopy" / "x.raw"
    command = ("nbdcopy", "--destination-is-zero", "--flush", file, target)
    create = ("truncate", "--size", str(file.stat().st_size), target)
    return (Contender("nbdcopy", "nbdcopy", (create, command), target.parent),) if shutil.which("nbdcopy") else ()
