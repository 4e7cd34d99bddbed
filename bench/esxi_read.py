"""Reads a disk of a machine on a vSphere server with so many connections, and drops the bytes.

    python -m bench.esxi_read URI PASSWORD_FILE MACHINE STREAMS
"""

from __future__ import annotations

import sys

from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import VSphereSource, connect
from imgtool.model.endpoint import Credentials
from imgtool.progress import Control


class Nowhere:
    def write(self, offset: int, data: memoryview) -> None:
        """As curl's --output /dev/null."""

    def zero(self, offset: int, length: int) -> None:
        """The same."""


def main(uri: str, password_file: str, name: str, streams: int) -> None:
    address = parse(uri)
    there = VSphereSource(connect(address, Credentials(password_file=password_file), streams=streams), address)
    try:
        seen = there.look(there.find(name), Control())
        with there.reader(seen, 0, Control()) as disk:
            disk.read([(0, disk.size)], Nowhere(), Control())
    finally:
        there.close()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
