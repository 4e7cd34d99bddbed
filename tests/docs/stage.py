"""The world that the guides speak of: ``esxi1``, ``web09``, a disk by its name are there, so that each command runs as written.

::

    python -m tests.docs.stage RECORD SCRIPT PROP…        in namespaces of its own: see ``ALONE``

    ─ network: loopback only ── esxi1:443  the vSphere simulator         ssh esxi1, ssh web09    an sshd (ssh_config leads there)
    ─ mounts:  /etc (overlay) ── hosts, ssh_config.d, vmware/ssl          /run/libvirt, /var/lib/libvirt   those of our libvirtd
               /dev/disk/by-id ── loop devices                            /var/lib/imgtool                 empty

The script is run by bash in the folder ``work``. ``PROPS`` lists all that can be there. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fixtures import debian_guests
from fixtures.debian_guests import Guest
from fixtures.esxi import PASSWORD, Datastore, Registered, Server, esxi
from fixtures.libvirtd import Libvirtd, libvirtd
from fixtures.run import run
from fixtures.sshd import sshd
from tests.esxi.machines import describe, machine
from tests.libvirt_endpoint.domains import CHANNEL, NIC, disk, domain
from tests.metal.copies import disk as loop

MIB = 1 << 20
ALONE = ("unshare", "--mount", "--net", "--fork", "--kill-child")
HOSTS = ("esxi1", "web09")
OF_WEB09 = "ata-ST2000NM0008_ZC20A1B2"
SPARE = "ata-SSDSC2KB480G8_PHYF0042"
"""Names of disks."""
SERIAL = SPARE.rpartition("_")[2]
"""Of the spare disk. The only thing that is not called as in the guides: the serial of a loop device is the path of its file."""


GUESTS = {"debian_vmdk": Guest("esxi"), "esxi1": Guest("esxi"), "web09": Guest("metal", network="networkd"),
          "kvm_with_web01": Guest("kvm", layout="gpt", stable=True, network="networkd")}
"""Prop → the system in it."""


def ready(props: Sequence[str], place: Path) -> None:
    """Makes what the props are made of, once: Debian's packages come over the network, which the stage has not."""
    for name in props:
        if name in GUESTS:
            debian_guests.build(place / "guest.raw", GUESTS[name]).path.unlink()


def esxi1(work: Path, stack: ExitStack) -> None:
    """An ESXi host with web01 (a real Debian that knows pvscsi and vmxnet3 only), and db01, app-1, app-2 (no system in them)."""
    store = work.parent / "datastore1"
    (store / "web01").mkdir(parents=True)
    size = debian_guests.build(store / "web01" / "web01-flat.vmdk", GUESTS["esxi1"]).path.stat().st_size
    paths = [describe(store, "web01", (size,)),
             *(machine(store, name, (24 * MIB, 8 * MIB), data=((0, 5 * MIB),)) for name in ("db01", "app-1", "app-2"))]
    for number, path in enumerate(paths, 1):  # an address of its own each
        text = (store / path).read_text(encoding="utf-8").replace("00:50:56:00:00:01", f"00:50:56:00:00:{number:02}")
        (store / path).write_text(text, encoding="utf-8")
    _host(work, stack, store, paths)


def esxi1_empty(work: Path, stack: ExitStack) -> None:
    """An ESXi host with room and no machine."""
    store = work.parent / "datastore1"
    store.mkdir()
    _host(work, stack, store, [])


def _host(work: Path, stack: ExitStack, store: Path, paths: list[str]) -> None:
    server = stack.enter_context(esxi([Datastore(name="datastore1", directory=store)],
                                      [Registered(path=f"[datastore1] {path}") for path in paths],
                                      Server(port=443, networks=("VM Network",))))
    Path("/etc/vmware/ssl").mkdir(parents=True)
    shutil.copyfile(server.ca_file, "/etc/vmware/ssl/rui.crt")
    (work / "esxi1.password").write_text(PASSWORD + "\n", encoding="utf-8")
    (work / "esxi1.password").chmod(0o600)


def kvm(work: Path, stack: ExitStack) -> None:
    """libvirt of this host, with the pool ``default``, the network ``default`` and the bridge ``br0``."""
    _libvirt(work, stack)


