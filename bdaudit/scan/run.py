"""`scan` from directory to report: inspect, load, measure controls and candidates alike, calibrate, judge, explain."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.kept_state import State
from bdaudit.measure.controls import control_texts, kind_of, words_of
from bdaudit.measure.envelope import envelope, file_records
from bdaudit.measure.opening import inspected, loaded, open_state
from bdaudit.measure.probe import build_stage
from bdaudit.measure.prompts import default_prompts
from bdaudit.measure.signals import Values
from bdaudit.measure.understood import read_both_ways
from bdaudit.models.lora import Adapter, applied, read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.progress import Progress, silent
from bdaudit.records import (
    DECIDING,
    Calibration,
    CandidateRecord,
    Coverage,
    Exit,
    NotMeasured,
    RecoveryRecord,
    ScanReport,
    Skipped,
)
from bdaudit.report.command import adapter_flags, part_flags, place, size_flag, trigger_flags, typed
from bdaudit.scan.accept import accept, audited_digest, ready_entry
from bdaudit.scan.cached import UNTOUCHED, measured
from bdaudit.scan.candidates import collect, listed, skips
from bdaudit.scan.context import ScanContext
from bdaudit.scan.explain import base_alone, located, prompt_records, with_places
from bdaudit.scan.exposure.copy import STOP, Stop
from bdaudit.scan.exposure.run import Exposed, expose
from bdaudit.scan.judge import Measured, control_p, exit_of, judge, sources_of
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.null import NEAREST, Control, Null, fit
from bdaudit.scan.sweep.result import SIZES, SweepSizes
from bdaudit.spelling.points import described
from bdaudit.spelling.reader import read_twice
from bdaudit.untrusted.inspect import Inspection

NOT_LOOKED_AT = ("texts that were not listed", "backdoors without a trigger text", "LoRA files that --lora does not name")


@dataclass(frozen=True)
class ScanSettings:
    """What no flag changes."""

    per_kind: int = 24
    """Controls of each kind, where the kind has so many."""
    prompt_words: int = 40
    """Words of the prompts themselves among the controls."""
    sizes: SweepSizes = SIZES
    stop: Stop = STOP


SETTINGS = ScanSettings()


@dataclass
class _Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: ScanConfig
    settings: ScanSettings
    progress: Progress
    inspection: Inspection
    reference: Inspection | None
    """Its weights are loaded when something is found."""
    suspect: Suspect
    adapters: tuple[Adapter, ...]
    state: State
    candidates: dict[str, tuple[int, ...]]
    """Each candidate and what it encodes to."""
    groups: tuple[CandidateGroup, ...] = ()
    context: ScanContext = field(init=False)
    controls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By kind."""
    prompt_words: tuple[str, ...] = ()
    """Words of the prompts themselves: controls that mean something."""
    values: dict[str, Values] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    exposed: Exposed = field(default_factory=Exposed)
    judged: ScanReport | None = None
    """The report with every verdict, while the findings are looked into further."""

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.config.prompts or default_prompts()

    @property
    def encoded(self) -> dict[str, tuple[int, ...]]:
        """The candidates that encode to something."""
        return {text: ids for text, ids in self.candidates.items() if ids}

    @property
    def drawn(self) -> list[str]:
        """Texts of sweeps that were drawn at random; no candidates."""
        return [text for group in self.groups for text in group.drawn]

    @property
    def control_texts(self) -> list[str]:
        """All controls, those that mean something last."""
        return [*(text for texts in self.controls.values() for text in texts), *self.prompt_words]

    @property
    def recovery(self) -> RecoveryRecord | NotMeasured:
        return next((group.recovery for group in self.groups if group.recovery), ScanReport.recovery)

    def kind(self, text: str) -> str:
        return kind_of(self.suspect.tokenizer, text)


def run_scan(config: ScanConfig, progress: Progress = silent, settings: ScanSettings = SETTINGS) -> ScanReport:
    """Probe every candidate and say which are triggers.

    Raises:
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
        InconclusiveError: its architecture is not supported.
    """
    run = _opened(config, settings, progress)
    if not run.encoded and not config.sweeps and not config.suspected:
        said = "no candidate encodes to any token, so nothing was tested"
        return _report(run, "completed", Exit.of(ExitCode.INCONCLUSIVE, said), ())
    try:
        report = _completed(run)
    except KeyboardInterrupt:
        ended = Exit.of(ExitCode.INTERRUPTED, f"stopped by the user after {len(run.values)} texts")
        return replace(run.judged or _report(run, "interrupted", ended, ()), status="interrupted", exit=ended)
    run.state.finish()
    return report


def _opened(config: ScanConfig, settings: ScanSettings, progress: Progress) -> _Run:
    started = time.monotonic()
    inspection = inspected(config, config.model)
    reference = inspected(config, config.reference) if config.reference else None
    suspect = loaded(config, inspection)
    adapters = tuple(read_adapter(path, scale, suspect) for path, scale in config.adapters)
    state = open_state("scan", config, UNTOUCHED, inspection.digest, adapters)
    candidates = {text: content_ids(suspect.tokenizer, text) for text in listed(config)}
    timings = {"load": time.monotonic() - started}
    return _Run(config, settings, progress, inspection, reference, suspect, adapters, state, candidates, timings=timings)


