"""adapt: a Linux guest boots, finds its disks and keeps its network on other hardware. No program of the guest is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from imgtool.errors import RefusedError, UsageError
from imgtool.guests.linux import (
    caches,
    console,
    devices,
    drivers,
    extend,
    kernels,
    packages,
    rebuild,
    tools,
)
from imgtool.guests.linux.bootloaders import efi, install_devices
from imgtool.guests.linux.bootloaders.find import Chooser, find
from imgtool.guests.linux.bootloaders.menu import Menu
from imgtool.guests.linux.devices import Names
from imgtool.guests.linux.distro import read_os
from imgtool.guests.linux.edit import Editor
from imgtool.guests.linux.kernels import Kernel
from imgtool.guests.linux.network import cloud_init, pin
from imgtool.guests.linux.network.find import follow
from imgtool.guests.linux.network.find import read as read_network
from imgtool.guests.linux.network.names import mac
from imgtool.guests.tree import Tree
from imgtool.model.guest import AdaptRequest, AdaptResult, Capabilities, FileSystem, OsInfo, Platform


def adapt(tree: Tree, filesystems: Iterable[FileSystem], request: AdaptRequest) -> AdaptResult:
    """Changes the guest. Raises RefusedError if no kernel of it can boot there, NoSpaceError, UsageError."""
    editor = Editor(tree=tree, backup=request.backup)
    os = read_os(tree) or OsInfo(family="linux")
    found = find(tree)
    kernel, known = _kernels(editor, found, request.platform)
    names = Names(filesystems, bare=kernel.initramfs is None and not efi.is_uki(kernel.path))
    devices.stabilize(editor, names)
    caches.forget(editor)
    pins = _network(editor, request)
    console.adapt(editor)
    given = packages.choose(request.packages, os) if request.packages else ()
    tools.adapt(editor, request.platform, packages.names(given))
    efi.add_fallback(editor, os.arch)
    _keep_drivers(editor, known, request.platform)
    if not request.rebuild_initramfs:
        extended = [extend.extend(editor, one, _files_of(one, request.platform), pins, names, fatal=one.version == kernel.version)
                    for one in known]
        kernel = next(one for one in extended if one.version == kernel.version)
    if given:
        packages.copy(editor, given, os)
    able = _capabilities(kernel, request, agent="qemu-guest-agent" in (*tools.find(tree), *packages.names(given)))
    if not able.disk_buses:
        editor.warn(f"kernel {kernel.version} will not find its disks on {request.platform}: its initramfs has no driver")
    install_devices.fix(editor, names, request.platform, next(iter(able.disk_buses), None))
    return AdaptResult(os=os, changes=tuple(editor.changes), warnings=tuple(editor.warnings), capabilities=able,
                       disk_bus=next(iter(able.disk_buses), None), nic_model=next(iter(able.nic_models), None))


@contextmanager
def commands(tree: Tree, platform: Platform) -> Iterator[tuple[tuple[str, ...], ...]]:
    """What ``--rebuild-initramfs`` runs in the guest, after ``adapt``, while this lasts."""
    found = find(tree)
    tool = rebuild.tool(tree)
    known = [kernel for kernel in kernels.find(tree, found[0] if found else None) if kernel.initramfs]
    names = {name for kernel in known for name in (*_files_of(kernel, platform), *_had(kernel))}
    with rebuild.listed_once(tree, tool, sorted(names)):
        yield tuple(argv for kernel in known for argv in rebuild.commands(
            tool, kernel.version, kernel.path, kernel.initramfs or "", _files_of(kernel, platform)))


def _had(kernel: Kernel) -> frozenset[str]:
    """The modules that its initramfs has now: what it boots from, and the file system of its root."""
    return kernel.contents.modules(kernel.version) if kernel.contents else frozenset()


def _kernels(editor: Editor, found: tuple[Menu, Chooser] | None, platform: Platform) -> tuple[Kernel, tuple[Kernel, ...]]:
    """The kernel that shall boot, made the default if it is another than now, and all of them."""
    known = kernels.find(editor.tree, found[0] if found else None)
    if not known:
        raise RefusedError("no kernel with its modules was found in the guest", "all disks of the machine have to be given")
    for kernel in known:
        missing = drivers.lacking(platform, kernel.has)
        if missing:
            editor.warn(f"kernel {kernel.version} has no driver for {', '.join(missing)}")
        if platform is Platform.METAL and not any(kernel.has(name) for name in drivers.COMMON_NICS):
            editor.warn(f"kernel {kernel.version} has no driver for the usual network cards of servers")
        if drivers.needs_xen(kernel.version):
            editor.warn(f"kernel {kernel.version} starts under Xen only")
    default = next(kernel for kernel in known if kernel.default)
    able = [kernel for kernel in known if drivers.buses(platform, kernel.has) and not drivers.needs_xen(kernel.version)]
    if not able:
        listed = ", ".join(one.version for one in known)
        raise RefusedError(f"no kernel of the guest has a driver for the disks of {platform}: {listed}",
                           "install the distribution's full kernel in the guest")
    best = [kernel for kernel in able if not drivers.lacking(platform, kernel.has)]
    if default in best or (default in able and not best):
        return default, known
    return _choose(editor, found, default, best or able), known


def _choose(editor: Editor, found: tuple[Menu, Chooser] | None, default: Kernel, better: Sequence[Kernel]) -> Kernel:
    chosen = next((kernel for kernel in better if kernel.entry), None)
    if found is None or chosen is None or chosen.entry is None:
        editor.warn(f"kernel {default.version} boots, but {better[0].version} has the drivers: choose that one in the boot menu")
        return better[0]
    menu, choose = found
    choose(editor, menu, chosen.entry, why=f"kernel {default.version} lacks drivers that {chosen.version} has")
    return replace(chosen, default=True)


def _network(editor: Editor, request: AdaptRequest) -> dict[str, bytes]:
    macs = {_mac(old): _mac(new) for old, new in request.macs}
    follow(editor, macs)
    nics = read_network(editor.tree)
    cards = tuple(map(_mac, request.nics)) or pin.cards(nics, macs.values())
    pins = pin.decide(editor, nics, cards)
    follow(editor, pin.moved(editor, nics, cards, pins))
    cloud_init.leave_network(editor, nics)
    return pin.apply(editor, pins)


def _mac(word: str) -> str:
    found = mac(word)
    if found is None:
        raise UsageError(f"{word!r} is no MAC address", "write it as 52:54:00:12:34:56")
    return found


def _files_of(kernel: Kernel, platform: Platform) -> tuple[str, ...]:
    """Wanted drivers that are files; what is built in needs no help."""
    return tuple(name for name in drivers.wanted(platform, kernel.has) if name in kernel.modules.files)


def _keep_drivers(editor: Editor, known: Sequence[Kernel], platform: Platform) -> None:
    """Those of the newest kernel: the next one will have them too."""
    names = _files_of(known[0], platform)
    rebuild.keep(editor, rebuild.tool(editor.tree), names, [known[0].modules.files[name] for name in names])


def _capabilities(kernel: Kernel, request: AdaptRequest, *, agent: bool) -> Capabilities:
    """A tool of the guest that runs afterwards puts in all that the kernel has."""
    early = kernel.has if request.rebuild_initramfs else kernel.early
    return drivers.capabilities(request.platform, kernel.version, early=early, has=kernel.has, agent=agent)
