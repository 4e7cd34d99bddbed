"""The rule who may import whom, by reading the sources; what start-up loads; the size of modules and functions; exit codes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import typer

from imgtool import descriptions, errors, suffixes
from imgtool.cli.app import MODULES
from tests.program import ENVIRONMENT, ROOT

PACKAGE = ROOT / "imgtool"
LAYERS = (("errors", "model", "plan"), ("proc", "storage", "files", "journal", "progress", "codec", "kvm", "frozen", "units",
           "suffixes"),
          ("qemu",),
          ("formats", "descriptions", "partitions"),
          ("copying",), ("guests", "ova", "endpoints"), ("retarget",), ("steps",), ("runs",), ("cli",))
"""From left to right: a layer imports itself and those to its left."""
NARROWER = {"errors": set(), "model": {"errors", "model"}, "plan": {"errors", "model"}, "progress": {"errors"},
            "storage": {"errors"}, "journal": {"errors", "storage", "journal"}, "codec": set(), "kvm": set(), "frozen": {"model"},
            "units": set(), "suffixes": set()}
"""These may import less than their layer."""
ALTERNATIVES = {"formats": ("raw", "qcow2", "vmdk", "foreign"), "descriptions": ("vmx", "domain_xml", "ovf")}
"""Ways to do the same thing: they know nothing of each other."""
LAZY = ("numpy", "tqdm", "zstandard", "nbd", "isal", "deflate", "guestfs", "lz4", "yaml", "pyVmomi", "pyVim", "libvirt",
        "libvirt_qemu")
ONLY_IN = {"subprocess": {"imgtool.proc"}, "nbd": {"imgtool.formats.foreign"}, "guestfs": {"imgtool.guests.guestfs_child"},
           "isal": {"imgtool.codec"}, "deflate": {"imgtool.codec"}, "lz4": {"imgtool.codec"},
           "zstandard": {"imgtool.codec", "imgtool.endpoints.far.program"},
           "pyVmomi": {f"imgtool.endpoints.vsphere.{name}" for name in ("login", "properties", "lease", "hardware")},
           "pyVim": {"imgtool.endpoints.vsphere.login"},
           "dbos": {f"imgtool.runs.engine.{name}" for name in ("store", "worker", "workflows")},
           "sqlalchemy": {"imgtool.runs.engine.store"},
           "psycopg": {f"imgtool.runs.engine.{name}" for name in ("store", "identity")},
           "libvirt": {f"imgtool.endpoints.libvirt.{name}" for name in (
               "connection", "define", "disks", "far_target", "inventory", "source", "storage", "target", "upload", "watch")}}
MAX_MODULE, MAX_FUNCTION, USUAL_FUNCTION = 400, 60, 40
SENT_WHOLE = {"program.py": 600}
"""Runs on another machine, and must be one file."""


@cache
def sources() -> dict[str, ast.Module]:
    """Each module of the package, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def imports(module: str, *, top: bool = False, typing: bool = True) -> Iterator[str]:
    """What a module imports, as dotted names. ``top``: at import time only; ``typing``: under TYPE_CHECKING too."""
    waiting: list[ast.AST] = [sources()[module]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(module, node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing:
            waiting += node.orelse
        elif not (top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _from(module: str, node: ast.ImportFrom) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[:len(parts) - node.level + is_package(module)]
        base = ".".join([*parts, *([node.module] if node.module else [])])
    for alias in node.names:
        full = f"{base}.{alias.name}"
        yield full if full in sources() else base


def part(module: str) -> str:
    """The part of the package that a module belongs to: ``imgtool.formats.raw`` → ``formats``."""
    return module.split(".")[1] if "." in module else module


def may_import(importer: str, imported: str) -> bool:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    if importer in NARROWER:
        return imported in NARROWER[importer]
    return level[imported] <= level[importer]


def test_every_part_has_its_layer() -> None:
    known = {name for layer in LAYERS for name in layer} | {"imgtool", "__main__"}
    assert {part(module) for module in sources()} == known


def test_each_layer_imports_itself_and_those_to_its_left() -> None:
    wrong = [f"{module} imports {name}" for module in sources() if part(module) not in ("imgtool", "__main__")
             for name in imports(module) if name.startswith("imgtool.") and not may_import(part(module), part(name))]
    assert not wrong


@pytest.mark.parametrize("folder", ALTERNATIVES)
def test_alternatives_do_not_know_each_other(folder: str) -> None:
    wrong, prefix = [], f"imgtool.{folder}."
    for module in sources():
        mine = module.split(".")[2] if module.startswith(prefix) else None
        for name in imports(module) if mine in ALTERNATIVES[folder] else ():
            other = name.split(".")[2] if name.startswith(prefix) else None
            if other in ALTERNATIVES[folder] and other != mine:
                wrong.append(f"{module} imports {name}")
    assert not wrong


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_has_one_place(library: str) -> None:
    found = {module for module in sources() for name in imports(module) if name.split(".")[0] == library}
    assert found == ONLY_IN[library]


def test_no_cycles() -> None:
    """Among the imports that run when a module is loaded."""
    edges = {module: {name for name in imports(module, top=True, typing=False) if name in sources() and name != module}
             for module in sources()}
    done: set[str] = set()
    while ready := [module for module in edges if module not in done and edges[module] <= done]:
        done.update(ready)
    assert set(edges) - done == set()


@pytest.mark.parametrize("library", LAZY)
def test_is_loaded_only_where_it_is_used(library: str) -> None:
    found = [module for module in sources() for name in imports(module, top=True, typing=False) if name.split(".")[0] == library]
    assert not found


LOADED = """
import sys
from imgtool.cli.app import main
sys.argv = ["imgtool", *sys.argv[1:]]
try:
    main()
finally:
    print("loaded:", *sys.modules, file=sys.stderr)
"""


def loaded(*args: object) -> set[str]:
    """The modules that a command has loaded at its end."""
    argv = [sys.executable, "-c", LOADED, *map(str, args)]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    words = done.stderr.split("loaded: ")[1].split()
    assert "imgtool.cli.app" in words
    return set(words)


def test_help_and_info_load_nothing_large(tmp_path: Path) -> None:
    flat, descriptor = tmp_path / "x-flat.vmdk", tmp_path / "x.vmdk"
    flat.write_bytes(b"")
    with flat.open("r+b") as file:
        file.truncate(1 << 30)
    descriptor.write_text('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="vmfs"\n'
                          'RW 2097152 VMFS "x-flat.vmdk"\nddb.adapterType = "lsilogic"\n')
    large = {*LAZY, "lxml", "rich", "pydantic", "secrets", "concurrent.futures.thread",
             "imgtool.model.machine", "imgtool.model.devices", "imgtool.model.guest", "dbos", "sqlalchemy", "psycopg"}
    assert not loaded("--help") & large
    assert not loaded("info", descriptor) & large
    assert "imgtool.formats.vmdk.read" in loaded("info", descriptor)


def test_a_command_loads_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(b"x" * 512)
    found = loaded("convert", tmp_path / "x.raw", "--to", "qcow2")
    assert "imgtool.cli.convert" in found
    assert not found & {"imgtool.cli.migrate", "imgtool.cli.jobs", "imgtool.model.translation", "imgtool.model.machine",
                        "imgtool.steps.migrate", "imgtool.steps.adapt", "imgtool.guests.used", "imgtool.guests.appliance",
                         "imgtool.retarget", "imgtool.endpoints", "lxml", "pyVmomi"}


def test_each_suffix_of_a_description_has_its_module() -> None:
    assert tuple(descriptions.DESCRIPTIONS) == suffixes.DESCRIPTIONS


def test_each_command_is_where_the_program_looks_for_it() -> None:
    for module, commands in MODULES.items():
        program = typer.Typer()
        import_module(f"imgtool.cli.{module}").register(program)
        names = [each.name or each.callback.__name__ for each in program.registered_commands if each.callback]
        assert (*names, *(each.typer_instance.info.name for each in program.registered_groups if each.typer_instance)) == commands


def functions() -> Iterator[tuple[str, int]]:
    """(name, lines) of each function, its own functions included."""
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_modules_and_functions_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count > SENT_WHOLE.get(path.name, MAX_MODULE)} == {}
    counts = list(functions())
    assert [name for name, count in counts if count > MAX_FUNCTION] == []
    usual = sum(count <= USUAL_FUNCTION for _, count in counts)
    assert usual >= 0.95 * len(counts)


CONTRACT = {
    0: "done", 1: "operation failed", 2: "wrong use", 3: "differ", 4: "refused", 5: "damaged", 6: "missing", 7: "no space",
    8: "cannot be reached", 130: "SIGINT", 143: "SIGTERM",
}


def subclasses(of: type[errors.ImgtoolError]) -> Iterator[type[errors.ImgtoolError]]:
    for one in of.__subclasses__():
        yield one
        yield from subclasses(one)


def test_exit_codes_are_the_contracts() -> None:
    assert errors.EXIT_CODES.keys() == CONTRACT.keys()
    assert [code for code, words in CONTRACT.items() if words not in errors.EXIT_CODES[code]] == []


def test_each_error_has_a_code_of_the_table() -> None:
    from imgtool import proc  # noqa: F401 - TooLongError
    from imgtool.endpoints.far import wire  # noqa: F401 - FarError
    from imgtool.endpoints.vsphere import folder, lease  # noqa: F401 - NoFileError, LeaseRefusedError
    from imgtool.runs.runbook import nodes  # noqa: F401 - RunbookError

    assert {one.__name__: one.exit_code for one in subclasses(errors.ImgtoolError)} == {
        "UsageError": 2, "DifferError": 3, "RefusedError": 4, "LockedError": 4, "DamagedError": 5, "MissingToolError": 6,
        "NoSpaceError": 7, "UnreachableError": 8, "StoppedError": 1, "TooLongError": 1, "NoFileError": 1, "FarError": 1,
        "LeaseRefusedError": 1, "RunbookError": 2, "NotAdmittedError": 8}
    assert errors.ImgtoolError.exit_code == 1
    assert [errors.StoppedError(signum).exit_code for signum in (2, 15)] == [130, 143]
    assert {130, 143} <= errors.EXIT_CODES.keys()