def _completed(run: _Run) -> ScanReport:
    with applied(run.suspect, run.adapters):
        started = time.monotonic()
        _collect(run)
        _measure(run)
        run.timings["probe"] = time.monotonic() - started
        _expose(run)
        null = _null(run)
        run.judged = report = _judged(run, null)
        findings = [record.text for record in report.candidates if record.verdict == "backdoored" and not record.same_as]
        prompts = prompt_records(run.config.suspected, run.groups, report.candidates, lambda text: _p_of(run, null, text), run.config.alpha)
        records = with_places(report.candidates, located(run.context, _reference(run), findings), run.suspect.denoiser)
    if run.adapters and findings:
        alone = base_alone(run.context, _controls(run), {text: run.kind(text) for text in findings}, run.config.alpha)
        records = tuple(replace(record, adapter=alone.get(record.text, "")) for record in records)
    return replace(report, candidates=records, prompts=prompts)


def _reference(run: _Run) -> Callable[[], Suspect] | None:
    """Opens the reference model, at the batch size that the suspect could hold."""
    inspection = run.reference
    return None if inspection is None else lambda: loaded(replace(run.config, batch_size=run.suspect.batch_size), inspection)


def _collect(run: _Run) -> None:
    """The stage, the controls, and every source of candidates; the controls are chosen before any sweep, and left to be swept."""
    config, tokenizer = run.config, run.suspect.tokenizer
    stage = build_stage(run.suspect, run.prompts[: config.n_prompts], config.timesteps, config.guidance_scale, config.seed)
    run.context = ScanContext(run.suspect, stage, run.state, run.progress, config.seed)
    run.controls = control_texts(tokenizer, run.settings.per_kind, config.seed, exclude=run.candidates)
    run.prompt_words = words_of(run.prompts, run.settings.prompt_words, exclude=[*run.candidates, *run.control_texts])
    started = time.monotonic()
    run.groups = collect(run.context, config, run.prompts, run.settings.sizes)
    run.candidates = {text: content_ids(tokenizer, text) for group in run.groups for text in group.texts}
    run.timings["sweep"] = time.monotonic() - started


