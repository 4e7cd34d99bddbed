"""Addresses of endpoints, parsed strictly: a URI may come from a runbook that somebody else wrote."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from imgtool.errors import UsageError
from imgtool.model.endpoint import Uri

REMOTE = ("esx", "vpx", "qemu+ssh", "metal+ssh")
"""Schemes that need a host."""
LOCAL = ("qemu", "metal")
OURS = ("no_verify", "cacert")
"""Parameters that every scheme knows."""
SSH = ("keyfile", "known_hosts")
VSPHERE = ("transport", *SSH, "sshport")
KNOWN = {"esx": VSPHERE, "vpx": VSPHERE, "metal": (), "metal+ssh": SSH}
"""Those of a scheme beside OURS; libvirt's are looked at where they are used."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?)$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse(text: str) -> Uri:
    """``esx://root@esxi1/?no_verify=1``, ``qemu:///system``, or a path. Raises UsageError, which never repeats a password."""
    if _CONTROL.search(text) or not text:
        raise UsageError("an address is empty or has control characters in it")
    match = _SCHEME.match(text)
    if match is None:
        return Uri(scheme="path", path=text)
    scheme = match[1].lower()
    if scheme not in REMOTE + LOCAL:
        raise UsageError(f"{scheme}:// is no address that imgtool knows", f"known: {', '.join(REMOTE + LOCAL)}, or a path")
    try:
        parts = urlsplit(text)
        password, port, host = parts.password, parts.port, (parts.hostname or "").replace("%25", "%")  # of an IPv6 zone
    except ValueError:
        raise UsageError(f"this {scheme}:// address cannot be understood", "esx://user@host:port/") from None
    if password is not None:
        raise UsageError(f"a password must not stand in an address ({scheme}://…)",
                         "use --password-file, IMGTOOL_PASSWORD or the prompt")
    if parts.fragment:
        raise UsageError(f"an address has no #fragment ({scheme}://{host})", "write # as %23")
    _check_host(scheme, host)
    verify, cacert, rest = _query(scheme, parts.query)
    return Uri(scheme=scheme, host=host or None, port=port, user=_decoded(parts.username, scheme), verify=verify, cacert=cacert,
               query=rest, path=_decoded(parts.path, scheme, keep=True) or "")


def _check_host(scheme: str, host: str) -> None:
    if scheme in REMOTE and not host:
        raise UsageError(f"{scheme}:// needs a host", f"{scheme}://user@host/")
    if scheme in LOCAL and host:
        raise UsageError(f"{scheme}:// takes no host", f"{scheme}:///…, or {scheme}+ssh://user@host/…")
    if host and not _HOST.match(host):
        raise UsageError(f"{host!r} is no name of a host")


def _decoded(text: str | None, scheme: str, *, keep: bool = False) -> str | None:
    """Percent-decoded; ``keep``: a path, whose leading slash goes."""
    if text is None:
        return None
    try:
        found = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UsageError(f"an address is not UTF-8 ({scheme}://…)") from None
    if _CONTROL.search(found):
        raise UsageError(f"an address has control characters in it ({scheme}://…)")
    return found.removeprefix("/") if keep else found


def _query(scheme: str, text: str) -> tuple[bool, str | None, tuple[tuple[str, str], ...]]:
    """(verify, cacert, all others)."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
    except ValueError:
        raise UsageError(f"the parameters of the {scheme}:// address cannot be understood", "?no_verify=1&cacert=FILE") from None
    if any(_CONTROL.search(name + value) for name, value in pairs):
        raise UsageError(f"a parameter of the {scheme}:// address has control characters in it")
    given = dict(pairs)
    if len(given) != len(pairs):
        raise UsageError(f"a parameter stands twice in the {scheme}:// address")
    rest = tuple((name, value) for name, value in pairs if name not in OURS)
    if scheme in KNOWN and (unknown := [name for name, _ in rest if name not in KNOWN[scheme]]):
        raise UsageError(f"{unknown[0]!r} is no parameter of {scheme}://", f"known: {', '.join(OURS + KNOWN[scheme])}")
    if given.get("no_verify", "0") not in ("0", "1"):
        raise UsageError("no_verify is 0 or 1")
    return given.get("no_verify") != "1", given.get("cacert") or None, rest


def shown(uri: Uri) -> str:
    """The address as a person writes it, without parameters."""
    if uri.scheme == "path":
        return os.path.abspath(uri.path)
    user = f"{uri.user}@" if uri.user else ""
    port = f":{uri.port}" if uri.host and uri.port else ""
    return f"{uri.scheme}://{user}{uri.host or ''}{port}/{uri.path}"
