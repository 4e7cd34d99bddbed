"""Texts and names from strangers: whatever stands in a descriptor, the parser answers, and soon."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.errors import DamagedError
from imgtool.formats.vmdk.descriptor import MAX_DESCRIPTOR, parse

ROOT = Path(__file__).resolve().parents[2]
HEAD = '# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
WORDS = st.sampled_from(
    [
        "RW",
        "RDONLY",
        "NOACCESS",
        "0",
        "1",
        "-1",
        "2048",
        "18014398509481984",
        "9" * 25,
        "9" * 5000,
        "FLAT",
        "VMFS",
        "ZERO",
        "SPARSE",
        "VMFSRDM",
        '"',
        '"x-flat.vmdk"',
        '"../x"',
        "=",
        "createType",
        "CID",
        "parentCID",
        "parentFileNameHint",
        "encoding",
        "ddb.x",
        '"punycode"',
        '"utf-16"',
        '"idna"',
        '"rot13"',
        '"zlib"',
        "\n",
        "\n",
        "\r\n",
        "\0",
        " ",
        "\t",
        "\x1b[31m",
        "٣",
        "\u2028",
        "#",
    ]
)
"""What a descriptor is made of, and what it should not have."""


@given(st.lists(WORDS, max_size=60).map(" ".join), st.booleans())
def test_any_words_are_read_or_damaged(text: str, with_head: bool) -> None:
    raw = (HEAD * with_head + text).encode()
    try:
        found = parse(raw, "x.vmdk")
    except DamagedError:
        return
    assert 0 <= found.sectors * 512 < 1 << 63
    assert found.extents


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_damaged(raw: bytes) -> None:
    with suppress(DamagedError):
        assert parse(HEAD.encode() + raw, "x.vmdk").extents


@given(st.text(alphabet=st.characters(exclude_characters='"\n\r\0', exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=50))
def test_a_name_in_quotes_is_taken_as_it_is(name: str) -> None:
    found = parse((HEAD + f'RW 1 FLAT "{name}" 7\nparentFileNameHint="{name}"\n').encode(), "x.vmdk")
    assert (found.extents[0].name, found.extents[0].offset, found.parent) == (name, 7, name or None)


SLOW = {
    "spaces in a value": b"a=x" + b" " * (MAX_DESCRIPTOR - 500) + b"y",
    "spaces before the sign": b"a" + b" " * (MAX_DESCRIPTOR - 500) + b"y",
    "quotes": b'a="' * ((MAX_DESCRIPTOR - 500) // 3),
    "spaces in an extent": b"RW" + b" " * (MAX_DESCRIPTOR - 500) + b"x",
    "quotes in an extent": b'RW 1 FLAT "' + b'" ' * ((MAX_DESCRIPTOR - 500) // 2),
    "digits": b"RW " + b"1" * (MAX_DESCRIPTOR - 500) + b" FLAT",
    "encodings": b"encoding = \n" * ((MAX_DESCRIPTOR - 500) // 12),
    "a slow codec": b'encoding="punycode"\n'
    + "".join(chr(97 + i % 26) for i in range(1 << 20)).encode()[: MAX_DESCRIPTOR - 900]
    + b"-"
    + b"a" * 300,
}
CHILD = """
import sys
from imgtool.errors import DamagedError
from imgtool.formats.vmdk.descriptor import is_descriptor, parse
raw = sys.stdin.buffer.read()
is_descriptor(raw)
try:
    parse(raw, 'x')
except DamagedError:
    pass
print('ended')
"""


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
def test_a_megabyte_of_nonsense_is_read_soon(text: bytes) -> None:
    """In a process of its own: a regular expression that runs away cannot be interrupted."""
    raw = b'# Disk DescriptorFile\ncreateType="x"\nRW 1 ZERO\n' + text + b"\n"
    assert len(raw) <= MAX_DESCRIPTOR
    done = subprocess.run([sys.executable, "-c", CHILD], input=raw, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.stdout == b"ended\n", done.stderr.decode()


IMPOSSIBLE = {
    "a number of 5000 digits": "RW " + "1" * 5000 + " ZERO\n",
    "more bytes than an offset has": "RW 18014398509481984 ZERO\n",
    "an offset of 19 digits": 'RW 1 FLAT "x" 1000000000000000000\n',
    "extents that are too large together": "RW 18014398509481983 ZERO\n" * 2,
}


@pytest.mark.parametrize("lines", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_sizes_are_damaged(lines: str) -> None:
    with pytest.raises(DamagedError, match=re.compile("impossible|larger than any disk")):
        parse((HEAD + lines).encode(), "x.vmdk")


@pytest.mark.parametrize("name", ["punycode", "idna", "unicode_escape", "-punycode"])
def test_pythons_own_codecs_are_no_encodings(name: str) -> None:
    raw = HEAD.replace("UTF-8", name) + 'RW 1 FLAT "a\\u0041-.vmdk"\n'
    assert parse(raw.encode(), "x.vmdk").extents[0].name == "a\\u0041-.vmdk"
