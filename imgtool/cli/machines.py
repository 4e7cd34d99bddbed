"""The commands on machine descriptions: translate; and what ``convert`` does with a whole machine."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from imgtool.cli import completion, output
from imgtool.cli.images import AsJson, DryRun, control_of
from imgtool.errors import UsageError
from imgtool.runs.wishes import network, side
from imgtool.suffixes import is_archive

if TYPE_CHECKING:
    from imgtool.model import ConvertRequest, ConvertResult
    from imgtool.model.translation import MachineResult, TranslateRequest, TranslateResult
    from imgtool.plan import Plan
    from imgtool.progress import Control

SUFFIXES = {"vmx": ".vmx", "xml": ".xml", "ovf": ".ovf"}
EXAMPLES = {"--map-network": "'VM Network=br0'", "--map-storage": "'[datastore1]=/srv/images'"}

MapNetwork = Annotated[list[str] | None, typer.Option(
    "--map-network", metavar="OLD=NEW",
    help="A network of the source, and its name at the target: 'VM Network=br0', vlan20=network:prod, X=nat, Y=none.")]
MapStorage = Annotated[list[str] | None, typer.Option(
    "--map-storage", metavar="OLD=NEW",
    help="A folder or datastore of the source, and the folder at the target: '[datastore1]=/srv/images'.")]
DiskRoot = Annotated[list[str] | None, typer.Option(
    "--disk-root", metavar="DIR", help="Disks that the description names may lie here too.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="A new name for the machine.")]
NewIdentity = Annotated[bool, typer.Option("--new-identity", help="New uuid, generation id and MAC addresses, for a clone.")]
HardwareVersion = Annotated[int | None, typer.Option(
    "--hardware-version", metavar="N", min=4, max=30, help="Of VMware. Default: the lowest that has what is needed.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail, and write nothing, if anything cannot be carried over.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the program."""
    app.command()(translate)


def translate(
    source: Annotated[Path, typer.Argument(
        metavar="SRC", help="A .vmx, domain .xml, .ovf or .ova.", autocompletion=completion.descriptions)],
    destination: Annotated[Path, typer.Argument(
        metavar="DST", help="A .vmx, .xml or .ovf; - is stdout.", autocompletion=completion.descriptions)],
    to: Annotated[str | None, typer.Option(
        "--to", metavar="vmx|xml|ovf", help="Where DST's suffix does not say it.", autocompletion=lambda: SUFFIXES)] = None,
    onto: Annotated[Path | None, typer.Option(
        "--onto", metavar="FILE", help="Change only what must change in this one.",
        autocompletion=completion.descriptions)] = None,
    map_network: MapNetwork = None, map_storage: MapStorage = None, disk_root: DiskRoot = None, name: Name = None,
    new_identity: NewIdentity = False, hardware_version: HardwareVersion = None, strict: Strict = False,
    force: Annotated[bool, typer.Option("--force", help="Replace DST.")] = False,
    explain: Annotated[bool, typer.Option(
        "--explain", help="A table of all settings: in the source, in the result, and why.")] = False,
    dry_run: DryRun = False, as_json: AsJson = False,
) -> None:
    """Translate a machine's description: .vmx, domain XML, OVF.

    The disks stay as they are.

    \b
    Examples:
      imgtool translate vm.vmx vm.xml --map-network 'VM Network=br0'
      imgtool translate vm.xml vm.vmx --explain
    """
    from imgtool.runs import build, local

    how = translate_options(
        map_network=map_network, map_storage=map_storage, disk_root=disk_root, name=name, new_identity=new_identity,
        hardware_version=hardware_version, strict=strict, force=force)
    to_stdout = str(destination) == "-"
    request = replace(how, source=str(source), destination=None if to_stdout else str(destination.absolute()),
                      suffix=_suffix(str(destination), to), onto=str(onto) if onto else None)
    control = control_of()
    if dry_run:
        _show_plan(build.translate_plan(request, control), as_json=as_json)
        return
    (result,) = cast("list[TranslateResult]", local.run(build.translate_step(request), control))
    if to_stdout and not as_json and not explain:
        typer.echo(result.text, nl=False)
    else:
        output.show(_document(result, explain=explain, with_text=to_stdout), output.translate_lines(result, explain=explain),
                    as_json=as_json)
    output.say_problems(result.problems)


