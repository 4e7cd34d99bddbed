"""What options of an image do not go together: each refused, with what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imgtool.errors import UsageError
from imgtool.model import Allocation, ImageSpec
from imgtool.steps.spec import check_size, destination_of, image_spec

TIB = 1 << 40


def spec(form: str, **said: Any) -> ImageSpec:
    return image_spec(form, **{"subformat": None, "allocation": None, "compress": False, **said})


@pytest.mark.parametrize(("form", "said", "words"), [
    ("vmdk", {"subformat": "twoGbMaxExtentFlat", "options": (("subformat", "monolithicFlat"),)}, "do not agree"),
    ("qcow2", {"compress": True, "allocation": Allocation.THICK}, "a compressed image cannot be thick"),
    ("vmdk", {"subformat": "streamOptimized", "allocation": Allocation.EAGER}, "a compressed image cannot be eager"),
    ("raw", {"compress": True}, "raw cannot be compressed"),
    ("vmdk", {"compress": True, "subformat": "monolithicSparse"}, "monolithicSparse cannot be compressed"),
    ("qcow2", {"compress_type": "zstd"}, "goes with --compress"),
    ("vmdk", {"compress": True, "compress_type": "zlib"}, "goes with --compress --to qcow2"),
    ("qcow2", {"compress": True, "compress_type": "lzma"}, "unknown compression type 'lzma'"),
    ("qcow2", {"compress": True, "compress_level": 10}, "1 .fast. to 9 .small."),
    ("qcow2", {"compress": True, "compress_level": 0}, "1 .fast. to 9 .small."),
    ("qcow2", {"compress_level": 3}, "--compress-level goes with --compress"),
    ("qcow2", {"compress": True, "compress_type": "zstd", "options": (("compat", "0.10"),)}, "has no zstd"),
    ("vhdx", {"subformat": "fixed", "allocation": Allocation.THIN}, "fixed is not thin"),
    ("vdi", {"subformat": "dynamic", "allocation": Allocation.THICK}, "dynamic is not thick"),
    ("raw", {"options": (("size", "1"),)}, "raw has no -o options"),
])
def test_what_does_not_go_together(form: str, said: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        spec(form, **said)


def test_what_is_left_out_is_filled_in() -> None:
    packed = spec("vmdk", compress=True)
    assert (packed.subformat, packed.allocation) == ("streamOptimized", Allocation.THIN)
    assert spec("vmdk", options=(("subformat", "monolithicFlat"),)).allocation == Allocation.THICK
    assert spec("vhdx", subformat="fixed").allocation == Allocation.THICK
    assert spec("qcow2", compress=True).compress_type == "zstd"
    assert spec("qcow2", compress=True, options=(("compat", "0.10"),)).compress_type == "zlib"


def test_what_a_format_does_not_hold() -> None:
    for form, size, words, said in (("vmdk", 3 * TIB, "at most 2 TiB of data",
                                     {"subformat": "monolithicSparse", "allocation": Allocation.THICK}),
                                    ("vpc", 2041 << 30, "more than a VHD holds", {}),
                                    ("vhdx", 65 * TIB, "more than a VHDX holds", {}), ("vdi", 0, "of 0 bytes", {})):
        with pytest.raises(UsageError, match=words):
            check_size(spec(form, **said), f"a.{form}", size)
    check_size(spec("vmdk", subformat="monolithicSparse"), "a.vmdk", 3 * TIB)


@pytest.mark.parametrize(("name", "form", "other"), [
    ("a.vmdk", "qcow2", "vmdk"), ("a-flat.vmdk", "vmdk", "raw"), ("a.RAW", "vdi", "raw")])
def test_a_name_that_says_another_format(tmp_path: Path, name: str, form: str, other: str) -> None:
    with pytest.raises(UsageError, match=f"is a name for {other}, not for {form}"):
        destination_of("s.raw", str(tmp_path / name), form)
    assert destination_of("s.raw", str(tmp_path / "a.qcow2"), "qcow2") == str(tmp_path / "a.qcow2")
