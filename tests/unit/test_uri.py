"""Addresses of endpoints: what is understood, what is refused; where passwords come from."""

from __future__ import annotations

import getpass
import io
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtool.endpoints import SOURCES, TARGETS, target
from imgtool.endpoints.password import password
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import lease, login, tls
from imgtool.errors import RefusedError, UnreachableError, UsageError
from imgtool.model.endpoint import Credentials, Uri

GOOD = {
    "esx://root@esxi1/": Uri(scheme="esx", host="esxi1", user="root"),
    "esx://root@esxi1:8443/?no_verify=1": Uri(scheme="esx", host="esxi1", port=8443, user="root", verify=False),
    "esx://esxi1?no_verify=0": Uri(scheme="esx", host="esxi1"),
    "ESX://ESXi1/": Uri(scheme="esx", host="esxi1"),
    "vpx://DOM%5cadm%40corp@vc.example.org/F%C3%B6lder/DC%201?cacert=/etc/ca%20x.pem": Uri(
        scheme="vpx", host="vc.example.org", user="DOM\\adm@corp", path="Földer/DC 1", cacert="/etc/ca x.pem"),
    "esx://root@[fe80::1%25eth0]:443/": Uri(scheme="esx", host="fe80::1%eth0", port=443, user="root"),
    "qemu:///system": Uri(scheme="qemu", path="system"),
    "qemu+ssh://root@kvm1:22/system?keyfile=/k&sshauth=privkey": Uri(
        scheme="qemu+ssh", host="kvm1", port=22, user="root", path="system", query=(("keyfile", "/k"), ("sshauth", "privkey"))),
    "metal:///dev/sdb": Uri(scheme="metal", path="dev/sdb"),
    "metal+ssh://root@box/dev/sda": Uri(scheme="metal+ssh", host="box", user="root", path="dev/sda"),
    "/images/web 01.vmx": Uri(scheme="path", path="/images/web 01.vmx"),
    "a:b.qcow2": Uri(scheme="path", path="a:b.qcow2"),
}
BAD = ("", "esx:///", "esx://", "esx://root@/", "esx://root@h:99999/", "esx://root@h:x/", "esx://[::1/", "http://h/", "esx://h/#x",
       "esx://h/?unknown=1", "esx://h/?no_verify=yes", "esx://h/?no_verify=1&no_verify=0", "esx://h/?no_verify", "esx://a b/",
       "esx://h/%0a", "esx://%00@h/", "esx://h/%ff", "esx://-h/", "qemu://kvm1/system", "qemu+ssh:///system", "a\nb", "esx://h\t/",
       "metal+ssh://h/?keyfile=%00", "esx://h/?cacert=a%0ab", "metal+ssh://h/?keyfle=/k", "metal:///dev/sda?keyfile=/k")


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    assert parse(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize("text", ["esx://root:s3cret@h/", "vpx://root:s3cret@h:99999/", "esx://root:@h/", "qemu+ssh://a:s3cret@h/"])
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "s3cret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


@given(st.text(max_size=60), st.sampled_from(["", "esx://", "vpx://h/", "qemu+ssh://u@h/", "esx://h/?", "esx://["]))
def test_anything_is_understood_or_refused(text: str, before: str) -> None:
    try:
        found = parse(before + text)
    except UsageError:
        return
    assert found.scheme == "path" or not before or found.host


@pytest.mark.parametrize("scheme", SOURCES)
def test_each_scheme_has_its_module(scheme: str) -> None:
    assert callable(import_module(SOURCES[scheme]).source)
    assert scheme not in TARGETS or callable(import_module(TARGETS[scheme]).target)


def test_a_scheme_without_endpoint() -> None:
    with pytest.raises(UsageError, match="cannot be used here"):
        target(parse("metal:///dev/sda"), Credentials())


def test_the_password_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGTOOL_PASSWORD", "of the environment")
    (tmp_path / "p").write_text(" a b \r\nsecond line\n")
    assert password("root@h", Credentials(password_file=str(tmp_path / "p"))) == " a b "
    assert password("root@h", Credentials()) == "of the environment"


def test_no_password_and_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMGTOOL_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UnreachableError, match="no password for root@h"):
        password("root@h", Credentials())


def test_no_password_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMGTOOL_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))

    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", ended)
    with pytest.raises(UnreachableError, match="no password for root@h"):
        password("root@h", Credentials())


def test_a_command_that_prints_no_password_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgtool.endpoints.password.COMMAND_SECONDS", 1)
    with pytest.raises(UsageError, match="sleep, which shall print a password, did not end within 1 s"):
        password("root@h", Credentials(password_command=("sleep", "20")))


@pytest.mark.parametrize("command", [("false",), ("true",), ("sh", "-c", "echo secret; exit 1")])
def test_a_command_that_prints_no_password(command: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"{command[0]}, which shall print a password, ended with") as caught:
        password("root@h", Credentials(password_command=command))
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"x" * 5000])
def test_a_password_file_that_is_none(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "p").write_bytes(raw)
    for path in (tmp_path / "p", tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="password file"):
            password("root@h", Credentials(password_file=str(path)))


@pytest.mark.parametrize("host", ["esxi1..example.org", "x" * 64])
def test_a_name_that_no_host_can_have(host: str) -> None:
    with pytest.raises(UnreachableError, match="is not known"):
        tls.probe(host, tls.PORT, tls.Trust().context())


@pytest.mark.parametrize("address", ["http://h/a", "https://[h/a", "https://h:x/a", "https:///a", "a", ""])
def test_an_address_of_a_lease_that_is_none(address: str) -> None:
    session: Any = SimpleNamespace(account=login.Account(host="h", user="u", password="p"), context=tls.Trust().context())
    disk = lease.LeasedDisk(key="a", device="a", url=address, thumbprint="")
    with pytest.raises(RefusedError, match="no HTTPS"):
        lease.connection(lease.Lease(session, "lease", importing=False), disk)
