"""Everything that can go wrong, and the exit code each thing ends in.

    BdauditError            3  error: load, memory, I/O
    ├── UsageError          2  a bad flag, value, path or candidates file
    ├── InconclusiveError   4  nothing was tested, or too little to decide
    └── RefusedError        5  loading would run code, open a pickle or leave the directory

A message says what was got, what was expected, and what to do next.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The process's exit code. A finding wins over an error and over inconclusive."""

    PASS = 0
    FINDING = 1
    USAGE = 2
    ERROR = 3
    INCONCLUSIVE = 4
    REFUSED = 5
    INTERRUPTED = 130

    @property
    def label(self) -> str:
        """The name that reports and the last line on stderr use, in lower case."""
        return self.name.lower()


class BdauditError(Exception):
    """Any error that bdaudit declares."""

    code = ExitCode.ERROR


class UsageError(BdauditError):
    """The command line, or a file that it names, is not what it must be."""

    code = ExitCode.USAGE


class InconclusiveError(BdauditError):
    """Nothing was tested, or the model is of a kind that cannot be."""

    code = ExitCode.INCONCLUSIVE


class RefusedError(BdauditError):
    """The model directory was not loaded, because loading it would not be safe.

    ``reasons`` has one clear line a reason.
    """

    code = ExitCode.REFUSED

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


def first_line(error: BaseException) -> str:
    """What a library said, as far as it goes in a message of ours; empty where it said nothing."""
    return str(error).strip().split("\n")[0]