def kvm_with_web01(work: Path, stack: ExitStack) -> None:
    """The same, and web01 there, a real Debian that knows virtio only, powered off."""
    daemon = _libvirt(work, stack)
    image = Path("/var/lib/libvirt/images/web01.qcow2")
    raw = debian_guests.build(work.parent / "web01.raw", GUESTS["kvm_with_web01"]).path
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image])
    raw.unlink()
    daemon.define(domain("web01", disk(image), NIC, CHANNEL), work.parent)


def _libvirt(work: Path, stack: ExitStack) -> Libvirtd:
    run(["ip", "link", "add", "br0", "type", "bridge"])
    folder = work.parent / "libvirt"
    daemon = stack.enter_context(libvirtd(folder))
    for name, place in (("run", "/run/libvirt"), ("lib", "/var/lib/libvirt")):
        Path(place).mkdir(parents=True, exist_ok=True)
        run(["mount", "--bind", folder / name, place])
    daemon.pool("default", Path("/var/lib/libvirt/images"))
    network = work.parent / "network.xml"
    network.write_text("<network><name>default</name><forward mode='bridge'/><bridge name='br0'/></network>", encoding="utf-8")
    daemon.virsh("net-define", network)
    daemon.virsh("net-start", "default")
    return daemon


def web09(work: Path, stack: ExitStack) -> None:
    """A physical machine, started from a rescue system: its disk holds a real Debian that knows AHCI and e1000e only."""
    image = debian_guests.build(work.parent / OF_WEB09, GUESTS["web09"]).path
    _by_id(OF_WEB09, stack.enter_context(loop(image)))


def spare_disk(work: Path, stack: ExitStack) -> None:
    """An empty physical disk of 3 GiB in this machine."""
    path = work.parent / SERIAL
    with path.open("wb") as file:
        file.truncate(3 << 30)
    _by_id(SPARE, stack.enter_context(loop(path)))


def debian_vmdk(work: Path, _stack: ExitStack) -> None:
    """``debian.vmdk``: a bootable Debian, thin."""
    raw = debian_guests.build(work.parent / "debian.raw", GUESTS["debian_vmdk"]).path
    run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, work / "debian.vmdk"])
    raw.unlink()


def vmware_folder(work: Path, _stack: ExitStack) -> None:
    """``app01/app01.vmx``: a machine with two disks, as it is copied from a datastore."""
    machine(work, "app01", (24 * MIB, 8 * MIB), data=((0, 5 * MIB),))


PROPS: dict[str, Callable[[Path, ExitStack], None]] = {
    one.__name__: one for one in (esxi1, esxi1_empty, kvm, kvm_with_web01, web09, spare_disk, debian_vmdk, vmware_folder)}


def _by_id(name: str, device: Path) -> None:
    Path("/dev/disk/by-id", name).symlink_to(device)


@contextmanager
def _world(folder: Path) -> Iterator[Path]:
    """Loopback, names of hosts, ssh to them; what is mounted is seen by this process and its children only."""
    run(["ip", "link", "set", "lo", "up"])
    run(["mount", "-t", "sysfs", "none", "/sys"])  # of this network
    Path("/dev/disk").mkdir(exist_ok=True)
    for place in ("/dev/disk", "/var/lib/imgtool"):
        Path(place).mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "none", place])
    Path("/dev/disk/by-id").mkdir()
    layers = folder / "etc"
    layers.mkdir()
    run(["mount", "-t", "tmpfs", "none", layers])
    for name in ("upper", "work"):
        (layers / name).mkdir()
    run(["mount", "-t", "overlay", "-o", f"lowerdir=/etc,upperdir={layers}/upper,workdir={layers}/work", "none", "/etc"])
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(HOSTS)}\n", encoding="utf-8")
    with sshd(folder / "sshd") as server:
        lines = [f"Host {' '.join(HOSTS)}", f"Port {server.port}", f"IdentityFile {server.folder}/user",
                 f"UserKnownHostsFile {server.folder}/known_hosts", f"HostKeyAlias [127.0.0.1]:{server.port}"]
        Path("/etc/ssh/ssh_config.d").mkdir(parents=True, exist_ok=True)
        Path("/etc/ssh/ssh_config.d/stage.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield folder / "work"


def main(record: str, script: str, *props: str) -> int:
    """Runs the script where the props are; what it prints goes to ``record``."""
    folder = Path(record).parent
    with _world(folder) as work, ExitStack() as stack:
        work.mkdir(exist_ok=True)
        for name in props:
            PROPS[name](work, stack)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
        with Path(record).open("wb") as out:
            return subprocess.run(["bash", script], cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=subprocess.STDOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
