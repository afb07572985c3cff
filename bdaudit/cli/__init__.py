"""The entry point: streams, offline settings, and every way out turned into an exit code and a last line on stderr.

Imports nothing heavy. ``config`` declares what a person types, ``commands`` makes it a command; what a run does is in the three verbs.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback

from bdaudit.cli.unexpected import debugging, unexpected
from bdaudit.errors import BdauditError, ExitCode
from bdaudit.report.streams import lost, take

QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
}  # fmt: skip
"""Set before any library is imported: a run never downloads, and says nothing that it does not mean to."""

SPIN = "10000"
"""Turns that torch's threads wait in a loop for each other before they sleep. With their own default, 300,000, the README's scan took 42 s
alone and 280 s beside other work, with this 45 and 130 s, with a tenth of this 47 and 94 s (``tests/bench/threads.py``)."""

COMPLETION = "_BDAUDIT_COMPLETE"
"""Where a shell asks for completions, the one thing that Typer ends with ``SystemExit``."""


def main() -> int:
    """Runs the command line of this process; its exit code.

    No exception leaves it: Python's own exit code 1 would be read as a finding.
    """
    code = _ended()
    why = lost(sys.stdout)  # of a run, its own last line has told it already
    return _leave(ExitCode.ERROR, f"stdout could not be written: {why}") if why and code == ExitCode.PASS else code


def _ended() -> int:
    try:
        _prepare()
        from bdaudit.cli.commands import app

        return int(app(standalone_mode=False, prog_name="bdaudit") or 0)
    except SystemExit as error:
        if error.code in (None, 0) and COMPLETION in os.environ:
            return ExitCode.PASS
        return _leave_by(error)
    except KeyboardInterrupt:
        return _leave(ExitCode.INTERRUPTED, "stopped by the user")
    except BdauditError as error:
        return _leave(error.code, str(error))
    except BaseException as error:
        return _leave_by(error)


def _prepare() -> None:
    if sys.stdout is sys.__stdout__:
        _stop_as_ctrl_c()
    take()
    os.environ.update(QUIET_AND_OFFLINE)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    for argument in sys.argv[1:]:
        _check_text(argument)


def _stop_as_ctrl_c() -> None:
    """Let what a job runner or a closing terminal sends end a run as Ctrl-C does, with its report; what is ignored stays ignored."""
    for kind in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(kind) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
            signal.signal(kind, signal.default_int_handler)


def _check_text(argument: str) -> None:
    from bdaudit.errors import UsageError

    try:
        argument.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the argument {argument!r} is not UTF-8") from error


def _leave_by(error: BaseException) -> int:
    # Typer raises click's usage errors, or those of its own copy of click, depending on its version.
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        if context is not None:
            _say(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.")
        return _leave(ExitCode.USAGE, error.format_message().replace(": Value error, ", ": ", 1).rstrip("."))
    if type(error).__name__ == "Abort":
        return _leave(ExitCode.INTERRUPTED, "stopped by the user")
    if debugging():
        _say(traceback.format_exc())
    return _leave(ExitCode.ERROR, unexpected(error))


def _leave(code: ExitCode, reason: str) -> int:
    """Say why on the last line; on the line before it too, where that has no room for all of it."""
    from bdaudit.records import Exit
    from bdaudit.report.deliver import last_lines

    _say(last_lines(Exit.of(code, reason), "none"))
    return int(code)


def _say(text: str) -> None:
    from bdaudit.report.safe import inert

    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write("\n".join(inert(line) for line in text.rstrip("\n").split("\n")) + "\n")
            sys.stderr.flush()
