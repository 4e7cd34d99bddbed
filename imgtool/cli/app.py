"""The program: signals, errors, exit codes. The commands are in the modules beside this one."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, NoReturn, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.models import CommandInfo

from imgtool.cli import images, streams
from imgtool.cli.output import say_error
from imgtool.errors import EXIT_CODES, ImgtoolError, NoSpaceError, StoppedError, UsageError
from imgtool.formats.opener import raise_file_limit
from imgtool.progress import SIGNALS

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

app = typer.Typer(
    name="imgtool", rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True,
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
MODULES = {
    "images": ("info", "map", "check", "allocate", "verify", "doctor"), "convert": ("convert",), "machines": ("translate",),
    "guests": ("inspect", "adapt"), "metal": ("v2p",), "migrate": ("migrate", "p2v"), "run": ("run", "worker"),
    "jobs": ("dashboard", "jobs"),
    "completion": ("completion",),
}
"""The commands, and the modules beside this one that they are in."""


def program(argv: Sequence[str] = ()) -> TyperGroup:
    """The program with the command that ``argv`` begins with, or else, for help and completion, with all of them.

    To read the options of all commands takes longer than all else of the start. typer's installer of completion is not in it:
    its script for bash cuts a URI at its colons.
    """
    app.registered_commands.clear()
    app.registered_groups.clear()
    wanted = argv[0] if argv else None
    alone = [module for module, commands in MODULES.items() if wanted in commands]
    for module in alone or MODULES:
        import_module(f"imgtool.cli.{module}").register(app)
    if alone:
        app.registered_commands[:] = [each for each in app.registered_commands if _name(each) == wanted]
    tree = cast("TyperGroup", typer.main.get_command(app))
    tree.params = [one for one in tree.params if one.name not in ("install_completion", "show_completion")]
    return tree


def _name(command: CommandInfo) -> str | None:
    return command.name or getattr(command.callback, "__name__", None)


def _version(wanted: bool) -> None:
    if wanted:
        from imgtool import __version__

        typer.echo(f"imgtool {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each program that is started, to stderr.")] = False,
) -> None:
    """Convert disk images and machines, and prove each copy equal.

    Images: VMDK, QCOW2, raw, VHDX, VHD, VDI, thin or thick. Machines: VMware's .vmx, libvirt's domain XML, OVF and OVA; they move
    between ESXi, KVM and bare metal.

    \b
    Examples:
      imgtool convert web01.vmdk --to qcow2 --thick
      imgtool migrate web01 --from esx://root@esxi1/ --to qemu:///system --dry-run
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)
    if verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")


def main() -> NoReturn:
    """Runs the command line; ends the process with the contract's exit code."""
    streams.prepare()
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(signum, lambda number, _frame: images.STOP.set(number))
    raise_file_limit()
    try:
        sys.exit(_run())
    finally:  # the result is there: a signal while the interpreter ends must not turn it into a death by signal
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def _run() -> int:
    try:
        code = program(sys.argv[1:])(prog_name="imgtool", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer's own end then is 1
            return 128 + signal.SIGPIPE
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("IMGTOOL_DEBUG"):
            raise
        say_error(told := _told(error))
        return told.exit_code
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> ImgtoolError:
    """Whatever went wrong, as one of our errors."""
    match error:
        case ImgtoolError():
            return error
        case TyperException():
            where = getattr(getattr(error, "ctx", None), "command_path", "imgtool")
            return UsageError(getattr(error, "format_message", error.__str__)(), f"see {where} --help")
        case typer.Abort():
            return StoppedError(signal.SIGINT)
        case UnicodeEncodeError():
            return ImgtoolError(f"{error.encoding}, which stdout is in, has no character for {error.object[error.start]!a}",
                                "LC_ALL=C.UTF-8, or name a file")
        case MemoryError():
            return ImgtoolError("out of memory", "this is a bug: imgtool's memory must not grow with the disk")
        case FileNotFoundError() if error.filename is None and not os.stat(".").st_nlink:
            return UsageError("the current directory was removed", "cd into one that is there, or name files from / on")
        case RuntimeError() if "new thread" in str(error):
            return ImgtoolError("no thread could be started: too many processes",
                                "raise the limit: ulimit -u, or TasksMax= of a unit")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpaceError(f"no space left: {error.filename or 'output'}", "free some space, or choose another file system")
        case OSError():
            return ImgtoolError(f"{error.filename or 'input/output'}: {error.strerror or error}")
        case _:
            return ImgtoolError(f"a bug of imgtool: {type(error).__name__}: {error}",
                                "set IMGTOOL_DEBUG=1, run it again and report what it prints")
