"""The whole content of a report: the outcome, the model, what the verb has to say, what was left out, the settings."""

from __future__ import annotations

from collections.abc import Iterator

from bdaudit.records import NotMeasured, Report, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.content import scan, unlearn, verify
from bdaudit.report.content.blocks import TONES, Block, Content, Line, Picture
from bdaudit.report.content.headline import advice, headline
from bdaudit.report.safe import one_line, visible
from bdaudit.report.words import told


def content(report: Report) -> Content:
    """Everything that is shown of a report."""
    coverage, tool = report.coverage, report.tool
    return Content(
        command=report.command,
        outcome=visible(report.exit.name),
        verdict=Line(f"{visible(report.exit.name).upper()}: {one_line(report.exit.reason)}", TONES.get(report.exit.name, "warn")),
        headline=headline(report),
        advice=advice(report),
        head=(*_model(report), *_machine(report)),
        body=tuple(_body(report)),
        pictures=_pictures(report),
        coverage=f"{coverage.asked} asked, {coverage.tested} tested, {len(coverage.skipped)} skipped",
        limits=tuple(_limits(report)),
        settings=tuple((visible(name), tuple(_setting(value))) for name, value in report.config.items()),
        repeat=one_line(report.repeat),
        made=f"{visible(tool.get('name', 'bdaudit'))} {visible(tool.get('version', ''))}, report schema {visible(report.schema_version)}, "
        f"{visible(report.created_at)}",
    )


def _setting(value: object) -> Iterator[str]:
    """One line, or one an item, or one a key."""
    if isinstance(value, list | tuple) and value:
        yield from (" ".join(_setting(item)) for item in value)
    elif isinstance(value, dict) and value:
        yield from (f"{visible(str(name))}: {' '.join(_setting(inner))}" for name, inner in value.items())
    elif isinstance(value, bool) or value is None or value == "":
        yield "yes" if value is True else "no" if value is False else "not set"
    elif isinstance(value, list | tuple | dict):
        yield "none"
    else:
        yield told(str(value))


def _pictures(report: Report) -> tuple[Picture, ...]:
    if isinstance(report, ScanReport):
        return scan.pictures(report)
    return verify.pictures(report) if isinstance(report, VerifyReport) else ()


def _body(report: Report) -> Iterator[Block]:
    if isinstance(report, ScanReport):
        yield from scan.body(report)
    if isinstance(report, UnlearnReport):
        yield from unlearn.body(report)
    if isinstance(report, VerifyReport):
        yield from verify.body(report)


def _model(report: Report) -> Iterator[Line]:
    """What was audited, and which of its weights were not."""
    model = report.model
    if isinstance(model, NotMeasured):
        yield Line(f"model: {visible(str(report.config.get('model', '')))} ({one_line(model.reason)})")
        return
    yield Line(f"model: {visible(model.path)} ({visible(model.pipeline)}, {len(model.files)} files, digest {visible(model.digest[:16])})")
    yield Line(f"digest: {visible(model.digest)}", "dim", detail=True)
    yield from (Line(f"note: {one_line(note)}", "warn") for note in model.notes)
    yield from (Line(f"not audited: {visible(left.path)}: {one_line(left.reason)}", "warn") for left in model.unaudited)
    for run in report.variants:
        found = f" ({', '.join(map(visible, run.findings))})" if run.findings else ""
        yield Line(f"variant {visible(run.variant)}: {visible(run.name)}, {one_line(run.reason)}{found}", "warn")


def _machine(report: Report) -> Iterator[Line]:
    machine = report.environment
    if isinstance(machine, NotMeasured):
        return
    fewer = f" (asked: {machine.batch_size_asked}, memory ran out)" if machine.batch_size_asked != machine.batch_size_used else ""
    yield Line(f"on {visible(machine.device)}, {visible(machine.dtype)}, batch size {machine.batch_size_used}{fewer}", "dim")
    versions = f"python {machine.python}, torch {machine.torch}, diffusers {machine.diffusers}, transformers {machine.transformers}"
    yield Line(visible(versions), "dim", detail=True)


def _limits(report: Report) -> Iterator[Line]:
    coverage = report.coverage
    yield from (Line(f"skipped {told(item.what)}: {one_line(item.reason)}", "warn") for item in coverage.skipped)
    yield from (Line(f"note: {one_line(what)}") for what in coverage.notes)
    yield from (Line(f"not looked at: {one_line(what)}") for what in coverage.not_looked_at)
    yield from (Line(f"limitation: {one_line(text)}", "dim") for text in report.limitations)
