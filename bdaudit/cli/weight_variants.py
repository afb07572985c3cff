"""Which of a model's weights a run is about: the ones that were chosen, each in turn, or those that come first and no plain pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bdaudit.cli.verbs import Config
from bdaudit.config import ALL_VARIANTS, RunConfig, UnlearnConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.opening import variants_in
from bdaudit.records import Exit, NotMeasured, Report, ScanReport, UnauditedWeights, VariantRun, VerifyReport

_WORST = (ExitCode.INTERRUPTED, ExitCode.FINDING, ExitCode.REFUSED, ExitCode.ERROR, ExitCode.INCONCLUSIVE, ExitCode.PASS)
_NAMED = 3


def audited(config: Config, run: Callable[[Config], Report]) -> Report:
    """The report of a run, or of one for each variant of the weights; weights that nobody looked at leave no plain pass."""
    names = variants_in(config.model) if config.variant == ALL_VARIANTS else ()
    if not names:  # with --variant all: nothing there that could be chosen, and the run says why
        one = replace(config, variant="") if config.variant == ALL_VARIANTS else config
        return no_plain_pass(run(one), chosen=bool(one.variant) or isinstance(one, UnlearnConfig))
    reports: dict[str, Report] = {}
    for name in names:
        opened = [report for report in reports.values() if not isinstance(report.model, NotMeasured)]
        if not opened or name in {left.variant for left in _left_by_all(opened).values()}:
            reports[name] = run(_for(config, name))
            if reports[name].exit.code == ExitCode.INTERRUPTED:
                break
    return no_plain_pass(_merged(reports), chosen=False)


def leave_no_empty_state(config: RunConfig) -> None:
    """Of a run on each variant, whose states lay in folders of their own: the folder above them, where nothing is kept in it any more."""
    state: Path | None = getattr(config, "state", None)
    if config.variant == ALL_VARIANTS and state is not None:
        with contextlib.suppress(OSError):
            state.rmdir()


def _for(config: Config, name: str) -> Config:
    """The same run on one variant; what it keeps lies in a folder of its own."""
    given = {place: getattr(config, place, None) for place in ("state", "save_images", "pictures_to")}
    places = {place: path / f"variant-{name}" for place, path in given.items() if path is not None}
    return replace(config, variant=name, **places)


def _left(report: Report) -> dict[str, UnauditedWeights]:
    """Path → weights that one run did not look at."""
    return {} if isinstance(report.model, NotMeasured) else {left.path: left for left in report.model.unaudited}


def _left_by_all(reports: Iterable[Report]) -> dict[str, UnauditedWeights]:
    """Those that no run looked at; one that ended before it opened the model has no say."""
    opened = [_left(report) for report in reports if not isinstance(report.model, NotMeasured)]
    return {path: left for path, left in opened[0].items() if all(path in other for other in opened)} if opened else {}


def no_plain_pass(report: Report, *, chosen: bool) -> Report:
    """The report, inconclusive where it was a pass and weights are left that nobody looked at and nobody chose against."""
    left = list(_left(report).values())
    if chosen or not left or report.exit.code != ExitCode.PASS:
        return report
    named = ", ".join(f"{each.path} ({each.reason})" for each in left[:_NAMED])
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    own = [] if isinstance(report.model, NotMeasured) else sorted(set(report.model.variants.values()))
    others = sorted({each.variant for each in left if each.variant})
    choose = f"choose with --variant {' or '.join(dict.fromkeys((*own, *others)))}{', or audit each with --variant all' * bool(others)}"
    said = f"weights that people would load were not audited: {named}{more}; {choose}"
    return replace(report, exit=Exit.of(ExitCode.INCONCLUSIVE, f"{report.exit.reason}, but {said}"))


def _merged(reports: dict[str, Report]) -> Report:
    """The report that ended worst, with how each run ended and what all of them found."""
    runs = tuple(
        VariantRun(variant=name, code=report.exit.code, name=report.exit.name, reason=report.exit.reason, findings=_findings(report))
        for name, report in reports.items()
    )
    first, worst = min(reports.items(), key=lambda item: _WORST.index(ExitCode(item[1].exit.code)))
    if not isinstance(worst.model, NotMeasured):
        worst = replace(worst, model=replace(worst.model, unaudited=tuple(_left_by_all(reports.values()).values())))
    if isinstance(worst, ScanReport):
        of = {name: report.candidates for name, report in reports.items() if isinstance(report, ScanReport)}
        found = [replace(c, variant=name) for name, all_of in of.items() for c in all_of if name != first and c.verdict != "clean"]
        worst = replace(worst, candidates=(*(replace(c, variant=first) for c in of[first]), *found))
    if isinstance(worst, VerifyReport):
        checks = {name: report.checks for name, report in reports.items() if isinstance(report, VerifyReport)}
        worst = replace(worst, checks=tuple(replace(c, name=f"{name}: {c.name}") for name, all_of in checks.items() for c in all_of))
    said = "; ".join(f"{run.variant}: {run.reason}" for run in runs)
    return replace(worst, exit=replace(worst.exit, reason=said), variants=runs)


def _findings(report: Report) -> tuple[str, ...]:
    if isinstance(report, ScanReport):
        return tuple(f"{c.text!a}: {c.verdict}" for c in report.candidates if c.verdict != "clean")
    if isinstance(report, VerifyReport):
        return tuple(f"{check.name}: {check.status}" for check in report.checks if check.status == "failed")
    return ()
