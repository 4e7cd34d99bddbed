"""What is inflated: whole streams, streams with something behind them, cut-off ones, damaged ones."""

from __future__ import annotations

import random
import zlib

import pytest

from imgtool import codec

SIZE = 64 << 10
PLAIN = random.Random(7).randbytes(SIZE // 4) + bytes(SIZE // 2) + b"abc" * (SIZE // 12)


def packed(*, bare: bool) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
    return packer.compress(PLAIN) + packer.flush()


@pytest.mark.parametrize("bare", [False, True])
def test_a_stream_ends_where_it_says(bare: bool) -> None:
    payload = packed(bare=bare)
    for room in (len(PLAIN), len(PLAIN) + 1):
        assert codec.inflate(payload, room, bare=bare) == PLAIN
        assert codec.inflate(payload + b"what follows", room, bare=bare) == PLAIN


@pytest.mark.parametrize("bare", [False, True])
def test_no_more_than_there_is_room_for(bare: bool) -> None:
    assert codec.inflate(packed(bare=bare), 1000, bare=bare) == PLAIN[:1000]


@pytest.mark.parametrize("bare", [False, True])
def test_a_stream_that_is_cut_off_gives_what_there_is(bare: bool) -> None:
    found = codec.inflate(packed(bare=bare)[:9000], SIZE, bare=bare)
    assert 0 < len(found) < len(PLAIN)
    assert PLAIN.startswith(found)


def test_a_damaged_stream_gives_nothing() -> None:
    payload = packed(bare=False)
    assert codec.inflate(b"\xff" * 100, SIZE) == b""
    assert codec.inflate(payload[:-1] + bytes([payload[-1] ^ 1]), SIZE + 1) == b"", "the checksum was not looked at"
