"""Every kind of image that imgtool writes, and what must be true of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fixtures import patterns
from imgtool.model import Allocation, ConvertRequest, ConvertResult, ImageSpec
from imgtool.progress import Control
from imgtool.steps.convert import convert
from imgtool.steps.spec import SUFFIX_OF, image_spec
from tests import oracle
from tests.images import Source


@dataclass(frozen=True)
class Goal:
    """What the command line would say after ``--to``."""

    format: str
    allocation: str = "thin"
    subformat: str | None = None
    options: tuple[str, ...] = ()
    compress: str | None = None

    @property
    def spec(self) -> ImageSpec:
        """As the command line makes it."""
        pairs = tuple((key, value) for key, _, value in (option.partition("=") for option in self.options))
        kind = self.compress if self.format == "qcow2" else None
        return image_spec(self.format, subformat=self.subformat, allocation=Allocation(self.allocation),
                          compress=bool(self.compress), compress_type=kind, options=pairs)

    @property
    def words(self) -> list[str]:
        """The command line's words."""
        words = ["--to", self.format, f"--{self.allocation}", *(word for one in self.options for word in ("-o", one))]
        words += ["--subformat", self.subformat] if self.subformat else []
        return words + (["--compress", "--compress-type", self.compress] if self.compress else [])

    @property
    def name(self) -> str:
        """The name of the result: ``y`` with the format's suffix."""
        return "y" + SUFFIX_OF[self.format]


def _each(name: str, fmt: str, subformat: str | None = None, *options: str) -> dict[str, Goal]:
    return {f"{name}-{how}": Goal(fmt, how, subformat, options) for how in ("thin", "thick", "eager")}


VMDK = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs")
WRITABLE: dict[str, Goal] = {
    **_each("raw", "raw"),
    **_each("qcow2", "qcow2"),
    **{name: goal for subformat in VMDK for name, goal in _each(subformat, "vmdk", subformat).items()},
    "streamOptimized": Goal("vmdk", subformat="streamOptimized"),
    "qcow2-zlib": Goal("qcow2", compress="zlib"),
    "qcow2-zstd": Goal("qcow2", compress="zstd"),
    **_each("vhdx", "vhdx"),
    **_each("vpc", "vpc"),
    **_each("vdi", "vdi"),
}
"""Every format, subformat and allocation."""
VARIANTS: dict[str, Goal] = {
    **_each("qcow2-0.10", "qcow2", None, "compat=0.10"),
    **_each("qcow2-extended", "qcow2", None, "extended_l2=on"),
    **_each("qcow2-512", "qcow2", None, "cluster_size=512"),
    **_each("qcow2-2M", "qcow2", None, "cluster_size=2M"),
    **_each("qcow2-extended-2M", "qcow2", None, "extended_l2=on", "cluster_size=2M"),
    "qcow2-1-bit": Goal("qcow2", "thick", options=("refcount_bits=1", "lazy_refcounts=on")),
    "qcow2-64-bits": Goal("qcow2", "thick", options=("refcount_bits=64", "cluster_size=4k")),
    "qcow2-4-bits": Goal("qcow2", options=("refcount_bits=4", "cluster_size=512")),
    "vmfs-ide": Goal("vmdk", subformat="vmfs", options=("adapter_type=ide", "hwversion=11")),
    "qcow2-zstd-2M": Goal("qcow2", compress="zstd", options=("cluster_size=2M",)),
}
"""What ``-o`` can make of them."""


def request(source: Source, goal: Goal, directory: Path) -> ConvertRequest:
    """Convert into a directory."""
    return ConvertRequest(source=str(source.path), destination=str(directory / goal.name), spec=goal.spec)


def run(source: Source, goal: Goal, directory: Path) -> ConvertResult:
    """Convert in this process: a hundred times quicker than starting a program for each."""
    return convert(request(source, goal, directory), Control())


def payload(files: tuple[str, ...]) -> list[Path]:
    """The files that hold data: without the descriptor, which comes last."""
    return [Path(name) for name in files[:-1] or files]


def judge(source: Source, goal: Goal, made: ConvertResult, raw: Path) -> None:
    """What others say of a result. ``raw`` holds what a guest reads of the source, and does not come from imgtool."""
    path = Path(made.destination)
    oracle.same(path, goal.format, raw, "raw")
    assert raw.stat().st_size == source.size == made.virtual_size, made
    oracle.clean(path, goal.format)
    is_so = oracle.allocation(payload(made.files), source.size)
    assert is_so == goal.allocation == made.allocation, (is_so, made, [oracle.space(one) for one in payload(made.files)])
    assert made.verified, made
    beside = {one.name for one in path.parent.iterdir()}
    assert beside == {Path(name).name for name in made.files}, beside


def seen(source: Source, path: Path) -> Path:
    """What a guest reads of a source, as a raw file."""
    return patterns.write_raw(path, source.pieces)
