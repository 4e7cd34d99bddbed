"""Guest systems, one row each: our id, VMware's ids, libosinfo's, the DMTF's, and the hardware that each surely has drivers for.

Sources: VMware's ids: the enumeration ``VirtualMachineGuestOsIdentifier`` of the vSphere API 9.0. libosinfo: osinfo-db 20221130.
CIM: ``OsType`` of the DMTF's class ``CIM_OperatingSystem``; 116 to 120 as VirtualBox uses them. ``since``: the API version that
brought an id; where that is not sure it is set late, as an older word works and an unknown one stops power-on.
"""

from __future__ import annotations

from typing import NamedTuple


class System(NamedTuple):
    id: str
    api: tuple[str | None, str | None] = (None, None)
    """VMware's API id, 32 and 64 bit."""
    osinfo: str | None = None
    """libosinfo's id without the scheme; ``{release}`` and ``{major}`` are the point release and its first number."""
    unknown: str | None = None
    """libosinfo's id where the release is not known."""
    cim: tuple[int, int] | None = None
    """32 and 64 bit."""
    since: int = 4
    """The lowest hardware version that no older host runs: 12 and 16 came with Workstation, and need ESXi 6.5 and 7.0."""
    older: str | None = None
    """What a host before that gets, and every host where there is no API id."""
    safe: tuple[str, str] = ("lsilogic", "e1000")
    """Disk controller and network card on ESXi that each release drives without added drivers; ``ide`` and ``nvme`` are buses."""


LINUX_CIM, LINUX_26_CIM, OTHER_CIM = (36, 101), (99, 100), (1, 102)
RHEL_CIM, CENTOS_CIM, ORACLE_CIM, DEBIAN_CIM = (79, 80), (106, 107), (108, 109), (95, 96)
SLES_CIM, FREEBSD_CIM, SOLARIS_CIM = (84, 85), (42, 78), (29, 81)
NT4, SAS, SASE = ("buslogic", "pcnet"), ("lsisas1068", "e1000"), ("lsisas1068", "e1000e")
PV, PVE = ("pvscsi", "vmxnet3"), ("pvscsi", "e1000e")
DOS = ("ide", "pcnet")

WINDOWS = (
    System("windows31", ("win31Guest", None), "microsoft.com/win/3.1", cim=(15, 15), safe=DOS),
    System("windows95", ("win95Guest", None), "microsoft.com/win/95", cim=(16, 16), safe=DOS),
    System("windows98", ("win98Guest", None), "microsoft.com/win/98", cim=(17, 17), safe=DOS),
    System("windowsme", ("winMeGuest", None), "microsoft.com/win/me", cim=(63, 63), safe=DOS),
    System("windowsnt4", ("winNTGuest", None), "microsoft.com/winnt/4.0", cim=(18, 18), safe=NT4),
    System("windows2000", ("win2000ServGuest", None), "microsoft.com/win/2k", cim=(58, 58), safe=NT4),
    System("windowsxp", ("winXPProGuest", "winXPPro64Guest"), "microsoft.com/win/xp", cim=(67, 71)),
    System("windows2003", ("winNetEnterpriseGuest", "winNetEnterprise64Guest"), "microsoft.com/win/2k3", cim=(69, 70)),
    System("windows2003r2", ("winNetEnterpriseGuest", "winNetEnterprise64Guest"), "microsoft.com/win/2k3r2", cim=(69, 70)),
    System("windowsvista", ("winVistaGuest", "winVista64Guest"), "microsoft.com/win/vista", cim=(73, 74), safe=SAS),
    System("windows2008", ("winLonghornGuest", "winLonghorn64Guest"), "microsoft.com/win/2k8", cim=(76, 77), safe=SAS),
    System("windows7", ("windows7Guest", "windows7_64Guest"), "microsoft.com/win/7", cim=(105, 105), since=7,
           older="windowsvista", safe=SAS),
    System("windows2008r2", (None, "windows7Server64Guest"), "microsoft.com/win/2k8r2", cim=(103, 103), since=7,
           older="windows2008", safe=SAS),
    System("windows8", ("windows8Guest", "windows8_64Guest"), "microsoft.com/win/8", cim=(113, 114), since=8, older="windows7",
           safe=SASE),
    System("windows8.1", ("windows8Guest", "windows8_64Guest"), "microsoft.com/win/8.1", cim=(116, 117), since=8,
           older="windows7", safe=SASE),
    System("windows2012", (None, "windows8Server64Guest"), "microsoft.com/win/2k12", cim=(112, 112), since=8,
           older="windows2008r2", safe=SASE),
    System("windows2012r2", (None, "windows8Server64Guest"), "microsoft.com/win/2k12r2", cim=(115, 115), since=8,
           older="windows2008r2", safe=SASE),
    System("windows10", ("windows9Guest", "windows9_64Guest"), "microsoft.com/win/10", cim=(119, 120), since=11, older="windows8",
           safe=SASE),
    System("windows2016", (None, "windows9Server64Guest"), "microsoft.com/win/2k16", cim=(118, 118), since=11,
           older="windows2012", safe=SASE),
    System("windows2019", (None, "windows2019srv_64Guest"), "microsoft.com/win/2k19", since=16, older="windows2016", safe=SASE),
    System("windows11", (None, "windows11_64Guest"), "microsoft.com/win/11", since=20, older="windows10",
           safe=("nvme", "e1000e")),
    System("windows2022", (None, "windows2019srvNext_64Guest"), "microsoft.com/win/2k22", since=18, older="windows2019",
           safe=PVE),
    System("windows2025", (None, "windows2022srvNext_64Guest"), "microsoft.com/win/2k25", since=20, older="windows2022",
           safe=PVE),
    System("windows12", (None, "windows12_64Guest"), since=22, older="windows11", safe=("nvme", "e1000e")),
)

