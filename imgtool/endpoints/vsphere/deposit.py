"""A new machine where no lease is given: its files are put into a folder of a datastore, and the ``.vmx`` is registered.

Zeros travel, and the disks take all their space. There is no partial PUT: what failed begins again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace

from imgtool.descriptions import description
from imgtool.endpoints.vsphere import machines
from imgtool.endpoints.vsphere.folder import Folder, StorePath
from imgtool.endpoints.vsphere.incoming import Destination
from imgtool.endpoints.vsphere.login import Session
from imgtool.formats.disk import Disk
from imgtool.formats.layer import SECTOR
from imgtool.formats.vmdk import descriptor as vmdk
from imgtool.formats.vmdk.write import DEFAULT_HARDWARE, UNMANAGED_TOOLS
from imgtool.model import Kind
from imgtool.model.devices import Bus
from imgtool.model.endpoint import Place
from imgtool.model.machine import Machine
from imgtool.progress import Control, Named, Stop

PIECE = 1 << 20


def deposit(session: Session, to: Destination, center: Place, folder: str, made: Machine, disks: Sequence[Disk],
            control: Control) -> str:
    """Fills ``[datastore] folder``, which is new, and registers it; the machine's id. What fails is the caller's to remove."""
    files = Folder(session, center.name)
    place = StorePath.parse(folder)
    machines.make_directory(session, folder, center.id)
    names = [f"{made.name}_{number}" if number else made.name for number in range(len(disks))]
    _upload(files, place, names, disks, control)
    for slot, name, disk in zip(made.disks, names, disks, strict=True):
        adapter = "ide" if slot.bus == Bus.IDE else "lsilogic"
        files.write(_below(place, f"{name}.vmdk"), _described(made, name, disk, adapter=adapter))
    slots = tuple(replace(slot, path=f"{name}.vmdk") for slot, name in zip(made.disks, names, strict=True))
    vmx = _below(place, f"{made.name}.vmx")
    files.write(vmx, description(".vmx").render(replace(made, disks=slots)).text)
    return machines.register(session, str(vmx), made.name, control.stop, folder=to.folder, pool=to.pool, host=to.host)


def _below(place: StorePath, name: str) -> StorePath:
    return StorePath(place.store, f"{place.path}/{name}")


def _described(made: Machine, name: str, disk: Disk, *, adapter: str) -> bytes:
    line = vmdk.ExtentLine("RW", disk.virtual_size // SECTOR, "VMFS", f"{name}-flat.vmdk")
    return vmdk.render("vmfs", (line,), adapter=adapter, hardware=str(made.hardware_version or DEFAULT_HARDWARE),
                       tools=UNMANAGED_TOOLS, thin=False)


def _upload(files: Folder, place: StorePath, names: Sequence[str], disks: Sequence[Disk], control: Control) -> None:
    """All disks at once. The first that fails stops the others."""
    own = replace(control, stop=Stop(control.stop))

    def one(name: str, disk: Disk) -> None:
        shown = replace(own, progress=Named(control.progress, name))
        files.upload(_below(place, f"{name}-flat.vmdk"), _bytes(disk, shown), disk.virtual_size)

    with ThreadPoolExecutor(max(1, len(disks)), thread_name_prefix="upload") as pool:
        futures = [pool.submit(one, name, disk) for name, disk in zip(names, disks, strict=True)]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((error for each in done if (error := each.exception())), None)
        if failed is not None:
            own.stop.set()
            raise failed


def _bytes(disk: Disk, control: Control) -> Iterator[bytes | memoryview]:
    zeros = bytes(PIECE)
    with control.progress.bar(disk.virtual_size, "send") as bar:
        for extent in disk.content():
            for low in range(extent.start, extent.end, PIECE):
                count = min(PIECE, extent.end - low)
                control.stop.check()
                control.rate.take(count, control.stop)
                yield memoryview(disk.read(extent.part(low, low + count))) if extent.kind == Kind.DATA else zeros[:count]
                bar.update(count)
