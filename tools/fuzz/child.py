"""The process of one target: `python -m tools.fuzz.child NAME FOLDER SECONDS SEED`. Ends by itself; the last line is JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import atheris

from tools.fuzz.target import Target
from tools.fuzz.targets import target
from tools.fuzz.watch import Watch, limit

HANG = 60
"""Seconds after which libFuzzer gives up on one input, and keeps it."""


def main(name: str, kept: Path, seconds: float, seed: int) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    logging.disable()
    scratch = Path(tempfile.gettempdir())
    with atheris.instrument_imports(include=["imgtool"]):
        one = target(name)
        watch = Watch(one.reader(scratch), kept)
        corpus = _corpus(one, scratch, kept, watch)
    limit()
    atheris.Setup([name, *_options(one, kept, seed), str(corpus)], _until(time.monotonic() + seconds, watch))
    atheris.Fuzz()


def _corpus(one: Target, scratch: Path, kept: Path, watch: Watch) -> Path:
    """The seeds in a folder. Each is read once, so that what is imported late is counted, too, and must be sound."""
    corpus = kept / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(one.seeds(scratch)):
        (corpus / f"seed-{number}").write_bytes(data)
        watch(data)
        assert len(data) <= one.largest, f"seed {number} has {len(data)} bytes"
    if watch.refused or not watch.read:
        sys.exit(f"{watch.refused} seeds are refused, {watch.read} are read: they lead nowhere")
    return corpus


def _options(one: Target, kept: Path, seed: int) -> list[str]:
    options = [f"-seed={seed}", f"-max_len={one.largest}", f"-timeout={HANG}", f"-artifact_prefix={kept}/found-",
               "-rss_limit_mb=0"]
    if not one.words:
        return options
    words = kept / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in one.words), "ascii")
    return [*options, f"-dict={words}"]


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _until(end: float, watch: Watch) -> object:
    def read(data: bytes) -> None:
        watch(data)
        if time.monotonic() > end:
            _end(watch)
    return read


def _end(watch: Watch) -> NoReturn:
    """libFuzzer would end without a word of ours."""
    print(json.dumps({"read": watch.read, "refused": watch.refused, "found": sorted(watch.found)}), flush=True)
    os._exit(1 if watch.found else 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
