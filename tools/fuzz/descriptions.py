"""What the three kinds of machine descriptions have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

from imgtool.descriptions import DESCRIPTIONS, description, ovf
from imgtool.model.translation import TranslateRequest
from imgtool.steps import translate
from tools.fuzz.target import Reader, Target

FIXTURES = Path(__file__).parents[2] / "fixtures/descriptions"
LARGEST = 12 << 10
TURNS = 16
"""Reading takes a tenth of what translating takes: of so many inputs one goes each further way, by its checksum."""


def described(suffix: str, words: tuple[bytes, ...]) -> Target:
    """The target for the descriptions with this suffix."""
    return Target(partial(_seeds, suffix=suffix), partial(_reader, suffix=suffix), words, LARGEST)


def _seeds(folder: Path, suffix: str) -> Iterator[bytes]:
    """Those of the fixtures that can be read."""
    known = description(suffix)
    for path in sorted((FIXTURES / DESCRIPTIONS[suffix]).glob(f"*{suffix}")):
        data = path.read_bytes()
        if len(data) <= LARGEST and not any(problem.fatal for problem in known.parse(data).problems):
            yield data


def _reader(folder: Path, suffix: str) -> Reader:
    path, known = folder / f"x{suffix}", description(suffix)
    translate.kvm_state = lambda: (True, "")  # type: ignore[assignment]

    def read(data: bytes) -> None:
        machine = known.parse(data).machine
        turn = crc32(data) % TURNS
        if turn < len(DESCRIPTIONS):
            path.write_bytes(data)
            other = [*DESCRIPTIONS][turn]
            translate.translation(TranslateRequest(source=str(path), destination=str(folder / f"out{other}"), suffix=other))
        elif turn == len(DESCRIPTIONS):
            known.render(machine, onto=data)
        elif turn == len(DESCRIPTIONS) + 1 and suffix == ".ovf":
            ovf.files(data)
        elif turn == len(DESCRIPTIONS) + 1:
            plain = known.parse(known.without_secrets(data)).machine
            assert replace(plain, graphics=()) == replace(machine, graphics=()), "without passwords it is another machine"

    return read
