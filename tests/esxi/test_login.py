"""Who gets the password, and when; sessions that end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.esxi import Datastore, Registered, Server, Simulator, esxi
from imgtool.endpoints.uri import parse
from imgtool.endpoints.vsphere import connect, inventory, login, tls
from imgtool.endpoints.vsphere.facts import facts
from imgtool.endpoints.vsphere.folder import StorePath
from imgtool.endpoints.vsphere.login import Session
from imgtool.errors import StoppedError, UnreachableError, UsageError
from imgtool.model.endpoint import Credentials
from tests.esxi.machines import machine
from tests.esxi.sessions import account, files, session


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    place = tmp_path_factory.mktemp("ds")
    with esxi([Datastore(name="ds", directory=place)], [Registered(path=f"[ds] {machine(place, 'web01', [1 << 20])}")]) as made:
        yield made


@pytest.fixture(autouse=True)
def _plain(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reset()
    monkeypatch.delenv("IMGTOOL_PASSWORD", raising=False)


def trusts(server: Simulator) -> dict[str, tls.Trust]:
    return {"its certificate": tls.Trust(cacert=str(server.ca_file)), "its thumbprint": tls.Trust(thumbprint=server.thumbprint),
            "nothing": tls.Trust(verify=False)}


@pytest.mark.parametrize("by", ["its certificate", "its thumbprint", "nothing"])
def test_a_good_certificate_lets_us_in(server: Simulator, by: str) -> None:
    made = Session(account(server, trust=trusts(server)[by]))
    assert [one.name for one in inventory.machines(made)] == ["web01"]
    made.close()
    assert server.counters()["sessions"] == 0


@pytest.mark.parametrize(("kind", "by"), [("expired", "its certificate"), ("wrong-host", "its certificate"),
                                          ("good", "authorities"), ("good", "another thumbprint")])
def test_a_bad_certificate_stops_before_the_password(tmp_path: Path, kind: str, by: str) -> None:
    """Also on 127.0.0.1, where pyvmomi by itself trusts anybody."""
    with esxi([Datastore(name="ds", directory=tmp_path)], server=Server(certificate=kind)) as made:
        trust = {"its certificate": tls.Trust(cacert=str(made.ca_file)), "authorities": tls.Trust(),
                 "another thumbprint": tls.Trust(thumbprint="00" * 32)}[by]
        with pytest.raises(UnreachableError, match="certificate") as caught:
            Session(account(made, trust=trust))
        assert caught.value.exit_code == 8
        assert made.thumbprint in str(caught.value.hint)
        assert made.counters()["calls"] == {}


@pytest.mark.parametrize("kind", ["expired", "wrong-host"])
def test_a_pin_is_stronger_than_dates_and_names(tmp_path: Path, kind: str) -> None:
    with esxi([Datastore(name="ds", directory=tmp_path)], server=Server(certificate=kind)) as made:
        Session(account(made, trust=tls.Trust(thumbprint=made.thumbprint.lower().replace(":", "")))).close()
        assert made.counters()["calls"]["Login"] == 1


def test_a_pin_holds_for_data_too(server: Simulator) -> None:
    made = Session(account(server, trust=tls.Trust(thumbprint=server.thumbprint)))
    try:
        told = facts(made, inventory.find(made, "web01"))
        assert b"web01" in files(made, "web01").read(StorePath.parse(told.description))
    finally:
        made.close()


def test_a_wrong_password(server: Simulator) -> None:
    with pytest.raises(UnreachableError, match="does not accept this password for root") as caught:
        Session(account(server, password="guess"))
    assert "guess" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("password", ["", None])
def test_nobody_there(server: Simulator, password: str | None) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nobody = login.Account(host="127.0.0.1", port=other.getsockname()[1], user="root", password=password or "x")
        with pytest.raises(UnreachableError, match="cannot be reached"):
            Session(nobody)


def test_no_tls_there(server: Simulator) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        Session(login.Account(host="127.0.0.1", port=server.control_port, user="root", password="x"))


@pytest.mark.parametrize("thumbprint", ["", "12:34", "zz" * 32, "00" * 33])
def test_a_thumbprint_that_is_none(thumbprint: str) -> None:
    with pytest.raises(UsageError, match="thumbprint"):
        tls.Trust(thumbprint=thumbprint).context()


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for file in ("ca.pem", "missing.pem"):
        with pytest.raises(UsageError, match="cannot be read"):
            tls.Trust(cacert=str(tmp_path / file)).context()


def test_the_password_comes_from_a_file_or_the_environment(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = parse(server.uri())
    connect(uri, Credentials(password_file=str(server.password_file))).close()
    with pytest.raises(UnreachableError, match="no password for root@127"):
        connect(uri, Credentials())
    monkeypatch.setenv("IMGTOOL_PASSWORD", server.password)
    connect(uri, Credentials()).close()


@pytest.mark.parametrize("api", [True, False])
def test_a_session_that_ended_is_renewed(server: Simulator, api: bool) -> None:
    """On SOAP and on data, or on data alone."""
    with session(server) as made:
        one = inventory.find(made, "web01")
        told = facts(made, one)
        server.expire(api=api)
        assert facts(made, one).disks == told.disks
        assert b"web01" in files(made, "web01").read(StorePath.parse(told.description))
        assert server.counters()["calls"]["Login"] == 2
    assert server.counters()["sessions"] == 0


def test_a_session_is_renewed_before_it_ends(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with session(server) as made:
        old = made.cookie()
        monkeypatch.setattr(login, "RENEW_AFTER", 0.0)
        new = made.cookie()
        assert new != old
        assert server.counters()["sessions"] == 1, "the old one is left"


def test_a_busy_server_is_asked_again(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "FIRST_PAUSE", 0.01)
    with session(server) as made:
        server.order(unavailable503=4)
        assert [one.name for one in inventory.machines(made)] == ["web01"]
        server.order(unavailable503=1000)
        with pytest.raises(UnreachableError, match="503"):
            inventory.machines(made)
        server.reset()


def test_a_busy_server_is_asked_again_at_the_login(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(login.time, "sleep", pauses.append)
    server.order(unavailable503=3)
    with session(server) as made:
        assert [one.name for one in inventory.machines(made)] == ["web01"]
    assert pauses == [0.5, 1.0, 2.0]
    server.order(unavailable503=1000)
    with pytest.raises(UnreachableError, match=r"logging in to .*503"), session(server):
        pass
    server.reset()


def test_a_call_that_may_have_been_carried_out(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again where the server was too busy for it, and not where the connection broke: two machines would be made."""
    monkeypatch.setattr(login, "FIRST_PAUSE", 0.01)
    asked: list[int] = []

    def broken(_stub: object) -> None:
        asked.append(1)
        raise ConnectionResetError("reset")

    with session(server) as made:
        server.order(unavailable503=2)
        assert made.call("asking", lambda stub: login.content(stub).about.productLineId, again=False)
        with pytest.raises(UnreachableError, match="making it: reset"):
            made.call("making it", broken, again=False)
        assert len(asked) == 1
        server.order(unavailable503=1000)
        with pytest.raises(UnreachableError, match=r"logging in to .*503"):
            made.renew(made._value())
        server.reset()


