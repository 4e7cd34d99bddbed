"""A page that shows the jobs, for a browser of this host. It only reads: there is no request that changes anything.

Another user of the host cannot guess the address (a random token is in it); a foreign web page cannot read it (its name is not in
``Host``, whatever DNS says: RFC 9110, 7.2), nor put it into a frame; and what is in the page runs nothing (CSP).
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from imgtool.errors import ImgtoolError
from imgtool.model.job import Overview
from imgtool.runs.pages.overview import page
from imgtool.runs.pages.parts import POLICY, document
from imgtool.storage import raise_os

REFRESH = 5
"""Seconds after which the page asks again."""
KEPT = 2.0
"""Seconds for which an answer is good: several browsers ask the database once."""
LOOPBACK = "127.0.0.1"
PATIENCE = 30
"""Seconds for a request to be sent."""
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin"}


@contextmanager
def serving(look: Callable[[], Overview], port: int) -> Iterator[str]:
    """The address, which is good while the block lasts. ``port``: 0 is any that is free. Raises ImgtoolError."""
    token = secrets.token_urlsafe(24)
    try:
        server = _Server(_Latest(look), port, token)
    except OSError as error:
        raise_os(error, f"port {port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/{token}/"
    finally:
        server.shutdown()
        server.server_close()


class _Latest:
    """What was seen last, for a moment."""

    def __init__(self, look: Callable[[], Overview]) -> None:
        self._look, self._lock = look, threading.Lock()
        self._seen: Overview | None = None
        self._until = 0.0

    def __call__(self) -> Overview:
        with self._lock:
            if self._seen is None or time.monotonic() > self._until:
                self._seen = self._look()
                self._until = time.monotonic() + KEPT
            return self._seen


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, look: _Latest, port: int, token: str) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.look = look
        self.hosts = (f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}")
        self.places = {f"/{token}/": _html, f"/{token}/jobs.json": _json}


    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that has gone away is nothing to speak of."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _html(seen: Overview) -> tuple[str, str]:
    return "text/html; charset=utf-8", page(seen, refresh=REFRESH)


def _json(seen: Overview) -> tuple[str, str]:
    return "application/json", json.dumps(asdict(seen))


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "imgtool", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._answer(421, "text/plain", "this is not the host that you have asked\n")
            return
        path = self.path.partition("?")[0].encode()
        found = [work for place, work in self.server.places.items() if hmac.compare_digest(place.encode(), path)]
        if not found:
            self._answer(404, "text/plain", "imgtool dashboard has printed the address\n")
            return
        try:
            kind, text = found[0](self.server.look())
        except ImgtoolError as error:
            self._answer(503, "text/html; charset=utf-8", _sorry(error))
        else:
            self._answer(200, kind, text)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _answer(self, status: int, kind: str, text: str) -> None:
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Nothing: the address has the token in it."""


def _sorry(error: ImgtoolError) -> str:
    said = f'<h1>Jobs</h1><p class="bad">{escape(error.message)}</p><p>{escape(error.hint or "")}</p>'
    return document("Jobs", said, refresh=REFRESH)
