"""Changes of a program: each changes what it does, nothing else, and can be compiled."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mounts import call, need
from tools.mutation.operators import places
from tools.mutation.runner import unmount

PROGRAM = '''
"""words"""
from x import y
if TYPE_CHECKING:
    A = 1 + 1
LIMIT: int = 1 << 20
def f(a: int = 3) -> bool:
    """words"""
    assert a > 0, "no"
    if a < LIMIT and not a in (1, 2):
        raise ValueError(f"{a + 1} is wrong")
    print(min(a, 5))
    return True if a else g(a)
'''
CHANGED = {"1 << 20", "1", "20", "3", "a < LIMIT and (not a in (1, 2))", "a < LIMIT", "a in (1, 2)", "2", "min(a, 5)", "5",
           "print(min(a, 5))", "return True if a else g(a)", "True if a else g(a)", "True"}


def test_all_that_is_program_is_changed() -> None:
    text = ast.unparse(ast.parse(PROGRAM))
    found, made = places(ast.parse(PROGRAM)), set()
    for number in range(len(found)):
        module = ast.parse(PROGRAM)
        places(module)[number].change()
        changed = ast.unparse(ast.fix_missing_locations(module))
        compile(changed, "x", "exec")
        made.add(changed)
    assert text not in made
    assert len(made) == len(found)
    before = {place.before for place in found}
    assert {one for one in before if not one.startswith(("if ", "raise "))} == CHANGED
    assert sum(one.startswith(("if a <", "raise ValueError")) for one in before) == 2


def test_what_a_killed_test_has_mounted_goes(tmp_path: Path) -> None:
    """One mount below another."""
    for point in (tmp_path / "one", tmp_path / "one" / "two"):
        point.mkdir()
        call(need("mount"), "-t", "tmpfs", "tmpfs", point)
    unmount(str(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text(encoding="utf-8")