def test_a_session_that_always_ends(server: Simulator) -> None:
    from pyVmomi import vim

    def refused(_stub: object) -> None:
        raise vim.fault.NotAuthenticated

    with session(server) as made, pytest.raises(UnreachableError, match="looking: the server does not permit that"):
        made.call("looking", refused)
    assert server.counters()["sessions"] == 0


def test_errors_that_are_no_faults_of_the_api() -> None:
    """A stop stays one; what nobody knows is an error with words."""
    stopped = StoppedError(15)
    assert login.said(stopped, "looking") is stopped
    assert (type(found := login.said(ValueError(), "looking")), found.message) == (UnreachableError, "looking: ValueError")


def test_a_certificate_that_is_gone_when_it_shall_be_shown(server: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_host: str, _port: int) -> str:
        raise ConnectionRefusedError

    monkeypatch.setattr(tls, "presented", gone)
    with pytest.raises(UnreachableError, match="is not trusted") as caught:
        Session(account(server, trust=tls.Trust()))
    assert "no certificate now" in (caught.value.hint or "")


def test_the_password_is_in_no_argument_and_no_log(server: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), session(server) as made:
        server.expire()
        inventory.machines(made)
        seen = [each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline")]
        assert repr(made.account).count(server.password) == 0
    assert not [line for line in seen if server.password.encode() in line]
    assert caplog.text
    assert server.password not in caplog.text
