"""Holds libguestfs, so that it can be ended at any moment: ``python -I guestfs_child.py``, started by ``appliance.py``.

It imports nothing of imgtool. A question on stdin is the name of a function of guestfs(3) with its arguments, as JSON:
``{"call": "mount_options", "args": ["ro", "/dev/sda1", "/"], "options": {}}``; the answer on stdout is ``{"result": …}`` or
``{"error": "why", "errno": 2}``. Bytes stand in it as ``{"base64": "…"}``. Framing: ``proc.converse``.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
from contextlib import closing, suppress
from typing import Any

LENGTH = 8


def main() -> None:
    """Answers until stdin ends."""
    import guestfs

    questions, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what QEMU prints is no answer
    signal.signal(signal.SIGTERM, lambda *_: None)  # it ends the appliance, and with it our call; then stdin has ended, too
    handle = guestfs.GuestFS(python_return_dict=True)
    with closing(handle), suppress(BrokenPipeError):  # closed, it leaves no folders in /tmp
        while head := questions.read(LENGTH):
            question = json.loads(questions.read(int.from_bytes(head, "big")), object_hook=bytes_in)
            answer = json.dumps(_answer(handle, question), default=bytes_out).encode()
            answers.write(len(answer).to_bytes(LENGTH, "big") + answer)
            answers.flush()


def _answer(handle: Any, question: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": getattr(handle, question["call"])(*question["args"], **question["options"])}
    except RuntimeError as error:
        return {"error": str(error), "errno": _errno(str(error))}
    except UnicodeError as error:
        return {"error": f"a name that is no UTF-8: {error}", "errno": 0}


def _errno(words: str) -> int:
    """From the end of libguestfs's message, since its Python binding does not give the number; 0: none of the usual."""
    return next((number for number in errno.errorcode if words.endswith(os.strerror(number))), 0)


def bytes_in(found: dict[str, Any]) -> Any:
    """``object_hook`` of JSON: bytes, where ``bytes_out`` wrote some."""
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found


def bytes_out(value: object) -> object:
    """``default`` of JSON: bytes as ``{"base64": …}``."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(type(value))


if __name__ == "__main__":
    main()