def _measure(run: _Run) -> None:
    """All controls and all distinct candidates, measured alike."""
    before = run.suspect.forward_passes
    texts = list(dict.fromkeys([*run.control_texts, *sources_of(run.encoded).values(), *run.drawn]))
    for done, (text, values, truncated) in enumerate(measured(run.context, "full", texts), start=1):
        run.values[text] = values
        run.truncated += [text] if truncated else []
        run.progress("probing", done, len(texts))
    run.passes = {"all": run.suspect.forward_passes, "each": (run.suspect.forward_passes - before) // max(1, len(texts))}


def _expose(run: _Run) -> None:
    """With ``--expose``, all that was measured once more beside an exposed copy."""
    if run.config.expose == "off":
        return
    started, before = time.monotonic(), run.suspect.forward_passes
    run.exposed = expose(run.context, run.config, run.prompts, run.control_texts, list(run.values), run.settings.stop)
    run.passes["all"] += run.suspect.forward_passes - before
    run.timings["expose"] = time.monotonic() - started


def _controls(run: _Run) -> tuple[Control, ...]:
    """As they were measured."""
    controls = [Control(text, kind, run.values[text]) for kind, texts in run.controls.items() for text in texts]
    return (*controls, *(Control(text, run.kind(text), run.values[text], meaning=True) for text in run.prompt_words))


def _null(run: _Run) -> Null:
    try:
        return fit(_controls(run))
    except ValueError as error:
        said = f"the harmless controls give no null on this model ({error})"
        raise InconclusiveError(f"{said}; its predictions may not depend on the prompt at all") from error


def _p_of(run: _Run, null: Null, text: str) -> float:
    """The p of a text that was not among the candidates."""
    ((_, values, _),) = measured(run.context, "full", [text])
    return null.p(null.score(run.kind(text), values))


def _judged(run: _Run, null: Null) -> ScanReport:
    kinds = {text: run.kind(text) for text in [*run.encoded, *run.drawn]}
    all_measured = Measured(run.encoded, run.groups, kinds, run.values, _controls(run), run.exposed.signals, run.suspect.denoiser.name)
    twice, today = read_twice(run.config.candidates), datetime.now(UTC).date()
    judged, acceptances = accept(judge(all_measured, null, run.config.alpha), run.config.accept, _digest(run), today)
    records = tuple(replace(_with_next(run, record, today), reading=reading(twice, record.text)) for record in judged)
    ended = unless_read_otherwise(run.config, run.adapters, exit_of(run.config.fail_on, records, run.recovery))
    report = _report(run, "completed", ended, records)
    return replace(report, acceptances=acceptances, calibration=_calibration(run, null, control_p(all_measured, null)))


def _digest(run: _Run) -> str:
    """Of the model and the adapters that were audited."""
    return audited_digest(run.inspection.digest, [adapter.key for adapter in run.adapters])


def _with_next(run: _Run, record: CandidateRecord, today: date) -> CandidateRecord:
    """A finding with what to type next, and whatever reaches the gate with the entry that would accept it."""
    if record.verdict not in ("backdoored", run.config.fail_on):
        return record
    repair = command(run.config, record.text) if record.verdict == "backdoored" else ""
    return replace(record, command=repair, accept_entry=ready_entry(record, _digest(run), today))


def reading(twice: Mapping[str, str], text: str) -> str:
    """Which reading of a list's line ``text`` is, where it was read both ways."""
    if text in twice:
        return f"as it stands, though written like {described(twice[text])}"
    literal = next((other for other, meant in twice.items() if meant == text), "")
    return f"the character that {literal!a} is written like" if literal else ""


def unless_read_otherwise(config: ScanConfig, adapters: Sequence[Adapter], ended: Exit) -> Exit:
    """A pass says nothing of what people run where diffusers makes another model of an adapter."""
    otherwise = [adapter.read_otherwise for adapter in adapters if adapter.read_otherwise]
    if ended.code != ExitCode.PASS or not otherwise or config.fail_on == "never":
        return ended
    said = f"{ended.reason}; not audited: {otherwise[0]}"
    return Exit.of(ExitCode.INCONCLUSIVE, f"{said}; merge it with the tool that you use, and scan the result")


def command(config: ScanConfig, text: str) -> str:
    """What to type next: the repair, on the same prompts, of a model that opens with the same leave, the adapters merged in."""
    prompts = ["--prompts", place(config.prompts_file)] if config.prompts_file else []
    leave = [*(["--variant", config.variant] if config.variant else []), *(["--allow-pickle"] if config.allow_pickle else [])]
    lora = adapter_flags(config.adapters)
    leave += part_flags(config.parts_from, [each for each in config.parts if not each[0]])
    return typed("unlearn", config.model, *lora, *trigger_flags([text]), *prompts, *size_flag(config.size), *leave)


def _calibration(run: _Run, null: Null, p: Sequence[float]) -> Calibration:
    """What the null rests on; ``p`` are the controls'."""
    scores = sorted(-math.log10(value) for value in p)
    copies = max(len(run.exposed.signals.get(text, ())) for text in run.control_texts)
    n = len(DECIDING) + copies
    tails = "; ".join(
        f"{name}: {null.tails[name].k} controls above {null.tails[name].threshold:.2f}, "
        f"mean excess {null.tails[name].total / null.tails[name].k:.2f}"
        for name in DECIDING
    )
    return Calibration(
        n_controls=len(scores),
        kinds={kind: len(texts) for kind, texts in run.controls.items()} | {"word of the prompts": len(run.prompt_words)},
        quantiles={f"{q:g}": scores[min(len(scores) - 1, int(q * len(scores)))] for q in (0.5, 0.9, 0.95, 0.99)},
        tail=(
            f"smallest of {n} p-values times {n}; each of how many times as far as the {NEAREST} controls that "
            f"move the text encoding alike, with an exponential predictive tail ({tails})"
            + (f"; {copies} of what is left in exposed copies" if copies else "")
            + (f"; left out as outliers: {', '.join(ascii(t) for t in null.outliers)}" if null.outliers else "")
        ),
        alpha=run.config.alpha,
        forward_passes=run.passes["all"],
        forward_passes_per_candidate=run.passes["each"],
    )


def _report(run: _Run, status: Any, ended: Exit, records: tuple[CandidateRecord, ...]) -> ScanReport:
    sweeps = tuple(group.record for group in run.groups if group.record)
    return ScanReport(
        **envelope("scan", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=_coverage(run),
        candidates=records,
        sweeps=sweeps,
        adapters=file_records(file for adapter in run.adapters for file in adapter.files),
        recovery=run.recovery,
        exposure=run.exposed.record,
    )


def _coverage(run: _Run) -> Coverage:
    sweeps = [group.record for group in run.groups if group.record]
    screened_out = sum(sweep.swept - sweep.survivors for sweep in sweeps)
    tested = sum(source in run.values for source in sources_of(run.encoded).values())
    skipped = [Skipped(what=text, reason="encodes to no token, so it was not tested") for text, ids in run.candidates.items() if not ids]
    cut = "measured, but the text encoder's length cut part of a prompt off"
    skipped += [Skipped(what=text, reason=cut) for text in run.truncated]
    skipped += [skip for sweep in sweeps for skip in skips(sweep)]
    return Coverage(
        asked=len(run.candidates) + screened_out, tested=tested + screened_out, skipped=tuple(skipped),
        not_looked_at=_not_looked_at(run), notes=read_both_ways(run.config),
    )  # fmt: skip


def _not_looked_at(run: _Run) -> tuple[str, ...]:
    listed_only, *others = NOT_LOOKED_AT
    what = ("triggers of three words or more, and pairs of parts that were not swept together",)
    otherwise = (adapter.read_otherwise for adapter in run.adapters if adapter.read_otherwise)
    return (*(what if run.config.sweeps else (listed_only,)), *others, *otherwise)
