"""An ESXi host or a vCenter as the place that machines go to: through an import lease, or where none is given as files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from imgtool import codec
from imgtool.copying.stream import stream
from imgtool.descriptions import ovf
from imgtool.descriptions.ovf.hardware import network_name
from imgtool.endpoints.vsphere import deposit, exports, hardware, incoming, inventory, lease, leftover, machines, properties
from imgtool.endpoints.vsphere.facts import facts
from imgtool.endpoints.vsphere.folder import Folder, StorePath
from imgtool.endpoints.vsphere.incoming import Destination, Wanted
from imgtool.endpoints.vsphere.lease import LeaseRefusedError
from imgtool.endpoints.vsphere.leftover import Leftover
from imgtool.endpoints.vsphere.login import Session, clock_skew
from imgtool.endpoints.vsphere.readback import Comparing
from imgtool.endpoints.vsphere.readers import From
from imgtool.endpoints.vsphere.shell import Shell, uri_of
from imgtool.errors import ImgtoolError, RefusedError, StoppedError, UsageError
from imgtool.formats.disk import Disk
from imgtool.formats.vmdk.write import stream_descriptor
from imgtool.model import ImageSpec
from imgtool.model.devices import Backing
from imgtool.model.endpoint import Found, NewDisk, Places, Placing, Power, RemoteDisk, Uri
from imgtool.model.machine import Machine
from imgtool.model.situation import TargetState
from imgtool.model.translation import World
from imgtool.progress import Control, Named, Stop

STREAM = ImageSpec(format="vmdk", subformat="streamOptimized")
WATCH_SECONDS = 180.0
POLL = 2.0


class VSphereTarget:
    """Implements ``endpoints.FarTarget``."""

    world = World.ESXI
    suffix = ".ovf"
    formats: tuple[str, ...] = ("vmdk",)
    temporary = ".imgtool-new"
    sets_uuid = True
    folder: str | None = None

    def __init__(self, session: Session, uri: Uri) -> None:
        self.session = session
        self._shell = Shell(uri_of(uri))
        self._exports = exports.Exports(session)
        self._places = Places()
        self._placing = Placing()
        self._devices: dict[str, list[str]] = {}
        """Of the machines that were sent: which device each disk is, by its slot or as the lease has called it."""

    def look(self, placing: Placing, control: Control) -> TargetState:
        places = machines.places(self.session)
        to = incoming.destination(places, _wanted(placing), placing.networks)
        self._places, self._placing = places, placing
        store = next(one for one in places.stores if one.id == to.store)
        newest, resting = hardware.newest(self.session, to.pool)
        return TargetState(
            kind="esxi", machines=machines.taken(self.session), networks=tuple(one.name for one in places.networks),
            storage=store.name, storages=tuple(one.name for one in places.stores if one.writable), free=store.free,
            can_write=places.writable, can_resume=False, hardware_version=newest, maintenance=resting,
            tls=self.session.account.trust.word, clock_skew=clock_skew(self.session))

    def send(self, name: str, made: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], state: str,
             control: Control) -> str:
        """``look`` has been called. Nothing of it can go on: a disk is sent whole, what fails is removed."""
        for _, disk in disks:
            disk.refuse_encrypted()
        self._clear(state, control.stop)
        if any(one.name == name for one in inventory.machines(self.session)):
            raise RefusedError(f"{self.session.account.host} has a machine {name}",
                               "of a run that was killed just now, it goes within five minutes; else remove it, or give another "
                               "name")
        machine = fitted(made, name, disks)
        networks = dict.fromkeys(each for nic in machine.nics if (each := network_name(nic.network)))
        to = incoming.destination(self._places, _wanted(self._placing), networks)
        if not self._places.writable:
            raise RefusedError("the licence of this host forbids writes through its API", "use a paid licence")
        try:
            return self._send(machine, ovf.render(machine, onto=text).text, disks, to, state, control)
        except BaseException as error:
            self._failed(state, error)
            raise

    def _send(self, machine: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], to: Destination, state: str,
              control: Control) -> str:
        leftover.note(state, Leftover(name=machine.name))
        try:
            made = self._leased(machine, text, disks, to, state, control)
        except LeaseRefusedError as refused:
            try:
                identity = self._deposited(machine, disks, to, state, control)
            except StoppedError:
                raise
            except ImgtoolError as error:
                hint = f"as files: {error.message}" + (f" ({error.hint})" if error.hint else "")
                raise type(error)(f"{refused.message}; {hint}", error.hint) from error
            self._devices[identity] = [f"{slot.bus}{slot.controller}:{slot.unit}" for slot in machine.disks]
            return identity
        self._devices[made.machine] = [made.devices[new.name] for new, _ in disks]
        hardware.reconfigure(self.session, made.machine, machine, control.stop)
        return made.machine

    def _leased(self, machine: Machine, text: bytes, disks: Sequence[tuple[NewDisk, Disk]], to: Destination, state: str,
                control: Control) -> incoming.Imported:
        def begun(identity: str) -> None:
            leftover.note(state, Leftover(name=machine.name, machine=identity))

        def packed(new: NewDisk, disk: Disk) -> incoming.Stream:
            shown = Control(progress=Named(control.progress, new.name), stop=control.stop)  # the rate is that of the line
            return lambda: stream(disk, stream_descriptor(STREAM, new.name, disk.virtual_size), shown,
                                  level=codec.DEFAULT_LEVEL, counted=[])

        streams = {new.name: packed(new, disk) for new, disk in disks}
        return incoming.create(self.session, text.decode(), machine.name, to, streams, control,
                               allocations=[new.allocation for new, _ in disks], begun=begun)

    def _deposited(self, machine: Machine, disks: Sequence[tuple[NewDisk, Disk]], to: Destination, state: str,
                   control: Control) -> str:
        store = next(one.name for one in self._places.stores if one.id == to.store)
        place = StorePath(store, machine.name)
        center = inventory.Folders(self.session).center(to.folder)
        if Folder(self.session, center.name).exists(place):
            raise RefusedError(f"there is a folder {place} already", "remove it, or give the machine another name")
        leftover.note(state, Leftover(name=machine.name, folder=str(place), center=center.name, datacenter=center.id))
        return deposit.deposit(self.session, to, center, str(place), machine, [disk for _, disk in disks], control)

    def _failed(self, state: str, error: BaseException) -> None:
        """Takes away what is half made, or says what is left."""
        try:
            self._clear(state, Stop())
        except ImgtoolError as left:
            if isinstance(error, ImgtoolError):
                error.hint = f"{left.message}; {left.hint}"

    def _clear(self, state: str, stop: Stop) -> None:
        """Removes what a ``send`` that was stopped has left. Raises ImgtoolError where it cannot."""
        left = leftover.noted(state)
        if left is None:
            return
        try:
            found = properties.all_of(self.session, "VirtualMachine", ("name", "config.files.vmPathName"), "listing the machines")
            for identity, seen in found.items():
                if leftover.made_by(left, str(seen.get("name")), identity, str(seen.get("config.files.vmPathName", ""))):
                    machines.remove(self.session, identity, stop)
            if left.folder is not None and Folder(self.session, left.center or "").exists(StorePath.parse(left.folder)):
                machines.remove_directory(self.session, left.folder, left.datacenter, stop)
        except StoppedError:
            raise
        except ImgtoolError as error:
            raise type(error)(f"the half-made machine {left.name} may still be at {self.session.account.host}: {error.message}",
                              "a lease that nobody renews ends after five minutes, and takes it away; then run the same command "
                              "again, or with --discard-partial") from error
        leftover.forget(state)

    def compare(self, machine: str, disks: Sequence[tuple[NewDisk, Disk]], control: Control) -> None:
        found = next((one for one in inventory.machines(self.session) if one.id == machine), None)
        if found is None:
            raise ImgtoolError(f"{self.session.account.host} no longer has the machine {machine}", "run the same command again")
        place = From(session=self.session, files=Folder(self.session, inventory.datacenter(self.session, found)),
                     exports=self._exports, machine=machine, shell=self._shell, leases=found.power is Power.OFF)
        there = self._in_order(found)
        if len(there) != len(disks):
            raise ImgtoolError(f"{found.name} has {len(there)} disks, and {len(disks)} were sent")
        for remote, (new, disk) in zip(there, disks, strict=True):
            if remote.capacity < disk.virtual_size:
                raise ImgtoolError(f"{new.name} has {remote.capacity} bytes there, and {disk.virtual_size} here")
            shown = replace(control, progress=Named(control.progress, new.name))
            with place.open(remote, shown) as reader, shown.progress.bar(remote.capacity, "verify") as bar:
                reader.read([(0, remote.capacity)], Comparing(disk, new.name, bar), shown)

    def _in_order(self, found: Found) -> list[RemoteDisk]:
        """Its disks in the order in which they were sent."""
        disks, devices = list(facts(self.session, found).disks), self._devices.get(found.id)
        if devices is None:
            return disks
        return sorted(disks, key=lambda one: devices.index(
            one.controller if one.controller in devices else lease.of(devices, one) or devices[-1]))

    def rename(self, machine: str, name: str) -> None:
        machines.rename(self.session, machine, name, Stop())

    def start(self, machine: str) -> None:
        machines.start(self.session, machine, Stop())

    def watch(self, machine: str, control: Control) -> str:
        """Waits for the guest's tools; without them only the power state is known."""
        until = time.monotonic() + WATCH_SECONDS
        while True:
            seen = properties.of(self.session, ("VirtualMachine", machine), (
                "runtime.powerState", "runtime.question", "guest.toolsRunningStatus", "guest.ipAddress", "guestHeartbeatStatus"),
                "looking at the machine")
            words = _words(seen)
            if words is not None:
                return words
            control.stop.check()
            if time.monotonic() > until:
                return f"it is powered on; the guest's tools, if it has any, have said nothing for {WATCH_SECONDS:.0f} s"
            time.sleep(POLL)

    def remove(self, machine: str) -> None:
        machines.remove(self.session, machine, Stop())

    def discard(self, disks: Sequence[NewDisk], state: str) -> None:
        self._clear(state, Stop())

    def close(self) -> None:
        self.session.close()


