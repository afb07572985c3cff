"""One run from a checked config to an exit code: run, turn every failure into a report, deliver it, say the last line."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from bdaudit.cli import debugging, unexpected
from bdaudit.cli.variants import audited
from bdaudit.config import ALL_VARIANTS, RunConfig, ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.progress import Progress
from bdaudit.report.deliver import Output, console_for, deliver, last_line
from bdaudit.report.document import REPORTS, values
from bdaudit.report.plan import Plan, cost, lines, steps, writes
from bdaudit.report.progress import progress_on
from bdaudit.report.records import Coverage, Exit, NotMeasured, Report
from bdaudit.report.safe import VisibleStream

if TYPE_CHECKING:
    from bdaudit.pipeline.beside import Unaudited

ConfigT = TypeVar("ConfigT", ScanConfig, UnlearnConfig, VerifyConfig)
ResultT = TypeVar("ResultT", Report, Plan)
Ahead = Callable[[ConfigT], Sequence[str]]
"""What a run of this config will lack on this machine, a sentence each; loads no weights."""


def carry_out(command: str, config: ConfigT, output: Output, run: Callable[[ConfigT, Progress], Report], ahead: Ahead[ConfigT]) -> int:
    """Says on stderr what the run will lack, runs a verb and delivers its report; the exit code.

    Raises:
        UsageError: the run found the command line wrong before it did anything.
    """
    with _stderr(output) as progress:
        report = audited(config, lambda each: _attempt(command, each, lambda: _warned(each, run, ahead, progress)))
    return _end(deliver(report, output), output.where)


def _warned(config: ConfigT, run: Callable[[ConfigT, Progress], Report], ahead: Ahead[ConfigT], progress: Progress) -> Report:
    for line in ahead(config):
        sys.stderr.write(f"bdaudit: warning: {line}\n")
    return run(config, progress)


def rehearse(command: str, config: ConfigT, output: Output, ahead: Ahead[ConfigT]) -> int:
    """Delivers a dry run's plan on stdout; the exit code. Loads no weights and writes nothing."""
    with _stderr(output):
        result = _attempt(command, config, lambda: _plan(command, config, output, tuple(ahead(config))))
    unwritten = Output(json=output.json)
    if isinstance(result, Report):
        return _end(deliver(result, unwritten), unwritten.where)
    if output.json:
        sys.stdout.write(json.dumps(values(result), indent=2) + "\n")
    else:
        console_for(sys.stdout).print(lines(result))
    return _end(Exit(code=0, name="pass", reason="dry run, nothing was measured"), unwritten.where)


def _plan(command: str, config: RunConfig, output: Output, lacking: tuple[str, ...]) -> Plan:
    from bdaudit.pipeline.inspect import inspect

    loaded: list[str] = []
    left_alone: list[str] = []
    for directory in config.models:
        variant = config.variant if directory == config.model and config.variant != ALL_VARIANTS else ""
        seen = inspect(directory, variant=variant, strict=config.strict, allow_pickle=config.allow_pickle)
        sizes = {file.path: f"{file.bytes:,} bytes" for file in seen.files}
        of = "" if directory == config.model else f"{directory}: "
        loaded += [f"{of}{seen.pipeline_class}, digest {seen.digest}", *(f"{of}{path}, {sizes[path]}" for path in seen.loaded)]
        left_alone += [f"{of}{path}" for path in seen.unused_pickles]
        left_alone += [f"{of}{path}: counts as audited, the weights that would be loaded determine it" for path in seen.determined]
        left_alone += [f"{of}{_other(left, config, directory)}" for left in seen.unaudited]
    return Plan(
        command=command,
        loaded=tuple(loaded),
        left_alone=tuple(left_alone),
        run=steps(config),
        written=writes(config, tuple(map(str, output.reports))),
        cost=cost(config),
        config=values(config),
        not_measured=lacking,
    )


def _other(left: Unaudited, config: RunConfig, directory: Path) -> str:
    """What becomes of weights beside the ones that would be loaded."""
    each = config.variant == ALL_VARIANTS and left.variant and directory == config.model
    done = f"a run of their own, --variant {left.variant}" if each else "not audited"
    return f"{left.path}: {left.reason}; {done}"


@contextlib.contextmanager
def _stderr(output: Output) -> Iterator[Progress]:
    """Progress on stderr, and whatever libraries print, on either stream, there too and made visible."""
    console = console_for(sys.stderr)
    stream = VisibleStream(lambda line: console.print(Text(line), soft_wrap=True))
    with progress_on(console, quiet=output.quiet) as progress, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield progress
    stream.finish()


def _attempt(command: str, config: RunConfig, run: Callable[[], ResultT]) -> ResultT | Report:
    try:
        result = run()
        values(result)  # a figure that is none ends here, before anything is written
        return result
    except UsageError:
        raise
    except KeyboardInterrupt:
        return failed(command, config, ExitCode.INTERRUPTED, "stopped by the user before there was anything to report")
    except BdauditError as error:
        return failed(command, config, error.code, str(error))
    except (Exception, SystemExit) as error:
        if debugging():
            traceback.print_exc()
        return failed(command, config, ExitCode.ERROR, unexpected(error))


def failed(command: str, config: RunConfig, code: ExitCode, reason: str) -> Report:
    """The report of a run that ended before it had one."""
    from bdaudit.measure.envelope import envelope

    asked = len(getattr(config, "candidates", getattr(config, "triggers", ())))
    unknown = NotMeasured(reason="the run ended before this was written down")
    return REPORTS[command](
        **envelope(command, config) | {"model": unknown, "environment": unknown},
        status="interrupted" if code is ExitCode.INTERRUPTED else "error",
        exit=Exit(code=int(code), name=code.label, reason=reason),
        timings={},
        coverage=Coverage(asked=asked, tested=0, not_looked_at=("everything: the run ended before it had a result",)),
    )


def _end(outcome: Exit, where: str) -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(last_line(outcome, where) + "\n")
        sys.stderr.flush()
    return outcome.code
