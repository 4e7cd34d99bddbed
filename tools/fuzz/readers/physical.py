"""What physical disks say: signatures in their first and last bytes, and smartctl's JSON. The first byte chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from imgtool.endpoints.metal.describe import health_of
from imgtool.endpoints.metal.signatures import signatures
from tools.fuzz.target import Reader, Target

ATA = {"smart_status": {"passed": True}, "temperature": {"current": 30}, "power_on_time": {"hours": 5},
       "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 1}}, {"id": 197, "raw": {"value": 0}}]}}
NVME = {"smart_status": {"passed": False}, "nvme_smart_health_information_log": {"media_errors": 3, "percentage_used": 7}}


def seeds(folder: Path) -> Iterator[bytes]:
    yield b"\0" + json.dumps(ATA).encode()
    yield b"\0" + json.dumps(NVME).encode()
    yield b"\1" + bytes(510) + b"\x55\xaa" + b"LABELONE" + bytes(3000)


def reader(folder: Path) -> Reader:
    def read(data: bytes) -> None:
        if data[:1] == b"\0":
            try:
                said = json.loads(data[1:])
            except (ValueError, RecursionError):
                return
            health_of(said)
        else:
            half = len(data) // 2
            assert all(one.offset >= 0 for one in signatures(data[1:half], data[half:], 1 << 20))

    return read


TARGET = Target(seeds, reader, (b'"passed": true', b'"table": ', b'"raw": ', b'"value": ', b"null", b"[]", b"1e999", b"LABELONE",
                                b"\xfc\x4e\x2b\xa9", b"LUKS\xba\xbe", b"XFSB", b"EFI PART"), largest=16 << 10)
