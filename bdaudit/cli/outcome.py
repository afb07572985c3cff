"""One run from a checked config to an exit code: run, turn every failure into a report, deliver it, say the last line."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from bdaudit import state_lock
from bdaudit.cli.dry_checks import foreseen
from bdaudit.cli.given_texts import both_ways, check_encoded, texts_of
from bdaudit.cli.going_on import begin, clear, to_go_on
from bdaudit.cli.unexpected import debugging, unexpected
from bdaudit.cli.verbs import Config, carried_out, lacking
from bdaudit.cli.weight_variants import audited, leave_no_empty_state
from bdaudit.config import ALL_VARIANTS, MergeConfig, RunConfig, UnlearnConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.progress import Progress
from bdaudit.records import Coverage, Exit, NotMeasured, Report, UnderstoodText
from bdaudit.report.deliver import JSON, TABLES, Output, console_for, deliver, last_lines, put, rendered
from bdaudit.report.document import REPORTS, values
from bdaudit.report.dry_run import Plan, lines, passes, pictures, timed, work, writes
from bdaudit.report.echo import echo_lines
from bdaudit.report.log import logged, staged
from bdaudit.report.progress import progress_on
from bdaudit.report.safe import VisibleStream, one_line
from bdaudit.targets import try_written
from bdaudit.untrusted.layouts.autoencoder import drawn

if TYPE_CHECKING:
    from bdaudit.cli.once import Mark
    from bdaudit.untrusted.inspect import Inspection
    from bdaudit.untrusted.other_weights import Unaudited

log = logging.getLogger(__name__)

_PIXEL = 12
"""Bytes of a pixel that is kept: three float32 numbers."""
ResultT = TypeVar("ResultT", Report, Plan)


def carry_out(command: str, config: Config, output: Output, mark: Mark | None = None, note: str = "", repeat: str = "") -> int:
    """Says on stderr what the run will lack, runs a verb and delivers its report; the exit code. A run whose ``mark`` says that it was made
    is not made again. ``note`` is said at the end of the reason, ``repeat`` makes the run again.

    Raises:
        UsageError: the run found the command line wrong before it did anything.
    """
    texts: list[UnderstoodText] = []
    before = mark.ended() if mark else None
    if before:
        return _end(before, output.where)
    try:
        with _stderr(output) as progress:
            begin(config)
            report = audited(config, lambda each: _attempt(command, each, lambda: _warned(each, output, progress, texts)))
            log.debug("%s", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.timings.items()) or "nothing was timed")
        ended = _noted(_noted(report.exit, to_go_on(report, config)), note)
        report = replace(report, understood=tuple(texts), exit=ended, repeat=repeat)
        ended = deliver(report, output, partial(_delivered, report, config))
        if mark:
            mark.leave(report, ended)
        return _end(ended, output.where, note)
    finally:
        state_lock.release()
        leave_no_empty_state(config)


def _delivered(report: Report, config: Config) -> None:
    """What was kept of the run for the case that its report would not be there goes."""
    state_lock.delivered()
    clear(report, config)


def tell(line: str) -> None:
    """A line on stderr, where there is something to say."""
    if line:
        sys.stderr.write(f"bdaudit: {one_line(line)}\n")


def _noted(ended: Exit, note: str) -> Exit:
    return replace(ended, reason=f"{ended.reason}; {note}") if note else ended


def _warned(config: Config, output: Output, progress: Progress, texts: list[UnderstoodText]) -> Report:
    _try_targets(config, output)
    texts[:] = _echoed(config)
    check_encoded(texts)
    for line in lacking(config):
        sys.stderr.write(f"bdaudit: warning: {line}\n")
    return carried_out(config, progress)


def _try_targets(config: Config, output: Output) -> None:
    """Create, rename and remove whatever the run is to write: what cannot be written is told before the work, not after it."""
    output.try_out()
    try_written(config.written)


def _echoed(config: RunConfig) -> tuple[UnderstoodText, ...]:
    """What the run's triggers and suspicious prompts are understood as, said on stderr."""
    texts = texts_of(config)
    for line in (*echo_lines(texts), *map(one_line, both_ways(config))):
        sys.stderr.write(f"bdaudit: {line}\n")
    return texts


def rehearse(command: str, config: Config, output: Output, note: str = "", kept: Path | None = None) -> int:
    """Delivers a dry run's plan on stdout; the exit code. Loads no weights, and leaves nothing that it wrote.

    ``kept`` is where the run itself would keep what it has until it ends.
    """
    with _stderr(output):
        result = _attempt(command, config, lambda: _plan(command, config, output, kept))
    unwritten = Output(stdout=JSON if output.stdout == JSON else TABLES)
    if isinstance(result, Report):
        return _end(_noted(deliver(result, unwritten), note), unwritten.where, note)
    why = put(json.dumps(values(result), indent=2) + "\n" if unwritten.stdout == JSON else rendered(lines(result)))
    said = "dry run, nothing was measured" + (f"; stdout could not be written: {why}" if why else "")
    return _end(_noted(Exit.of(ExitCode.PASS, said), note), unwritten.where, note)


def _a_pass(config: Config, first: Config) -> float | NotMeasured:
    """Seconds of one pass of one latent through the model's shapes, filled with random numbers."""
    from bdaudit.measure.opening import inspected
    from bdaudit.models.timing import seconds_a_pass

    dtype = "float32" if isinstance(config, MergeConfig) else config.dtype
    return seconds_a_pass(inspected(first, config.model), config.device, dtype, config.batch_size)