def _suffix(destination: str, to: str | None) -> str:
    suffix = os.path.splitext(destination)[1].lower()
    if to is not None and to not in SUFFIXES:
        raise UsageError(f"--to {to}: one of {', '.join(SUFFIXES)}")
    if suffix == ".ova":
        raise UsageError("translate writes descriptions only, and an OVA has the disks in it",
                         "imgtool convert MACHINE x.ova --to vmdk")
    if to and suffix in SUFFIXES.values() and suffix != SUFFIXES[to]:
        raise UsageError(f"--to {to} and the suffix of {destination} do not agree", "leave --to out, or change the suffix")
    if not to and suffix not in SUFFIXES.values():
        raise UsageError(f"{destination} does not say what is to be written",
                         "name it .vmx, .xml or .ovf; or say --to vmx, xml or ovf")
    return SUFFIXES[to] if to else suffix


def _document(result: TranslateResult, *, explain: bool, with_text: bool) -> dict[str, object]:
    """The JSON: the table of fields only if it was asked for, the text only where it is written nowhere."""
    document = asdict(result)
    fields = [line._asdict() for line in result.fields]
    for key, value, wanted in (("fields", fields, explain), ("text", result.text, with_text)):
        document.pop(key)
        if wanted:
            document[key] = value
    return document


def translate_options(
    *, map_network: list[str] | None, map_storage: list[str] | None, disk_root: list[str] | None, name: str | None,
    new_identity: bool, hardware_version: int | None, strict: bool, force: bool,
) -> TranslateRequest:
    """What the options say, without source and destination. Raises UsageError."""
    from imgtool.model.translation import TranslateRequest

    networks = tuple((old, network(new)) for old, new in (_pair(text, "--map-network") for text in map_network or ()))
    storage = tuple(_pair(text, "--map-storage") for text in map_storage or ())
    return TranslateRequest(source="", destination=None, suffix="", networks=networks, storage=storage, name=name,
                            disk_roots=tuple(disk_root or ()), new_identity=new_identity, hardware_version=hardware_version,
                            strict=strict, force=force)


def _pair(text: str, option: str) -> tuple[str, str]:
    old, equals, new = text.rpartition("=")
    if not (equals and old and new):
        raise UsageError(f"{option} {text}: OLD=NEW is wanted, as in {option} {EXAMPLES[option]}")
    return old, new


def convert_machine(request: ConvertRequest, how: TranslateRequest, control: Control, *, dry_run: bool, as_json: bool) -> None:
    """All disks of a machine, and its description. What cannot be carried over is said before anything is copied."""
    from imgtool.model.translation import MachineRequest
    from imgtool.runs import build, local

    suffix = ".ovf" if is_archive(request.destination) else side(request.spec.format)
    described = replace(how, source=request.source, suffix=suffix)
    plan = build.machine_plan(MachineRequest(convert=request, translate=described), control)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    output.say_problems(plan.problems)
    (result,) = cast("list[MachineResult]", local.run(plan, control))
    output.show(result, output.machine_lines(result), as_json=as_json)
    output.say_warnings(result.warnings)


def convert_and_rewrite(
    request: ConvertRequest, how: TranslateRequest, rewrite: str, rewrite_to: Path | None, control: Control, *, dry_run: bool,
    as_json: bool,
) -> None:
    """One disk, and beside it the description for those who can use it."""
    from imgtool.runs import build, local

    suffix = side(request.spec.format)
    stem = os.path.splitext(os.path.basename(rewrite.rstrip("/")))[0]
    path = os.path.abspath(rewrite_to or os.path.join(os.path.dirname(request.destination), stem + suffix))
    if os.path.splitext(path)[1].lower() != suffix:
        raise UsageError(f"{path}: the description that goes with {request.spec.format} is a {suffix}",
                         f"end the name of --rewrite-to in {suffix}")
    plan = build.rewrite_plan(request, replace(how, source=rewrite, destination=path, suffix=suffix), control)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    output.say_problems(plan.problems)
    disk, described = cast("tuple[ConvertResult, TranslateResult]", local.run(plan, control))
    document = {**asdict(disk), "description": described.destination, "problems": [asdict(one) for one in described.problems]}
    output.show(document, [*output.convert_lines(disk), *output.translate_lines(described, explain=False)], as_json=as_json)
    output.say_warnings(disk.warnings)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    output.show(plan.to_json(), plan.explain(), as_json=as_json)
