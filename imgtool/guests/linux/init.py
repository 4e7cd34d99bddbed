"""What starts the guest's services: systemd, OpenRC, or scripts in ``/etc/init.d`` with links in folders of run levels."""

from __future__ import annotations

from imgtool.guests.tree import Tree

RUN_LEVELS = ("/etc/rc{0}.d", "/etc/rc.d/rc{0}.d")
LEVELS = "2345"
DEFAULT = "/etc/runlevels/default"


def init_system(tree: Tree) -> str | None:
    """systemd, openrc, sysv (upstart starts its scripts too); None if none of them is there, or it keeps lists of its own."""
    if tree.realpath("/sbin/init").endswith("/systemd") or (tree.readlink("/sbin/init") or "").endswith("/systemd"):
        return "systemd"
    if tree.is_file("/sbin/openrc-run"):
        return "openrc"
    listed = tree.is_file("/etc/init.d/.depend.start")  # startpar starts what stands there
    return "sysv" if not listed and any(tree.is_dir(base.format(3)) for base in RUN_LEVELS) else None


def start_links(tree: Tree, service: str, order: int) -> tuple[str, ...]:
    """Links that would start a script of ``/etc/init.d``; none under systemd."""
    system = init_system(tree)
    if system == "openrc":
        return (f"{DEFAULT}/{service}",)
    if system != "sysv":
        return ()
    folders = [next((found for one in RUN_LEVELS if tree.is_dir(found := one.format(level))), None) for level in LEVELS]
    return tuple(f"{tree.realpath(folder)}/S{order:02}{service}" for folder in folders if folder)
