"""Reports without the model: ``python -m bdaudit.report REPORT.json OUT.html`` makes any other format of one, from it and its pictures,
``python -m bdaudit.report fleet DIR… --out fleet.html`` merges many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import VerifyReport
from bdaudit.report.deliver import FORMATS, format_of, write
from bdaudit.report.document import MAX_BYTES, loads
from bdaudit.report.safe import one_line
from bdaudit.report.streams import take
from bdaudit.untrusted.open_file import read_file

USAGE = (
    f"usage: python -m bdaudit.report REPORT.json OUT, where OUT ends in one of {', '.join(FORMATS)}; "
    "or: python -m bdaudit.report fleet DIR… --out fleet.html (--help says more)"
)


def rebuild(source: Path, target: Path) -> None:
    """Write the report in ``source`` to ``target``, in the format of its suffix.

    Pictures are looked for where the report says, then beside it: a report and its pictures can be moved together.

    Raises:
        UsageError: no report, or a suffix that is no format.
        OSError: a file cannot be written.
    """
    if not format_of(target):
        raise UsageError(USAGE)
    report = loads(read_file(source, str(source), MAX_BYTES))
    if isinstance(report, VerifyReport):
        report = replace(report, images=tuple(_found(Path(path), source.parent) for path in report.images))
    write(report, target)


def _found(path: Path, beside: Path) -> str:
    places = (path, beside / path, beside.joinpath(*path.parts[-2:]), beside / path.name)
    return str(next((place for place in places if place.is_file()), path))


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 written, 2 a wrong command line or report, 3 a file that cannot be written, or anything unforeseen.

    Never 1, Python's own for a traceback: that is a finding's, and so a fleet's alone.
    """
    take()
    try:
        if arguments[:1] == ["fleet"]:
            from bdaudit.report.fleet.command import merge

            return merge(arguments[1:])
        if len(arguments) != 2:
            raise UsageError(USAGE)
        rebuild(Path(arguments[0]), Path(arguments[1]))
    except UsageError as error:
        sys.stderr.write(f"{one_line(str(error))}\n")
        return int(ExitCode.USAGE)
    except SystemExit as said:  # of the help, or of a wrong flag, which has been told
        return int(ExitCode.USAGE if said.code else ExitCode.PASS)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except BaseException as error:  # a report by hand may lack what the page takes for granted; a panic of pydantic's core is no Exception
        sys.stderr.write(f"{one_line(str(error) or type(error).__name__)}\n")
        return int(ExitCode.ERROR)
    return int(ExitCode.PASS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
