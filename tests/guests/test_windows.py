"""A phony Windows: recognised, and its registry changed as the documented layout asks. None was ever booted.

Each start of the appliance takes 8 to 25 s.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import hivex
import pytest

from fixtures import phony_windows
from fixtures.phony_windows import MIB, SYSTEM, changed
from imgtool.guests.windows.first_boot import COMMAND
from tests import oracle
from tests.program import imgtool, result

POWER = r"ControlSet001\Control\Session Manager\Power"
PACKAGE = r"DriverDatabase\DriverPackages\imgtool_viostor.inf_amd64_0000000000000000"
SCSI_CLASS = bytes.fromhex("7be9364d25e3ce11bfc108002be10318")
"""{4D36E97B-E325-11CE-BFC1-08002BE10318} as Windows has it in memory."""


def file_of(disk: Path, place: Path, name: str) -> bytes:
    """A file of the guest's volume, which is copied out first."""
    volume, out = place / "volume", place / "file"
    oracle.tool("dd", f"if={disk}", f"of={volume}", "bs=1M", "skip=1", f"count={phony_windows.SIZE // MIB}", "status=none")
    oracle.tool("sh", "-c", f"ntfscat '{volume}' '{name}' > '{out}'")
    return out.read_bytes()


class Registry:
    """A hive of the guest, read by hivex outside the appliance."""

    def __init__(self, disk: Path, place: Path, name: str) -> None:
        hive = place / name
        hive.write_bytes(file_of(disk, place, f"Windows/System32/config/{name}"))
        self._hive = hivex.Hivex(str(hive))

    def value(self, key: str, name: str) -> tuple[int, bytes] | None:
        node = self._hive.root()
        for part in key.split("\\"):
            node = node and self._hive.node_get_child(node, part)
        found = [one for one in self._hive.node_values(node) if self._hive.value_key(one) == name] if node else []
        return self._hive.value_value(found[0]) if found else None

    def number(self, key: str, name: str) -> int | None:
        found = self.value(key, name)
        return int.from_bytes(found[1], "little") if found else None

    def text(self, key: str, name: str) -> str | None:
        found = self.value(key, name)
        return found[1].decode("utf-16-le").rstrip("\0") if found else None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def service(registry: Registry, name: str, value: str) -> int | None:
    return registry.number(rf"ControlSet001\Services\{name}", value)


def check_virtio(registry: Registry) -> None:
    """Windows 8 and later: the service, and the package that binds it to the device."""
    assert [service(registry, "viostor", value) for value in ("Type", "Start", "ErrorControl")] == [1, 0, 1]
    assert registry.text(r"ControlSet001\Services\viostor", "ImagePath") == r"system32\drivers\viostor.sys"
    inf = "imgtool_viostor.inf"
    for device in ("VEN_1AF4&DEV_1001", "VEN_1AF4&DEV_1042"):
        assert registry.value(rf"DriverDatabase\DeviceIds\PCI\{device}", inf) == (3, b"\x01\xff\x00\x00")
        assert registry.text(rf"{PACKAGE}\Descriptors\PCI\{device}", "Configuration") == "imgtool_conf"
    assert registry.text(rf"DriverDatabase\DriverInfFiles\{inf}", "Active") == f"{inf}_amd64_0000000000000000"
    assert registry.value(PACKAGE, "Version") == (3, b"\x00\xff\x09" + bytes(5) + SCSI_CLASS + bytes(24))
    assert registry.text(rf"{PACKAGE}\Configurations\imgtool_conf", "Service") == "viostor"


def test_inspect_and_adapt_for_kvm(tmp_path: Path) -> None:
    disk, drivers = phony_windows.build(tmp_path / "win.raw"), tmp_path / "virtio-win.iso"
    oracle.tool("xorrisofs", "-quiet", "-J", "-r", "-o", drivers, phony_windows.virtio_win(tmp_path / "drivers"))
    before = sha256(disk)
    found = result("inspect", disk)
    assert found["os"] == {"family": "windows", "distro": "windows", "version": "10.0", "arch": "x86_64", "hostname": "PHONYWIN",
                           "name": "Windows Server 2019 Phony", "edition": "ServerStandard", "build": "17763"}
    assert found["tools"] == ["VMware Tools"]
    assert (found["nics"][0]["addresses"], found["nics"][0]["dhcp"]) == (["192.0.2.7/24"], False)
    assert found["details"]["services"]["storahci"] == 3
    assert (found["details"]["volume_state"], found["details"]["fast_start"]) == ("at rest", False)
    assert sha256(disk) == before
    hives = {name: file_of(disk, tmp_path, f"Windows/System32/config/{name}") for name in ("SYSTEM", "SOFTWARE")}
    made = result("adapt", disk, "--for", "kvm", "--virtio-win", drivers)
    assert (made["disk_bus"], made["nic_model"]) == ("virtio", "virtio")
    assert any("no boot of one was tested" in warning for warning in made["warnings"])
    system = Registry(disk, tmp_path, "SYSTEM")
    check_virtio(system)
    assert [service(system, name, "Start") for name in ("storahci", "stornvme", "VMTools", "LSI_SAS")] == [0, 0, 4, 3]
    assert system.number(r"ControlSet001\Services\storahci\StartOverride", "0") == 0
    assert [service(system, "imgtool-first-boot", value) for value in ("Type", "Start", "ErrorControl")] == [16, 2, 0]
    command = system.value(r"ControlSet001\Services\imgtool-first-boot", "ImagePath")
    assert command == (2, f"{COMMAND}\0".encode("utf-16-le"))
    script = oracle.tool("ntfscat", tmp_path / "volume", "Windows/imgtool/first-boot.ps1").stdout
    assert "addresses = @('192.0.2.7/255.255.255.0'); gateway = '192.0.2.1'; dns = @('192.0.2.53', '192.0.2.54')" in script
    assert r"$env:SystemRoot\Drivers\VirtIO\qemu-ga-x86_64.msi" in script
    path = Registry(disk, tmp_path, "SOFTWARE").text(r"Microsoft\Windows\CurrentVersion", "DevicePath")
    assert path == r"%SystemRoot%\inf;%SystemRoot%\Drivers\VirtIO"
    copied = oracle.tool("ntfscat", tmp_path / "volume", "Windows/System32/drivers/viostor.sys").stdout
    assert copied == "viostor 2k19 amd64 sys\n"
    for name in ("SYSTEM", "SOFTWARE"):
        assert file_of(disk, tmp_path, f"Windows/System32/config/{name}.imgtool-orig") == hives[name]
    assert oracle.tool("ntfscat", tmp_path / "volume", "Windows/Drivers/VirtIO/netkvm.inf").stdout == "NetKVM 2k19 amd64 inf\n"
    assert made["capabilities"]["agent"] is True