RED_HAT = (
    System("rhel", osinfo="redhat.com/rhel/unknown", cim=RHEL_CIM, older="rhel7"),
    System("rhel2", ("rhel2Guest", None), "redhat.com/rhel/{release}", "redhat.com/rhel/2.1", cim=RHEL_CIM),
    System("rhel3", ("rhel3Guest", "rhel3_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/3", cim=RHEL_CIM),
    System("rhel4", ("rhel4Guest", "rhel4_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/4.9", cim=RHEL_CIM),
    System("rhel5", ("rhel5Guest", "rhel5_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/5.11", cim=RHEL_CIM),
    System("rhel6", ("rhel6Guest", "rhel6_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/6-unknown", cim=RHEL_CIM,
           since=7, older="rhel5", safe=PV),
    System("rhel7", ("rhel7Guest", "rhel7_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/7-unknown", cim=RHEL_CIM,
           since=10, older="rhel6", safe=PV),
    System("rhel8", (None, "rhel8_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/8-unknown", cim=RHEL_CIM,
           since=14, older="rhel7", safe=PV),
    System("rhel9", (None, "rhel9_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/9-unknown", cim=RHEL_CIM,
           since=18, older="rhel8", safe=PV),
    System("rhel10", (None, "rhel10_64Guest"), "redhat.com/rhel/{release}", "redhat.com/rhel/10-unknown", cim=RHEL_CIM,
           since=22, older="rhel9", safe=PV),
    System("centos", ("centosGuest", "centos64Guest"), cim=CENTOS_CIM, since=7, older="linux26"),
    System("centos5", ("centosGuest", "centos64Guest"), "centos.org/centos/{release}", "centos.org/centos/5.11", cim=CENTOS_CIM,
           since=7, older="linux26"),
    System("centos6", ("centos6Guest", "centos6_64Guest"), "centos.org/centos/{release}", "centos.org/centos/6.10",
           cim=CENTOS_CIM, since=12, older="centos", safe=PV),
    System("centos7", ("centos7Guest", "centos7_64Guest"), "centos.org/centos/7.0", cim=CENTOS_CIM, since=12, older="centos",
           safe=PV),
    System("centos8", (None, "centos8_64Guest"), "centos.org/centos/8", cim=CENTOS_CIM, since=14, older="centos7", safe=PV),
    System("centos-stream8", (None, "centos8_64Guest"), "centos.org/centos-stream/8", cim=CENTOS_CIM, since=14, older="centos7",
           safe=PV),
    System("centos-stream9", (None, "centos9_64Guest"), "centos.org/centos-stream/9", cim=CENTOS_CIM, since=18, older="centos8",
           safe=PV),
    System("oracle", ("oracleLinuxGuest", "oracleLinux64Guest"), cim=ORACLE_CIM, since=7, older="linux26"),
    System("oracle5", ("oracleLinuxGuest", "oracleLinux64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/5.11", cim=ORACLE_CIM,
           since=7, older="linux26"),
    System("oracle6", ("oracleLinux6Guest", "oracleLinux6_64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/6.10",
           cim=ORACLE_CIM, since=12, older="oracle", safe=PV),
    System("oracle7", ("oracleLinux7Guest", "oracleLinux7_64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/7.9",
           cim=ORACLE_CIM, since=12, older="oracle", safe=PV),
    System("oracle8", (None, "oracleLinux8_64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/8.5", cim=ORACLE_CIM,
           since=14, older="oracle7", safe=PV),
    System("oracle9", (None, "oracleLinux9_64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/9.0", cim=ORACLE_CIM,
           since=18, older="oracle8", safe=PV),
    System("oracle10", (None, "oracleLinux10_64Guest"), "oracle.com/ol/{release}", "oracle.com/ol/10.0", cim=ORACLE_CIM,
           since=22, older="oracle9", safe=PV),
    System("rocky", (None, "rockylinux_64Guest"), "rockylinux.org/rocky/{release}", "rockylinux.org/rocky/unknown",
           since=20, older="centos8", safe=PV),
    System("almalinux", (None, "almalinux_64Guest"), "almalinux.org/almalinux/{major}", since=20, older="centos8", safe=PV),
    System("fedora", ("fedoraGuest", "fedora64Guest"), "fedoraproject.org/fedora/{release}", "fedoraproject.org/fedora/unknown",
           since=7, older="linux26", safe=PV),
    System("amazonlinux2", (None, "amazonlinux2_64Guest"), since=15, older="linux4", safe=PV),
    System("amazonlinux3", (None, "amazonlinux3_64Guest"), since=20, older="amazonlinux2", safe=PV),
)

LINUX = (
    System("sles", osinfo="suse.com/sle/unknown", cim=SLES_CIM, older="sles12"),
    System("sles10", ("sles10Guest", "sles10_64Guest"), "suse.com/sles/{release}", "suse.com/sles/10", cim=SLES_CIM),
    System("sles11", ("sles11Guest", "sles11_64Guest"), "suse.com/sles/{release}", "suse.com/sles/11", cim=SLES_CIM, since=7,
           older="sles10", safe=PV),
    System("sles12", ("sles12Guest", "sles12_64Guest"), "suse.com/sles/{release}", "suse.com/sles/12-unknown", cim=SLES_CIM,
           since=10, older="sles11", safe=PV),
    System("sles15", (None, "sles15_64Guest"), "suse.com/sle/{release}", "suse.com/sle/15-unknown", cim=SLES_CIM, since=14,
           older="sles12", safe=PV),
    System("sles16", (None, "sles16_64Guest"), cim=SLES_CIM, since=22, older="sles15", safe=PV),
    System("opensuse", ("opensuseGuest", "opensuse64Guest"), "opensuse.org/opensuse/{release}", "opensuse.org/opensuse/unknown",
           cim=(82, 83), since=7, older="linux26", safe=PV),
    System("debian", cim=DEBIAN_CIM, older="debian8"),
    *(System(f"debian{n}", (f"debian{n}Guest", f"debian{n}_64Guest"), f"debian.org/debian/{n}", cim=DEBIAN_CIM, since=since,
             older=older, safe=("lsilogic", "e1000") if n < 7 else PV)
      for n, since, older in ((4, 7, "linux26"), (5, 7, "linux26"), (6, 8, "debian5"), (7, 10, "debian6"), (8, 11, "debian7"),
                              (9, 12, "debian8"), (10, 12, "debian9"), (11, 16, "debian10"), (12, 20, "debian11"),
                              (13, 22, "debian12"))),
    System("ubuntu", ("ubuntuGuest", "ubuntu64Guest"), "ubuntu.com/ubuntu/{release}", cim=(93, 94), safe=PV),
    System("photon", (None, "vmwarePhoton64Guest"), since=12, older="linux3", safe=PV),
    System("coreos", (None, "coreos64Guest"), since=11, older="linux3", safe=PV),
    System("flatcar", (None, "flatcar_64Guest"), since=20, older="coreos", safe=PV),
    System("alpine", osinfo="alpinelinux.org/alpinelinux/{release}", older="linux5", safe=PV),
    System("archlinux", osinfo="archlinux.org/archlinux/rolling", older="linux6", safe=PV),
    System("gentoo", osinfo="gentoo.org/gentoo/rolling", older="linux6", safe=PV),
    System("linux", ("otherLinuxGuest", "otherLinux64Guest"), cim=LINUX_CIM),
    System("linux24", ("other24xLinuxGuest", "other24xLinux64Guest"), cim=(97, 98)),
    System("linux26", ("other26xLinuxGuest", "other26xLinux64Guest"), cim=LINUX_26_CIM),
    System("linux3", ("other3xLinuxGuest", "other3xLinux64Guest"), "libosinfo.org/linux/2016", cim=LINUX_CIM, since=10,
           older="linux26", safe=PV),
    System("linux4", ("other4xLinuxGuest", "other4xLinux64Guest"), "libosinfo.org/linux/2018", cim=LINUX_CIM, since=14,
           older="linux3", safe=PV),
    System("linux5", ("other5xLinuxGuest", "other5xLinux64Guest"), "libosinfo.org/linux/2020", cim=LINUX_CIM, since=18,
           older="linux4", safe=PV),
    System("linux6", ("other6xLinuxGuest", "other6xLinux64Guest"), "libosinfo.org/linux/2022", cim=LINUX_CIM, since=20,
           older="linux5", safe=PV),
    System("linux7", ("other7xLinuxGuest", "other7xLinux64Guest"), cim=LINUX_CIM, since=22, older="linux6", safe=PV),
)

OTHERS = (
    System("freebsd", ("freebsdGuest", "freebsd64Guest"), "freebsd.org/freebsd/{release}", "freebsd.org/freebsd/10.4",
           cim=FREEBSD_CIM, safe=("lsilogic", "vmxnet3")),
    *(System(f"freebsd{n}", (f"freebsd{n}Guest", f"freebsd{n}_64Guest"), "freebsd.org/freebsd/{release}",
             f"freebsd.org/freebsd/{n}.0", cim=FREEBSD_CIM, since=since, older=older, safe=("lsilogic", "vmxnet3"))
      for n, since, older in ((11, 14, "freebsd"), (12, 14, "freebsd"), (13, 18, "freebsd12"), (14, 20, "freebsd13"),
                              (15, 22, "freebsd14"))),
    System("solaris10", ("solaris10Guest", "solaris10_64Guest"), "sun.com/solaris/10", cim=SOLARIS_CIM),
    System("solaris11", (None, "solaris11_64Guest"), "oracle.com/solaris/11", cim=SOLARIS_CIM, since=8, older="solaris10"),
    System("netware6", ("netware6Guest", None), "novell.com/netware/6", cim=(21, 21), safe=DOS),
    System("netware5", ("netware5Guest", None), "novell.com/netware/5", cim=(21, 21), safe=DOS),
    System("netware4", ("netware4Guest", None), "novell.com/netware/4", cim=(21, 21), safe=DOS),
    System("dos", ("dosGuest", None), "microsoft.com/msdos/6.22", cim=(14, 14), safe=DOS),
    System("os2", ("os2Guest", None), cim=(12, 12), safe=DOS),
    System("openbsd", osinfo="openbsd.org/openbsd/{release}", cim=(65, 65), older="other"),
    System("netbsd", osinfo="netbsd.org/netbsd/{release}", cim=(43, 43), older="other"),
    System("other", ("otherGuest", "otherGuest64"), "libosinfo.org/unknown", cim=OTHER_CIM),
)

SYSTEMS = {one.id: one for group in (WINDOWS, RED_HAT, LINUX, OTHERS) for one in group}
"""Where rows share an id or a number, it means the first of them."""

ALIASES = {
    "win2000pro": "windows2000", "win2000advserv": "windows2000", "winxphome": "windowsxp", "winnetstandard": "windows2003",
    "winnetbusiness": "windows2003", "winnetdatacenter": "windows2003", "winnetweb": "windows2003",
    "windows7srv": "windows2008r2",
    "windows8srv": "windows2012", "windows9srv": "windows2016", "server2003": "windows2003", "linux": "linux",
    "nt4": "windowsnt4",
    "photon": "photon", "windowshyperv": "windows2016",
}
"""More words of VMware, without ``-64``, as Workstation, GSX and older hosts write them."""

LINUX_WORDS = frozenset({
    "redhat", "suse", "sles", "mandrake", "mandriva", "turbolinux", "asianux3", "asianux4", "asianux5", "asianux7", "asianux8",
    "asianux9",
    "oes", "nld9", "sjds", "pardus", "prolinux", "miraclelinux", "kylinlinux", "fusionos", "genericlinux", "crxpod1", "crxsys1",
})
"""Words that mean a Linux which has no row."""

CIM_READ = {111: "windows2008r2", 121: "windows10", 89: "linux", 90: "linux", 91: "linux", 92: "linux"}
"""Numbers that are only read: 121 is what VMware gives a 64-bit Windows 10."""
