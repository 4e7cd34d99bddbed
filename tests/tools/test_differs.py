"""What is compared at the end of a copy, and what becomes of one that is not the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgtool.errors import DifferError
from imgtool.formats.disk import Disk, open_disk
from imgtool.model import ConvertRequest
from imgtool.progress import Control
from imgtool.steps import convert as steps
from imgtool.steps.convert import convert
from imgtool.steps.spec import image_spec
from tests import oracle
from tests.oracle import tool


@pytest.mark.parametrize(("form", "copier"), [("qcow2", "_write_native"), ("vhdx", "_write_qemu")])
@pytest.mark.parametrize(("wrong", "words"), [("bytes", "differs from the source at byte"), ("size", "the copy has")])
def test_a_copy_that_differs_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, copier: str, wrong: str,
                                            words: str) -> None:
    """And what was to be replaced by it stays."""
    (tmp_path / "a.raw").write_bytes(os.urandom(1 << 20))
    with (tmp_path / "b.raw").open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.truncate(1 << 20 if wrong == "bytes" else 2 << 20)
    destination = tmp_path / f"old.{form}"
    tool("qemu-img", "create", "-q", "-f", form, destination, "1M")
    before, real = oracle.state(tmp_path), getattr(steps, copier)

    def other(request: ConvertRequest, _disk: Disk, folder: str, name: str, control: Control) -> object:
        with open_disk(str(tmp_path / "b.raw"), source_format="raw") as disk:
            return real(request, disk, folder, name, control)

    monkeypatch.setattr(steps, copier, other)
    spec = image_spec(form, subformat=None, allocation=None, compress=False)
    request = ConvertRequest(source=str(tmp_path / "a.raw"), destination=str(destination), spec=spec, force=True)
    with pytest.raises(DifferError, match=words) as caught:
        convert(request, Control())
    assert caught.value.exit_code == 3
    assert oracle.state(tmp_path) == before


def test_what_qemu_has_written_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(os.urandom(3 << 20) + bytes(5 << 20))
    os.truncate(tmp_path / "a.raw", 64 << 20)
    request = ConvertRequest(source=str(tmp_path / "a.raw"), destination=str(tmp_path / "b.vhdx"),
                             spec=image_spec("vhdx", subformat=None, allocation=None, compress=False))
    made = convert(request, Control())
    assert made.bytes_written == os.stat(tmp_path / "b.vhdx").st_blocks * 512 >= 3 << 20
    assert made.bytes_read == 8 << 20


def test_a_flag_that_a_way_does_not_know_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    for form, compress, words in (("vhdx", False, "qemu-img always leaves written zeros out"),
                                  ("qcow2", True, "a compressed image never holds written zeros"), ("qcow2", False, None)):
        spec = image_spec(form, subformat=None, allocation=None, compress=compress)
        request = ConvertRequest(source=str(tmp_path / "a.raw"), destination=str(tmp_path / f"{compress}.{form}"), spec=spec,
                                 detect_zeroes=False)
        assert list(convert(request, Control()).warnings) == ([words] if words else [])