def _plan(command: str, config: Config, output: Output, kept: Path | None) -> Plan:
    from bdaudit.measure.opening import inspected

    _try_targets(config, output)
    loaded: list[str] = []
    unmeasured = lacking(config)
    left_alone: list[str] = []
    inspections: list[Inspection] = []
    first = replace(config, variant="") if config.variant == ALL_VARIANTS else config
    for directory in config.models:
        seen = inspected(first, directory)
        inspections.append(seen)
        sizes = {file.path: f"{file.bytes:,} bytes" for file in seen.files} | dict.fromkeys(seen.made, "as it was published")
        of = "" if directory == config.model else f"{directory}: "
        height, width = seen.latents
        loaded += [f"{of}{seen.pipeline_class}, digest {seen.digest}", f"{of}drawing from latents of {width} × {height}"]
        loaded += [f"{of}{path}, {sizes[path]}" for path in seen.loaded]
        left_alone += [f"{of}{path}" for path in seen.unused_pickles]
        left_alone += [f"{of}{path}: counts as audited, the weights that would be loaded determine it" for path in seen.determined]
        left_alone += [f"{of}{_other(left, config, directory)}" for left in seen.unaudited]
        if directory == config.model and not config.variant and not isinstance(config, UnlearnConfig):
            unmeasured += _nobody_chose(seen)
    unmeasured += foreseen(config, inspections)
    loaded += _added(config)
    texts = _echoed(config)
    check_encoded(texts)
    computed, cost = work(config)
    cost += timed(config, _a_pass(config, first)) if passes(config) else ""
    cost += f"; {_bytes(config, inspections, kept)}"
    return Plan(
        command=command,
        loaded=tuple(loaded),
        left_alone=tuple(left_alone),
        run=computed,
        written=(*writes(config, tuple(map(str, output.files))), *([f"{kept}/ (until the run ends)"] if kept else [])),
        cost=cost,
        config=values(config),
        not_measured=unmeasured,
        understood=texts,
    )


def _bytes(config: Config, inspections: Sequence[Inspection], kept: Path | None) -> str:
    """What the run reads of models, writes of a result, and keeps of pictures until it ends, at most."""
    own = inspections[0]
    told = f"reads {sum(file.bytes for seen in inspections for file in seen.files if file.path in seen.loaded):,} bytes of models"
    if isinstance(config, UnlearnConfig) and config.out:
        return f"{told}, writes up to {sum(file.bytes for file in own.copied):,} bytes of a model"
    if isinstance(config, VerifyConfig) and (kept or config.state):
        height, width = drawn(own.settings, own.latents)
        return f"{told}, keeps up to {_PIXEL * height * width * pictures(config):,} bytes of pictures"
    return told


def _added(config: Config) -> list[str]:
    """Each adapter and learned embedding, with its size; raises as the run itself would, but for what does not fit the model."""
    named, embeddings = getattr(config, "adapters", ()), getattr(config, "embeddings", ())
    if not named and not embeddings:
        return []
    from bdaudit.models.embeddings import read_embedding
    from bdaudit.models.lora import inspect_adapter

    files = [file for *_, path, scale in named for file in inspect_adapter(path, scale).files]
    files += [read_embedding(path, token).file for path, token in embeddings]
    return [f"{file.path}, {file.bytes:,} bytes" for file in files]


def _nobody_chose(seen: Inspection) -> tuple[str, ...]:
    """That the weights beside the ones that would be loaded leave no pass."""
    if not seen.unaudited:
        return ()
    from bdaudit.untrusted.formats.weight_files import spelled

    taken = " or ".join(sorted(set(map(spelled, seen.variants.values()))))
    names = sorted({left.variant for left in seen.unaudited if left.variant})
    others = f" or {' or '.join(names)}, or audit each with --variant all" if names else ""
    said = "weights that people would load would not be audited, and the run cannot pass (exit 1 or 4)"
    return (f"{said}; choose with --variant {taken or 'NAME'}{others}",)


def _other(left: Unaudited, config: RunConfig, directory: Path) -> str:
    """What becomes of weights beside the ones that would be loaded."""
    each = config.variant == ALL_VARIANTS and left.variant and directory == config.model
    done = f"a run of their own, --variant {left.variant}" if each else "not audited"
    return f"{left.path}: {left.reason}; {done}"


@contextlib.contextmanager
def _stderr(output: Output) -> Iterator[Progress]:
    """Progress on stderr, and whatever libraries print, on either stream, there too and made visible."""
    console = console_for(sys.stderr)

    def emit(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    stream = VisibleStream(emit)
    with (
        progress_on(console, quiet=output.quiet) as progress,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        logged(emit, quiet=output.quiet, verbose=output.verbose),
    ):
        yield staged(progress) if output.verbose else progress
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
    except BaseException as error:  # SystemExit, and the panics of libraries in Rust, are no Exception
        if debugging():
            traceback.print_exc()
        return failed(command, config, ExitCode.ERROR, unexpected(error, "-v"))


def failed(command: str, config: RunConfig, code: ExitCode, reason: str) -> Report:
    """The report of a run that ended before it had one."""
    from bdaudit.measure.envelope import envelope

    asked = len(getattr(config, "candidates", getattr(config, "triggers", ())))
    unknown = NotMeasured(reason="the run ended before this was written down")
    return REPORTS[command](
        **envelope(command, config) | {"model": unknown, "environment": unknown},
        status="interrupted" if code is ExitCode.INTERRUPTED else "error",
        exit=Exit.of(code, reason),
        timings={},
        coverage=Coverage(asked=asked, tested=0, not_looked_at=("everything: the run ended before it had a result",)),
    )


def _end(outcome: Exit, where: str, note: str = "") -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write(last_lines(outcome, where, note) + "\n")
        sys.stderr.flush()
    return outcome.code
