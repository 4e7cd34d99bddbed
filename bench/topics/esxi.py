"""A disk from a vSphere server (simulated, TLS on loopback), next to curl; and from one that caps each stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.case import Bound, Case, Contender
from bench.measure import GIB, MIB
from bench.sources import raw
from bench.topics import Settings
from fixtures.esxi import Datastore, Registered, Simulator, esxi
from tests.esxi.machines import describe

STREAMS = 8
CAPPED = 48 * MIB
"""Bytes a second of each stream, in the second case."""
OF_CURL = 0.8
OF_ONE = 4.0
NAME = "web01"


def cases(settings: Settings) -> Iterator[Case]:
    store = settings.place / "datastore"
    (store / NAME).mkdir(parents=True)
    with raw(settings.place, "esxi", settings.data, settings.data) as disk:
        flat = store / NAME / f"{NAME}-flat.vmdk"
        flat.hardlink_to(disk.path)
        registered = Registered(path=f"[ds] {describe(store, NAME, [settings.data])}")
        with esxi([Datastore(name="ds", directory=store)], [registered]) as server:
            yield Case(f"read from ESXi, {settings.data / GIB:g} GiB", _ours(server, STREAMS), (_curl(server), _ours(server, 1)),
                       (flat,), (Bound("curl", OF_CURL),))
            server.order(bytes_per_second=CAPPED)
            yield Case(f"the same, {CAPPED / MIB:g} MiB/s a stream", _ours(server, STREAMS), (_ours(server, 1),), (flat,),
                       (Bound("imgtool, 1 stream", OF_ONE),), runs=1)
        flat.unlink()


def _ours(server: Simulator, streams: int) -> Contender:
    name = "imgtool" if streams > 1 else "imgtool, 1 stream"
    return Contender(name, name, ((sys.executable, "-m", "bench.esxi_read", server.uri(), server.password_file, NAME, streams),))


def _curl(server: Simulator) -> Contender:
    """The password in a file: not in the list of processes."""
    config = server.scratch / "curl"
    config.touch(mode=0o600)
    config.write_text(f'user = "{server.user}:{server.password}"\n', encoding="utf-8")
    url = f"https://{server.host}:{server.port}/folder/{NAME}/{NAME}-flat.vmdk?dsName=ds"
    return Contender("curl", "curl", (("curl", "--silent", "--fail", "--config", config, "--cacert", server.ca_file,
                                       "--output", Path("/dev/null"), url),))
