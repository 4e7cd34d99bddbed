"""Passphrases of encrypted volumes, from files."""

from __future__ import annotations

from collections.abc import Iterable

from imgtool.errors import UsageError

MAX_KEY = 8192
"""Bytes: cryptsetup's limit for a key file that is no keyslot's size is 8 MiB, but libguestfs takes text only."""


def read_keys(paths: Iterable[str]) -> tuple[str, ...]:
    """The content of each file, as it is and without the line feed that an editor put at its end. Raises UsageError."""
    keys: dict[str, None] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_KEY + 1)
            text = data.decode()
        except OSError as error:
            raise UsageError(f"cannot read the key file {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            text = "\0"
        if not text or "\0" in text or len(data) > MAX_KEY:
            raise UsageError(f"the key file {path} holds no passphrase: one line of text is wanted",
                             "a binary key cannot be used here; add a passphrase with: cryptsetup luksAddKey")
        keys |= {text: None, text.removesuffix("\n"): None}
    return tuple(key for key in keys if key)
