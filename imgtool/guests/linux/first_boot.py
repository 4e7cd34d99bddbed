"""Something that the guest does itself, once, when it next boots: a script, and what starts it under each init system.

It runs as the guest's root and writes a log. Whether it succeeds or not, it never starts a second time; what it was to install is
removed only if it succeeded.
"""

from __future__ import annotations

from imgtool.guests.linux.edit import Editor
from imgtool.guests.linux.init import init_system, start_links

NAME = "imgtool-first-boot"
SCRIPT = "/var/lib/imgtool/first-boot"
LOG = "/var/log/imgtool-first-boot.log"
UNIT = f"/etc/systemd/system/{NAME}.service"
WANTED = f"/etc/systemd/system/multi-user.target.wants/{NAME}.service"
INIT = f"/etc/init.d/{NAME}"
LINK = f"S99{NAME}"
OPENRC = f"/etc/runlevels/default/{NAME}"
WHAT, WHY = "started once at the next boot", "the packages are installed by the guest itself"
TRIES = 30
"""Ten seconds between: another package manager may be at work when a guest boots."""
CONTENT = """\
#!/bin/sh
# Written by imgtool adapt: runs once, says what it did in {log}.
exec >>{log} 2>&1 </dev/null
rm -f {traces}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
cd {folder} || exit 1
code=1
for try in $(seq {tries}); do
    date
    {install}
    code=$?
    [ $code -eq 0 ] && break
    [ $try -lt {tries} ] && sleep 10
done
echo "exit code: $code"
cd /
rm -f {script}
[ $code -eq 0 ] && rm -rf {folder}
exit $code
"""
SERVICE = """\
[Unit]
Description=Packages that imgtool adapt was given
After=local-fs.target network.target

[Service]
Type=simple
ExecStart=/bin/sh {script}

[Install]
WantedBy=multi-user.target
"""
"""Simple, not oneshot: a package that starts its service waits for it, and that may wait for the end of the boot."""
SYSV = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: {name}
# Required-Start: $local_fs
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop:
# Short-Description: Packages that imgtool adapt was given
### END INIT INFO
[ "$1" = start ] && /bin/sh {script} &
exit 0
"""
OPENRC_SCRIPT = """\
#!/sbin/openrc-run
description="Packages that imgtool adapt was given"
depend() {{
    need localmount
    after *
}}
start() {{
    /bin/sh {script} &
    return 0
}}
"""


def install(editor: Editor, command: str, folder: str) -> None:
    """``command`` is run in ``folder`` at the next boot, up to its success; then the folder is removed."""
    starter = {"systemd": _systemd, "openrc": _openrc, "sysv": _sysv}.get(init_system(editor.tree) or "")
    if starter is None:
        editor.warn(f"the guest's init system is unknown: install what is in {folder} by hand")
        return
    traces = " ".join((UNIT, WANTED, INIT, OPENRC, *(f"/etc/rc[2345].d/{LINK}", f"/etc/rc.d/rc[2345].d/{LINK}")))
    content = CONTENT.format(log=LOG, traces=traces, folder=folder, tries=TRIES, install=command, script=SCRIPT)
    editor.write(SCRIPT, content.encode(), what="script for the next boot", why=WHY, mode=0o755)
    starter(editor)


def _systemd(editor: Editor) -> None:
    editor.write(UNIT, SERVICE.format(script=SCRIPT).encode(), what=WHAT, why=WHY)
    editor.symlink(UNIT, WANTED, what=WHAT, why=WHY)


def _openrc(editor: Editor) -> None:
    _script(editor, OPENRC_SCRIPT)


def _sysv(editor: Editor) -> None:
    _script(editor, SYSV)


def _script(editor: Editor, content: str) -> None:
    editor.write(INIT, content.format(name=NAME, script=SCRIPT).encode(), what=WHAT, why=WHY, mode=0o755)
    for link in start_links(editor.tree, NAME, 99):
        editor.symlink(INIT, link, what=WHAT, why=WHY)
