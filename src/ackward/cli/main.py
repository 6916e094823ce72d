"""The entry point: finds the command, and turns every error into one line and an exit code.

Commands are imported only when they are called, so that ``ackward --help`` starts fast.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from ackward.errors import AckwardError, OutputFailed, PrivilegeMissing, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command -> (what it does in one line). The module of the same name in this package holds it.
COMMANDS = {
    "watch": "watch live sockets and explain their stalls",
    "analyze": "the same from pcap and pcapng files; needs no privileges",
    "sockets": "every TCP connection with the state of its ACKs: quick, pingpong, Nagle, route quickack",
    "trace": "one line per delayed ACK, held write, probe and toggle of quick ACKs, as it happens",
    "compare": "two reports or captures, before and after: the verdict",
    "doctor": "check this host: what kernel and privileges allow, and settings that will hurt",
    "fix": "apply a remedy, or show what it would change",
    "status": "the remedies in force, read back from the kernel",
    "undo": "take remedies back",
    "predict": "what a model says without a kernel: ACK rules against each other, split TCP",
    "gateway": "split TCP: run, look at, or drain a gateway",
    "node": "quickack for the pods of a Kubernetes node: CNI plugin and agent",
    "lab": "reproduce stalls on this kernel, in network namespaces of their own",
}

#: Seconds until an interrupt that was ignored comes again.
_SOON = 0.02

HELP = """\
[bold]ackward[/bold]: find out why TCP is waiting, remove the wait, prove that it is gone.

Usage: ackward COMMAND [OPTIONS]     (ackward COMMAND --help explains one)

"""

EXIT_CODES = """
Exit codes: 0 done, 1 output could not be written, 2 usage, 3 the kernel or a privilege lacks something,
4 partly changed, 5 verification failed. stdout is data, stderr is talk; --json works everywhere.
"""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return HELP.replace("[bold]", "").replace("[/bold]", "") + "\n".join(lines) + "\n" + EXIT_CODES


def _fail(error: AckwardError, *, as_json: bool) -> int:
    if as_json:
        try:
            sys.stdout.write(json.dumps(error.as_json(), indent=2) + "\n")
            sys.stdout.flush()
        except OSError:
            _silence(sys.stdout)  # the very place where the error should go is what failed
            sys.stderr.write(f"ackward: {error}\n")
    else:
        sys.stderr.write(f"ackward: {error}\n")
    return error.exit_code


def _forbidden(error: PermissionError) -> PrivilegeMissing:
    """What a command met that did not ask for its privileges first."""
    what = error.filename or "what this command does"
    return PrivilegeMissing.for_this_command(f"{what} is for root alone", consequence="it ended there")


def _silence(stream: TextIO) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(name: str, arguments: list[str]) -> int:
    # Typer and Rich cost 60 ms: not for `ackward --help`.
    import typer
    from typer.main import get_command

    module = importlib.import_module(f"ackward.cli.{name}")
    command = get_command(module.app)
    command.context_settings["help_option_names"] = ["-h", "--help"]  # its subcommands take them over
    # Typer brings Click along under a private name or a public one: the public BadParameter leads to its base.
    complaint: type[Exception] = next(
        base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
    )
    try:
        outcome = command.main(args=arguments, prog_name=f"ackward {name}", standalone_mode=False)
    except typer.Exit as exit_:
        return exit_.exit_code
    except complaint as error:
        said = error.format_message()  # type: ignore[attr-defined]  # every ClickException has it
        if type(error).__name__ == "NoArgsIsHelpError":
            return UsageError.exit_code  # the help is on the screen already
        context = getattr(error, "ctx", None)
        path = context.command_path if context else f"ackward {name}"
        raise UsageError(
            said.rstrip("."),
            consequence="nothing was done",
            next_step=f"`{path} --help` shows what it takes",
        ) from error
    sys.stdout.flush()  # a full disk shows here, not at exit
    return outcome if isinstance(outcome, int) else 0


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and give back its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview())
        return 0
    name, rest = arguments[0], list(arguments[1:])
    as_json = "--json" in rest
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"ackward {version('ackward')}\n")
        return 0
    try:
        if name not in COMMANDS:
            raise UsageError(
                f"there is no command {name!r}",
                consequence="nothing was done",
                next_step=f"one of {', '.join(COMMANDS)}; `ackward --help` explains them",
            )
        return _dispatch(name, rest)
    except AckwardError as error:
        return _fail(error, as_json=as_json)
    except BrokenPipeError:
        _silence(sys.stdout)  # the reader went away (`| head`): not an error of ours
        return 0
    except PermissionError as error:
        if os.geteuid() == 0:
            raise
        return _fail(_forbidden(error), as_json=as_json)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        _silence(sys.stdout)
        return _fail(
            OutputFailed(
                f"output failed: {error.strerror}",
                consequence="what was written is incomplete",
                next_step="free some space or write elsewhere",
            ),
            as_json=False,
        )
    except KeyboardInterrupt:
        sys.stderr.write("ackward: interrupted.\n")
        return 130


def _interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Ctrl-C may land where nothing can be raised, a callback from C or a destructor: then it counts a little later.

    Not at once: it would be raised in here.
    """
    if ignored.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(ignored)
        return
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    again = threading.Timer(_SOON, signal.pthread_kill, (main_thread, signal.SIGINT))
    again.daemon = True
    again.start()


def main() -> None:
    """Console script."""
    sys.unraisablehook = _interrupt_again
    sys.exit(run(sys.argv[1:]))