def refused(disk: Path, *words: Any) -> str:
    before = sha256(disk)
    done = imgtool("adapt", disk, "--for", "esxi", *words)
    assert done.returncode == 4, done.stderr
    assert sha256(disk) == before
    return done.stderr


@pytest.mark.long
def test_fast_start_is_refused(tmp_path: Path) -> None:
    disk = phony_windows.build(tmp_path / "win.raw", system=changed(SYSTEM, POWER, HiberbootEnabled=1))
    assert "powercfg /h off" in refused(disk)


@pytest.mark.long
def test_hibernated_is_refused(tmp_path: Path) -> None:
    """NTFS-3G knows a sleeping Windows by the first bytes of its hiberfil.sys."""
    disk = phony_windows.build(tmp_path / "win.raw", files={"hiberfil.sys": b"hibr".ljust(4096, b"\0")})
    assert "hibernation" in refused(disk)


@pytest.mark.long
def test_windows_7_for_esxi(tmp_path: Path) -> None:
    """By the CriticalDeviceDatabase."""
    seven = {"ProductName": "Windows 7 Phony", "CurrentVersion": "6.1", "CurrentBuild": "7601", "CurrentBuildNumber": "7601",
             "EditionID": "Professional"}
    disk = phony_windows.build(tmp_path / "win.raw", software={r"Microsoft\Windows NT\CurrentVersion": seven})
    made = result("adapt", disk, "--for", "esxi")
    assert made["disk_bus"] == "pvscsi"
    system = Registry(disk, tmp_path, "SYSTEM")
    key = r"ControlSet001\Control\CriticalDeviceDatabase\PCI#VEN_1000&DEV_0054"
    assert system.text(key, "Service") == "LSI_SAS"
    assert system.text(key, "ClassGUID") == "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
    assert [service(system, name, "Start") for name in ("pvscsi", "LSI_SAS", "VMTools")] == [0, 0, 2]
    assert system.value("DriverDatabase", "Version") is None


@pytest.mark.long
def test_drivers_of_vmware_for_esxi(tmp_path: Path) -> None:
    """A Windows that never had VMware Tools gets the service of pvscsi, and its binding."""
    gone = {key: values for key, values in SYSTEM.items() if not key.endswith("pvscsi")}
    disk = phony_windows.build(tmp_path / "win.raw", system=gone)
    made = result("adapt", disk, "--for", "esxi", "--drivers", phony_windows.vmware_drivers(tmp_path / "drivers"))
    assert (made["disk_bus"], made["nic_model"]) == ("pvscsi", "vmxnet3")
    system = Registry(disk, tmp_path, "SYSTEM")
    assert [service(system, "pvscsi", value) for value in ("Type", "Start", "ErrorControl")] == [1, 0, 1]
    assert system.value(r"DriverDatabase\DeviceIds\PCI\VEN_15AD&DEV_07C0", "imgtool_pvscsi.inf") == (3, b"\x01\xff\x00\x00")
    path = Registry(disk, tmp_path, "SOFTWARE").text(r"Microsoft\Windows\CurrentVersion", "DevicePath")
    assert path == r"%SystemRoot%\inf;%SystemRoot%\Drivers\VMware"
    assert oracle.tool("ntfscat", tmp_path / "volume", "Windows/System32/drivers/pvscsi.sys").stdout == "pvscsi Win10 amd64 sys\n"
    assert oracle.tool("ntfscat", tmp_path / "volume", "Windows/Drivers/VMware/vmxnet3.inf").stdout == "vmxnet3 Win8 inf\n"


@pytest.mark.long
def test_a_damaged_hive(tmp_path: Path) -> None:
    disk = phony_windows.build(tmp_path / "win.raw", files={"Windows/System32/config/SYSTEM": b"no hive at all"})
    before = sha256(disk)
    done = imgtool("adapt", disk, "--for", "metal")
    assert done.returncode == 5, done.stderr
    assert "SYSTEM of the guest cannot be read" in done.stderr
    assert sha256(disk) == before