def _words(seen: dict[str, Any]) -> str | None:
    """What is to be said of a machine that was started; None: not yet anything."""
    if (question := seen.get("runtime.question")) is not None:
        return f"the host asks something before it goes on: {' '.join(str(question.text).split())}"
    if seen.get("runtime.powerState") != "poweredOn":
        return f"it is not running ({seen.get('runtime.powerState')})"
    if seen.get("guest.toolsRunningStatus") == "guestToolsRunning":
        address, beat = seen.get("guest.ipAddress"), seen.get("guestHeartbeatStatus")
        if address or beat in ("green", "yellow"):
            return "the guest's tools answer" + (f"; its address is {address}" if address else "")
    return None


def _wanted(placing: Placing) -> Wanted:
    return Wanted(store=placing.storage, pool=placing.pool, folder=placing.folder, host=placing.host)


def fitted(made: Machine, name: str, disks: Sequence[tuple[NewDisk, Disk]]) -> Machine:
    """The machine as it is sent: its disks are the files that are sent, no drive needs another."""
    if len(made.disks) != len(disks):
        raise UsageError(f"{name} has {len(made.disks)} disks, and {len(disks)} are to be sent")
    slots = tuple(replace(slot, path=new.name, format="vmdk", backing=Backing.FILE, capacity=disk.virtual_size)
                  for slot, (new, disk) in zip(made.disks, disks, strict=True))
    drives = tuple(replace(one, backing=Backing.CLIENT, path=None) if one.backing == Backing.FILE else one for one in made.drives)
    return replace(made, name=name, disks=slots, drives=drives)


