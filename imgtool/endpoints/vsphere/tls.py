"""Certificates: who it is that gets the password. Every connection to a vSphere server, for calls and for data, is made here."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any

from imgtool.errors import NotAdmittedError, UnreachableError, UsageError

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 60.0
"""A server that sends nothing for so long is given up, and asked again."""
PORT = 443

_DIGESTS = {40: "sha1", 64: "sha256"}


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What makes a certificate good: a chain to an authority, a pin, or (``verify`` off) nothing."""

    verify: bool = True
    cacert: str | None = None
    thumbprint: str | None = None

    @property
    def word(self) -> str:
        """checked, pinned or unchecked."""
        return "pinned" if self.thumbprint is not None else "checked" if self.verify else "unchecked"

    def context(self) -> ssl.SSLContext:
        """Raises UsageError."""
        if self.thumbprint is not None:
            return _pinned(self.thumbprint)
        try:
            context = ssl.create_default_context(cafile=self.cacert)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"the certificates in {self.cacert} cannot be read: {error}") from error
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class _Pinned(ssl.SSLContext):
    """Lets a connection stand only if the server has the certificate with the pinned digest; checked before anything is sent."""

    pin = ""

    def wrap_socket(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        made = super().wrap_socket(*args, **named)
        found = digest(made.getpeercert(binary_form=True) or b"", _DIGESTS[len(self.pin)])
        if not hmac.compare_digest(found, self.pin):
            made.close()
            raise ssl.SSLCertVerificationError(1, "it is not the one with the given thumbprint")
        return made


def _pinned(thumbprint: str) -> ssl.SSLContext:
    pin = re.sub(r"[:\s]", "", thumbprint).lower()
    if len(pin) not in _DIGESTS or not re.fullmatch(r"[0-9a-f]+", pin):
        raise UsageError("a thumbprint is the SHA-256 (or SHA-1) of a certificate in hexadecimal",
                         "openssl x509 -in CERT -noout -fingerprint -sha256")
    context = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.pin = False, ssl.CERT_NONE, pin
    return context


def digest(certificate: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, certificate, usedforsecurity=False).hexdigest()


def colons(text: str) -> str:
    """As people compare it: ``AB:CD:…``."""
    return ":".join(text[at:at + 2] for at in range(0, len(text), 2)).upper()


def presented(host: str, port: int) -> str:
    """The SHA-256 of the certificate that a server shows; nothing is sent to it. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (socket.create_connection((host, port), CONNECT_SECONDS) as plain,
          context.wrap_socket(plain, server_hostname=host) as made):
        return colons(digest(made.getpeercert(binary_form=True) or b""))


def probe(host: str, port: int, context: ssl.SSLContext) -> None:
    """Raises UnreachableError with the reason in plain words, before a password is anywhere near."""
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as plain, context.wrap_socket(plain, server_hostname=host):
            pass
    except ssl.SSLCertVerificationError as error:
        why = getattr(error, "verify_message", None) or error.strerror
        raise NotAdmittedError(f"the certificate of {host}:{port} is not trusted: {why}",
                               f"its SHA-256 is {_shown(host, port)}: compare it at the server; then --thumbprint or ?cacert=FILE"
                               ) from error
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: of a label that is empty, or too long
        raise UnreachableError(f"the name {host} is not known: {getattr(error, 'strerror', None) or error}") from error
    except OSError as error:
        raise UnreachableError(f"{host}:{port} cannot be reached: {error.strerror or error}",
                               f"is this the host, and does a firewall let port {port} through?") from error


def _shown(host: str, port: int) -> str:
    try:
        return presented(host, port)
    except OSError:
        return "no certificate now"


def connection(host: str, port: int, context: ssl.SSLContext, timeout: float = ANSWER_SECONDS) -> http.client.HTTPSConnection:
    """Not yet open."""
    made = http.client.HTTPSConnection(host, port, context=context, timeout=timeout)
    made.response_class = _Answer
    return made


class _Records(io.RawIOBase):
    """What TLS brings, in records of 16 KiB at most: 4 GiB are 262,144 calls, and socket.SocketIO takes as long as all else."""

    def __init__(self, sock: ssl.SSLSocket, below: io.BufferedIOBase) -> None:
        """``below``: the file that http.client has made, from which nothing was read. The socket stays open as long as it."""
        self._read, self._below = sock.read, below

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        return int(self._read(len(room), room))

    def close(self) -> None:
        super().close()
        self._below.close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: ssl.SSLSocket, *given: Any, **named: Any) -> None:
        super().__init__(sock, *given, **named)
        self.fp = io.BufferedReader(_Records(sock, self.fp))
