"""Processor, memory, chipset, firmware, TPM, clock, hardware version, and the machine's share of its host."""

from __future__ import annotations

from dataclasses import replace

from imgtool.descriptions.guest_os import is_windows, safe_on_esxi
from imgtool.descriptions.vmx.hardware import lowest_hardware
from imgtool.model.devices import Bus
from imgtool.model.machine import Clock, Cpu, Firmware, FirmwareKind, GuestOs, Machine, Memory, Resources, Timer, Topology, Tpm
from imgtool.model.translation import Wishes, World
from imgtool.retarget.log import Log

ESXI_MEMORY_UNIT = 4 << 20
USUAL_HARDWARE = 10
"""ESXi 5.5: the first with SATA; every ESXi that is still met runs it."""
VMWARE_SHARES, KVM_SHARES = 1000, 1024
"""What a machine has that nobody favours: VMware for each virtual CPU, libvirt for the machine."""
MAX_KVM_SHARES = 10_000
"""Of the kernel's cgroups, version 2."""
TIMERS = (Timer(name="rtc", policy="catchup"), Timer(name="pit", policy="delay"), Timer(name="hpet", present=False))
"""What virt-install gives to every x86 guest; a Windows gets ``hypervclock`` too."""


def is_old(os: GuestOs) -> bool:
    """Whether a system comes from before 2010 or so: it may know neither AHCI nor PCI Express."""
    return safe_on_esxi(os)[0] in ("lsilogic", "buslogic", "ide")


