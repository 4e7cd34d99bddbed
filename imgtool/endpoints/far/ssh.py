"""ssh, as the user has set it up: configuration, keys, agent, known hosts. It never asks; it has no terminal.

A host key is checked as ssh is told to; ``?no_verify=1`` does not check it, as with libvirt's URIs. ``?keyfile=FILE``: a key.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from imgtool.model.endpoint import Uri

HINT = ("ssh must let us in without a question, and the shell there print nothing: ssh-agent, ?keyfile=FILE, the host's key in "
        "known_hosts")
"""Where it did not."""
KEEP = ("SSH_AUTH_SOCK", "SSH_AGENT_PID", "USER", "LOGNAME")
"""Of the environment."""
ALIVE_SECONDS = 15
CONNECT_SECONDS = 30


def argv(uri: Uri, command: Sequence[str] = (), *, options: Sequence[str] = ()) -> list[str]:
    """The command line that runs ``command`` (words, quoted here for the shell at the far end) on the URI's host."""
    assert uri.host  # noqa: S101 - endpoints/uri gives one to each scheme that is another machine's
    said = dict(uri.query)
    full = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}",
            "-o", f"ServerAliveInterval={ALIVE_SECONDS}", "-o", "ServerAliveCountMax=4"]
    if not uri.verify:
        full += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    if said.get("keyfile"):
        full += ["-i", said["keyfile"]]
    if said.get("known_hosts"):
        full += ["-o", f"UserKnownHostsFile={said['known_hosts']}"]
    if uri.port:
        full += ["-p", str(uri.port)]
    if uri.user:
        full += ["-l", uri.user]
    return [*full, *options, "--", uri.host, *([shlex.join(command)] if command else [])]
