"""Names of guest systems: every row there and back, every row of the table of facts, older hosts, what has no row."""

from __future__ import annotations

import pytest

from imgtool.descriptions.guest_os import (
    from_cim,
    from_osinfo,
    from_vmware,
    is_linux,
    is_windows,
    safe_on_esxi,
    to_cim,
    to_osinfo,
    to_vmware,
    to_vmware_api,
)
from imgtool.descriptions.guest_os_table import ALIASES, CIM_READ, LINUX_WORDS, SYSTEMS
from imgtool.model.machine import GuestOs

FACTS = """\
win2000serv      windows2000      win2000ServGuest            win2k      buslogic   pcnet
winxppro         windowsxp        winXPProGuest               winxp      lsilogic   e1000
winxppro-64      windowsxp        winXPPro64Guest             winxp      lsilogic   e1000
winnetenterprise    windows2003   winNetEnterpriseGuest       win2k3     lsilogic   e1000
winnetenterprise-64 windows2003   winNetEnterprise64Guest     win2k3     lsilogic   e1000
winvista-64      windowsvista     winVista64Guest             winvista   lsisas1068 e1000
longhorn-64      windows2008      winLonghorn64Guest          win2k8     lsisas1068 e1000
windows7-64      windows7         windows7_64Guest            win7       lsisas1068 e1000
windows7srv-64   windows2008r2    windows7Server64Guest       win2k8r2   lsisas1068 e1000
windows8-64      windows8         windows8_64Guest            win8       lsisas1068 e1000e
windows8srv-64   windows2012      windows8Server64Guest       win2k12    lsisas1068 e1000e
windows9-64      windows10        windows9_64Guest            win10      lsisas1068 e1000e
windows9srv-64   windows2016      windows9Server64Guest       win2k16    lsisas1068 e1000e
windows2019srv-64 windows2019     windows2019srv_64Guest      win2k19    lsisas1068 e1000e
windows11-64     windows11        windows11_64Guest           win11      nvme       e1000e
windows2019srvNext-64 windows2022 windows2019srvNext_64Guest  win2k22    pvscsi     e1000e
windows2022srvNext-64 windows2025 windows2022srvNext_64Guest  win2k25    pvscsi     e1000e
rhel4            rhel4            rhel4Guest                  rhel4.8    lsilogic   e1000
rhel4-64         rhel4            rhel4_64Guest               rhel4.9    lsilogic   e1000
rhel5-64         rhel5            rhel5_64Guest               rhel5.11   lsilogic   e1000
rhel6-64         rhel6            rhel6_64Guest               rhel6.10   pvscsi     vmxnet3
rhel7-64         rhel7            rhel7_64Guest               rhel7.9    pvscsi     vmxnet3
rhel8-64         rhel8            rhel8_64Guest               rhel8.6    pvscsi     vmxnet3
rhel9-64         rhel9            rhel9_64Guest               rhel9.1    pvscsi     vmxnet3
rhel10-64        rhel10           rhel10_64Guest              rhel10.0   pvscsi     vmxnet3
centos6-64       centos6          centos6_64Guest             centos6.9  pvscsi     vmxnet3
centos7-64       centos7          centos7_64Guest             centos7.0  pvscsi     vmxnet3
centos8-64       centos8          centos8_64Guest             centos8    pvscsi     vmxnet3
centos9-64       centos-stream9   centos9_64Guest             centos-stream9 pvscsi vmxnet3
oraclelinux6-64  oracle6          oracleLinux6_64Guest        ol6.9      pvscsi     vmxnet3
oraclelinux9-64  oracle9          oracleLinux9_64Guest        ol9.1      pvscsi     vmxnet3
rockylinux-64    rocky            rockylinux_64Guest          rocky8.6   pvscsi     vmxnet3
almalinux-64     almalinux        almalinux_64Guest           almalinux9 pvscsi     vmxnet3
sles10-64        sles10           sles10_64Guest              sles10sp4  lsilogic   e1000
sles11-64        sles11           sles11_64Guest              sles11sp4  pvscsi     vmxnet3
sles12-64        sles12           sles12_64Guest              sles12sp5  pvscsi     vmxnet3
sles15-64        sles15           sles15_64Guest              sle15sp4   pvscsi     vmxnet3
opensuse-64      opensuse         opensuse64Guest             opensuse15.4 pvscsi   vmxnet3
debian8-64       debian8          debian8_64Guest             debian8    pvscsi     vmxnet3
debian10-64      debian10         debian10_64Guest            debian10   pvscsi     vmxnet3
debian12-64      debian12         debian12_64Guest            debian12   pvscsi     vmxnet3
debian13-64      debian13         debian13_64Guest            debian13   pvscsi     vmxnet3
ubuntu-64        ubuntu           ubuntu64Guest               ubuntu22.04 pvscsi    vmxnet3
ubuntu           ubuntu           ubuntuGuest                 ubuntu14.04 pvscsi    vmxnet3
fedora-64        fedora           fedora64Guest               fedora37   pvscsi     vmxnet3
other3xlinux-64  linux3           other3xLinux64Guest         linux2016  pvscsi     vmxnet3
other4xlinux-64  linux4           other4xLinux64Guest         linux2018  pvscsi     vmxnet3
other5xlinux-64  linux5           other5xLinux64Guest         linux2020  pvscsi     vmxnet3
other6xlinux-64  linux6           other6xLinux64Guest         linux2022  pvscsi     vmxnet3
freebsd-64       freebsd          freebsd64Guest              freebsd9.3 lsilogic   vmxnet3
freebsd12-64     freebsd12        freebsd12_64Guest           freebsd12.3 lsilogic  vmxnet3
solaris10-64     solaris10        solaris10_64Guest           solaris10  lsilogic   e1000
solaris11-64     solaris11        solaris11_64Guest           solaris11  lsilogic   e1000
netware6         netware6         netware6Guest               netware6   ide        pcnet
dos              dos              dosGuest                    msdos6.22  ide        pcnet
other            other            otherGuest                  unknown    lsilogic   e1000
other-64         other            otherGuest64                unknown    lsilogic   e1000
"""
ROWS = [tuple(line.split()) for line in FACTS.splitlines()]
NO_OSINFO = {"amazonlinux2-64": "amazonlinux2_64Guest", "vmware-photon-64": "vmwarePhoton64Guest",
             "flatcar-64": "flatcar_64Guest", "coreos-64": "coreos64Guest", "other26xlinux": "other26xLinuxGuest",
             "other26xlinux-64": "other26xLinux64Guest",
             "os2": "os2Guest", "centos": "centosGuest", "centos-64": "centos64Guest", "oraclelinux-64": "oracleLinux64Guest"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_row_of_the_facts(row: tuple[str, ...]) -> None:
    word, ours, api, short, controller, nic = row
    found = from_vmware(word)
    assert (found.id, found.arch, found.word) == (ours, "x86_64" if word.endswith("-64") else "i686", None)
    assert from_vmware(api) == from_vmware(word.upper()) == from_vmware(api.lower()) == found
    assert (to_vmware(found), to_vmware_api(found)) == (word, api)
    assert safe_on_esxi(found) == (controller, nic)
    if short != "unknown":
        assert from_osinfo(short).id == ours


@pytest.mark.parametrize(("word", "api"), NO_OSINFO.items())
def test_vmware_words_that_libosinfo_lacks(word: str, api: str) -> None:
    found = from_vmware(word)
    assert found == from_vmware(api)
    assert (to_vmware(found), to_vmware_api(found), to_osinfo(found)) == (word, api, None)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_row_there_and_back(name: str) -> None:
    row = SYSTEMS[name]
    for arch, api in zip(("i686", "x86_64"), row.api, strict=True):
        if api:
            os = GuestOs(id=name, arch=arch)
            back = from_vmware(to_vmware(os))
            assert to_vmware_api(os) == api
            assert (SYSTEMS[back.id].api, back.arch) == (row.api, arch)
            assert from_cim(to_cim(os)).word is None
    address = to_osinfo(GuestOs(id=name, release="8.6" if "{" in str(row.osinfo) and not any(map(str.isdigit, name)) else None))
    assert address is None or from_osinfo(address).id == name
    assert is_windows(GuestOs(id=name)) + is_linux(GuestOs(id=name)) <= 1


@pytest.mark.parametrize(("short", "ours", "release", "address"), [
    ("rhel8.6", "rhel8", "8.6", "redhat.com/rhel/8.6"), ("rhel8-unknown", "rhel8", None, "redhat.com/rhel/8-unknown"),
    ("rhel-unknown", "rhel", None, "redhat.com/rhel/unknown"), ("rhel5.11", "rhel5", "5.11", "redhat.com/rhel/5.11"),
    ("sles12sp5", "sles12", "12.5", "suse.com/sles/12.5"), ("sle15sp4", "sles15", "15.4", "suse.com/sle/15.4"),
    ("win8.1", "windows8.1", None, "microsoft.com/win/8.1"), ("win2k12r2", "windows2012r2", None, "microsoft.com/win/2k12r2"),
    ("centos7.0", "centos7", None, "centos.org/centos/7.0"), ("centos-stream8", "centos-stream8", None,
    "centos.org/centos-stream/8"),
    ("rocky8.6", "rocky", "8.6", "rockylinux.org/rocky/8.6"), ("almalinux8", "almalinux", "8", "almalinux.org/almalinux/8"),
    ("ubuntu22.04", "ubuntu", "22.04", "ubuntu.com/ubuntu/22.04"), ("freebsd10.4", "freebsd", "10.4", "freebsd.org/freebsd/10.4"),
    ("freebsd13.1", "freebsd13", "13.1", "freebsd.org/freebsd/13.1"), ("solaris11", "solaris11", None, "oracle.com/solaris/11"),
    ("alpinelinux3.17", "alpine", "3.17", "alpinelinux.org/alpinelinux/3.17"),
    ("archlinux", "archlinux", None, "archlinux.org/archlinux/rolling"), ("winnt4.0", "windowsnt4", None,
    "microsoft.com/winnt/4.0"),
])
def test_point_releases_are_kept(short: str, ours: str, release: str | None, address: str) -> None:
    assert from_osinfo(short) == from_osinfo(f"http://{address}") == GuestOs(id=ours, release=release)
    assert to_osinfo(GuestOs(id=ours, release=release)) == f"http://{address}"


@pytest.mark.parametrize(("ours", "hardware", "word"), [
    ("windows11", 20, "windows11-64"), ("windows11", 19, "windows9-64"), ("windows11", 10, "windows8-64"),
    ("debian12", 10, "debian7-64"), ("debian12", 8, "debian6-64"), ("debian12", 4, "other26xlinux-64"),
    ("centos7", 10, "centos-64"), ("linux6", 13, "other3xlinux-64"), ("alpine", 19, "other5xlinux-64"), ("alpine", 4,
    "other26xlinux-64"),
    ("windows2022", 14, "windows9srv-64"), ("rhel9", 7, "rhel6-64"), ("rhel", 7, "rhel6-64"), ("debian", None, "debian8-64"),
    ("openbsd", None, "other-64"), ("rocky", 13, "centos7-64"), ("nonsense", None, "other-64"),
])
def test_an_older_host_gets_an_older_word(ours: str, hardware: int | None, word: str) -> None:
    assert to_vmware(GuestOs(id=ours), hardware) == word


@pytest.mark.parametrize("hardware", range(4, 24))
def test_a_host_never_gets_a_word_that_it_does_not_know(hardware: int) -> None:
    since = {api: row.since for row in SYSTEMS.values() for api in row.api}
    given = [to_vmware_api(GuestOs(id=name), hardware) for name in SYSTEMS]
    assert [api for api in given if since[api] > hardware] == []


@pytest.mark.parametrize("word", [*ALIASES, *sorted(LINUX_WORDS)])
def test_other_words_of_vmware(word: str) -> None:
    found = from_vmware(word)
    assert found.id == ALIASES.get(word, "linux")
    assert found.word == (None if word in ALIASES else word)
    assert from_vmware(f"{word}-64").arch == "x86_64"


def test_unknown_words_are_kept() -> None:
    assert from_vmware("vmkernel7") == GuestOs(id="other", arch="x86_64", word="vmkernel7")
    assert to_vmware(from_vmware("vmkernel7"), 10) == "vmkernel7"
    assert to_vmware(from_vmware("kylinlinux_64Guest")) == "kylinlinux-64"
    assert from_osinfo("http://haiku-os.org/haiku/r1") == GuestOs(word="http://haiku-os.org/haiku/r1")
    assert to_osinfo(from_osinfo("http://haiku-os.org/haiku/r1")) == "http://haiku-os.org/haiku/r1"
    assert to_vmware(from_osinfo("haikur1")) == to_vmware(from_osinfo("http://haiku-os.org/haiku/r1")) == "other-64"
    assert to_vmware(GuestOs(word='x"\nfoo = "1')) == "other-64"
    assert to_cim(from_cim(7)) == 7


def test_arm() -> None:
    assert from_vmware("arm-ubuntu-64") == GuestOs(id="ubuntu", arch="aarch64")
    assert to_vmware(GuestOs(id="debian11", arch="aarch64")) == "arm-debian11-64"


@pytest.mark.parametrize(("number", "ours", "arch"), [
    (1, "other", "i686"), (102, "other", "x86_64"), (36, "linux", "i686"), (101, "linux", "x86_64"), (79, "rhel", "i686"),
    (80, "rhel", "x86_64"), (84, "sles", "i686"), (85, "sles", "x86_64"), (93, "ubuntu", "i686"), (94, "ubuntu", "x86_64"),
    (95, "debian", "i686"), (96, "debian", "x86_64"), (100, "linux26", "x86_64"), (103, "windows2008r2", "x86_64"),
    (105, "windows7", "x86_64"), (107, "centos", "x86_64"), (109, "oracle", "x86_64"), (112, "windows2012", "x86_64"),
    (114, "windows8", "x86_64"), (115, "windows2012r2", "x86_64"), (120, "windows10", "x86_64"), (78, "freebsd", "x86_64"),
    (67, "windowsxp", "i686"), (70, "windows2003", "x86_64"), (29, "solaris10", "i686"), (21, "netware6", "i686"),
])
def test_numbers_of_the_dmtf(number: int, ours: str, arch: str) -> None:
    assert from_cim(number) == GuestOs(id=ours, arch=arch)
    assert to_cim(from_cim(number)) == number


def test_numbers_that_are_only_read() -> None:
    assert {number: from_cim(number).id for number in CIM_READ} == CIM_READ
    assert to_cim(GuestOs(id="windows2022")) == 102
    assert to_cim(GuestOs(id="alpine")) == 101