def to_kvm(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """What a KVM host emulates around the devices."""
    chipset, why = _chipset(machine, wishes)
    kvm = wishes.accelerator == "kvm"
    return replace(
        machine, hardware_version=log.change("hardware_version", machine.hardware_version, None, "VMware's own"),
        accelerator=log.change("accelerator", machine.accelerator, wishes.accelerator,
                               "this host has KVM" if kvm else "this host has no KVM: emulated, slowly"),
        chipset=log.change("chipset", machine.chipset, chipset, why),
        cpu=_kvm_cpu(machine, wishes, log), memory=_kvm_memory(machine.memory, log),
        firmware=_kvm_firmware(machine, log), tpm=_kvm_tpm(machine, log), clock=_kvm_clock(machine, log),
        resources=_kvm_resources(machine, log))


def _chipset(machine: Machine, wishes: Wishes) -> tuple[str, str]:
    """The chipset, and why."""
    if machine.guest_os.arch == "aarch64":
        return "virt", "the only one on ARM"
    if machine.firmware.kind is FirmwareKind.UEFI:
        return "q35", "UEFI"
    if wishes.capabilities.machine:
        return wishes.capabilities.machine, "by what is inside the guest"
    if machine.guest_os.id == "other":
        return "i440fx", "a guest that nobody knows"
    if is_old(machine.guest_os):
        return "i440fx", "the guest is older than PCI Express"
    if not wishes.capabilities.disk_buses and any(disk.bus is Bus.IDE for disk in machine.disks):
        return "i440fx", "the guest has disks on IDE, which q35 has not"
    return "q35", "a guest of this age drives it"


def _kvm_cpu(machine: Machine, wishes: Wishes, log: Log) -> Cpu:
    cpu = machine.cpu
    mode = "host-model" if wishes.accelerator == "kvm" else "maximum"
    if cpu.mode == "custom" and cpu.model:
        mode = cpu.mode
    if cpu.hot_add and not cpu.maximum:
        log.lost("cpu.hot_add", True, "a KVM machine needs a largest number of CPUs", "set it: virsh setvcpus --maximum --config")
    if cpu.hot_remove:
        log.lost("cpu.hot_remove", True, "not a setting of the machine", "virsh setvcpus takes CPUs away if the guest allows it")
    total = cpu.maximum or cpu.count
    return replace(cpu, mode=log.change("cpu.mode", cpu.mode, mode, "the CPU of the host, as far as machines can move with it"
                                        if mode == "host-model" else "all that the emulator has"),
                   topology=_fitting(cpu.topology, total, log), hot_add=None, hot_remove=None)


def _fitting(topology: Topology | None, total: int, log: Log) -> Topology | None:
    """A topology whose product is not the number of CPUs is refused by QEMU."""
    if topology and topology.sockets * topology.dies * topology.cores * topology.threads != total:
        log.lost("cpu.topology", topology, f"the product is not {total}", "the guest sees one core a socket")
        return None
    return topology


def _kvm_memory(memory: Memory, log: Log) -> Memory:
    if memory.hot_add and not memory.maximum:
        log.lost("memory.hot_add", True, "a KVM machine needs a largest size, slots and a NUMA node",
                 "add <maxMemory slots='16'> and <numa> if memory is to be plugged in")
    if memory.huge_pages:
        log.lost("memory.huge_pages", True, "this host may have reserved none, and then the machine does not start",
                 "reserve them, and add <memoryBacking><hugepages/></memoryBacking>")
    return replace(memory, hot_add=None, huge_pages=None)


def _firmware(machine: Machine, log: Log) -> Firmware:
    """The kind stays, since the disk's boot loader is made for it. The variables have another format on each side."""
    firmware = machine.firmware
    if firmware.nvram and firmware.kind is FirmwareKind.UEFI:
        log.lost("firmware.nvram", firmware.nvram, "the formats of firmware variables differ: the machine gets new ones",
                 "boot entries are in them: a guest without \\EFI\\BOOT\\BOOTX64.EFI needs imgtool adapt")
    elif firmware.nvram:
        log.change("firmware.nvram", firmware.nvram, None, "of the old BIOS: holds nothing that another reads")
    return replace(firmware, nvram=None)


def _kvm_firmware(machine: Machine, log: Log) -> Firmware:
    """libvirt may choose a firmware with secure boot and Microsoft's keys where nothing is said; VMware's has it off then."""
    firmware = _firmware(machine, log)
    if firmware.kind is not FirmwareKind.UEFI or firmware.secure_boot is not None:
        return firmware
    return replace(firmware, secure_boot=log.change("firmware.secure_boot", None, False, "it is off unless a machine says so"))


def _kvm_tpm(machine: Machine, log: Log) -> Tpm | None:
    if machine.tpm is None:
        return None
    log.problem("the TPM is a new, empty one: keys sealed in the old one are not carried",
                "have the BitLocker recovery key at hand, or suspend BitLocker before the move")
    return Tpm(version=log.change("tpm.version", machine.tpm.version, "2.0", "what VMware's is"),
               model=log.change("tpm.model", machine.tpm.model, "tpm-crb", "swtpm emulates it"))


def _kvm_clock(machine: Machine, log: Log) -> Clock:
    clock, windows = machine.clock, is_windows(machine.guest_os)
    if machine.guest_os.arch == "aarch64":
        return clock
    timers = (*TIMERS, Timer(name="hypervclock", present=True)) if windows else TIMERS
    return Clock(offset=clock.offset or log.change("clock.offset", None, "localtime" if windows else "utc",
                                                   "Windows keeps local time in the hardware clock" if windows else "as usual"),
                 timers=clock.timers or log.change("clock.timers", (), timers, "as virt-install gives them"))


def _kvm_resources(machine: Machine, log: Log) -> Resources:
    resources, usual = machine.resources, VMWARE_SHARES * machine.cpu.count
    hint = "cputune and memtune of libvirt are others: set them by hand if the host is crowded"
    for name in ("cpu_reservation", "cpu_limit", "memory_shares", "memory_reservation", "memory_limit"):
        log.lost(f"resources.{name}", getattr(resources, name), "KVM has no such setting", hint)
    log.lost("resources.cpu_affinity", resources.cpu_affinity, "those are processors of the other host",
             "pin it anew: virsh vcpupin")
    shares = resources.cpu_shares
    if shares is None or shares == usual:
        return Resources(cpu_shares=log.change("resources.cpu_shares", shares, None, "the usual weight"))
    scaled = min(max(shares * KVM_SHARES // usual, 2), MAX_KVM_SHARES)
    return Resources(cpu_shares=log.change("resources.cpu_shares", shares, scaled, f"{KVM_SHARES} is usual here, {usual} there"))


def to_esxi(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """What an ESXi emulates around the devices, which are those that it will have; it chooses mostly itself."""
    machine = _versioned(machine, wishes, log)
    if machine.guest_os.arch == "aarch64":
        log.problem("the guest is made for ARM", "an ESXi on x86 does not run it", fatal=True)
    return replace(
        machine, accelerator=log.change("accelerator", machine.accelerator, None, "ESXi has one"),
        chipset=log.change("chipset", machine.chipset, None, "ESXi has one"),
        cpu=_esxi_cpu(machine.cpu, log), memory=_esxi_memory(machine.memory, log), firmware=_firmware(machine, log),
        tpm=_esxi_tpm(machine, log), clock=_esxi_clock(machine, log), resources=_esxi_resources(machine, log))


def asked(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    """A machine that stays on ESXi keeps its hardware version, unless another is asked for."""
    return _versioned(machine, wishes, log) if wishes.to is World.ESXI and wishes.hardware_version else machine


def _versioned(machine: Machine, wishes: Wishes, log: Log) -> Machine:
    version, why = _hardware_version(machine, wishes)
    if wishes.hardware_version and wishes.hardware_version < version:
        log.problem(f"hardware version {wishes.hardware_version}: the machine needs {version}", "leave --hardware-version out",
                    fatal=True)
    return replace(machine, hardware_version=log.change("hardware_version", machine.hardware_version, version, why))


def _hardware_version(machine: Machine, wishes: Wishes) -> tuple[int, str]:
    """The lowest that has what the machine needs; a machine of VMware's keeps its own if that is higher."""
    needed = lowest_hardware(machine)
    found = max((USUAL_HARDWARE, "what every ESXi since 5.5 runs"), (needed, "the lowest that has what the machine needs"),
                (machine.hardware_version or 0, "as it was"), key=lambda one: one[0])
    asked = wishes.hardware_version
    return (asked, "asked for") if asked and asked >= needed else found


def _esxi_cpu(cpu: Cpu, log: Log) -> Cpu:
    if cpu.features:
        names = tuple(f"{feature.name} ({feature.policy})" for feature in cpu.features)
        log.lost("cpu.features", names, "ESXi gives the host's", "a cluster's EVC mode hides features from all its machines")
    for name in ("mode", "model"):
        log.change(f"cpu.{name}", getattr(cpu, name), None, "ESXi gives the host's CPU")
    more = bool(cpu.maximum and cpu.maximum > cpu.count)
    hot_add = log.change("cpu.hot_add", cpu.hot_add, True, f"up to {cpu.maximum} could be plugged in") if more else cpu.hot_add
    if more:
        log.change("cpu.maximum", cpu.maximum, None, "ESXi has a limit of its own, not the machine's")
    return replace(cpu, mode=None, model=None, features=(), maximum=None, hot_add=hot_add, topology=_sockets(cpu, log))


def _sockets(cpu: Cpu, log: Log) -> Topology | None:
    """VMware knows cores a socket only; they must divide the CPUs that are switched on."""
    if cpu.topology is None:
        return None
    cores = cpu.topology.dies * cpu.topology.cores * cpu.topology.threads
    if cpu.count % cores:
        log.lost("cpu.topology", cpu.topology, f"{cores} cores a socket do not divide {cpu.count} CPUs",
                 "the guest sees one core a socket: licences may count sockets")
        return None
    fitting = Topology(sockets=cpu.count // cores, cores=cores)
    return log.change("cpu.topology", cpu.topology, fitting, "VMware counts cores a socket, and CPUs that are on")


def _esxi_memory(memory: Memory, log: Log) -> Memory:
    size = -(-memory.size // ESXI_MEMORY_UNIT) * ESXI_MEMORY_UNIT
    more = bool(memory.maximum and memory.maximum > memory.size)
    if memory.current is not None and memory.current < memory.size:
        log.lost("memory.current", memory.current, "ESXi sizes the balloon itself",
                 "set a limit on the machine if it must stay small")
    if more:
        log.change("memory.maximum", memory.maximum, None, "ESXi has a limit of its own, 16 times the size")
        log.change("memory.slots", memory.slots, None, "ESXi counts none")
    hot_add = log.change("memory.hot_add", memory.hot_add, True, "memory could be plugged in") if more else memory.hot_add
    return replace(memory, size=log.change("memory.size", memory.size, size, "VMware wants multiples of 4 MiB"), current=None,
                   maximum=None, slots=None, hot_add=hot_add)


def _esxi_tpm(machine: Machine, log: Log) -> Tpm | None:
    if machine.tpm:
        log.lost("tpm", machine.tpm.version or "2.0", "a TPM of ESXi needs an encrypted machine and a key provider of vCenter",
                 "add one there; keys sealed in the old one (BitLocker) are not carried")
    return None


def _esxi_clock(machine: Machine, log: Log) -> Clock:
    """VMware sets the hardware clock by the guest: local time for Windows, UTC for others."""
    clock = machine.clock
    here = "localtime" if is_windows(machine.guest_os) else "utc"
    if clock.offset not in (None, here):
        log.lost("clock.offset", clock.offset, f"VMware gives {here} to such a guest",
                 "check the guest's time after the first start")
    else:
        log.change("clock.offset", clock.offset, None, "VMware chooses the same by the guest's kind")
    log.change("clock.timers", tuple(timer.name for timer in clock.timers), (), "VMware has its own")
    return Clock()


def _esxi_resources(machine: Machine, log: Log) -> Resources:
    resources = machine.resources
    log.lost("resources.cpu_affinity", resources.cpu_affinity, "those are processors of the other host",
             "leave it to ESXi's scheduler")
    shares = resources.cpu_shares
    if shares is not None:
        shares = log.change("resources.cpu_shares", shares, max(1, shares * VMWARE_SHARES * machine.cpu.count // KVM_SHARES),
                            f"{VMWARE_SHARES} for each CPU is usual here, {KVM_SHARES} for the machine there")
    if resources.memory_limit is not None:
        log.lost("resources.memory_limit", resources.memory_limit, "there it limits QEMU's process, here the guest's own memory",
                 "set a limit in ESXi if one is wanted")
    return replace(resources, cpu_affinity=(), cpu_shares=shares, memory_limit=None)
