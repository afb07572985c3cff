"""`scan` from directory to report: inspect, load, measure controls and candidates alike, calibrate, judge."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.measure.calibration import NEAREST, Control, Null, fit
from bdaudit.measure.controls import control_texts, kind_of, words_of
from bdaudit.measure.envelope import envelope, file_records
from bdaudit.measure.insertion import codepoints
from bdaudit.measure.opening import inspected, loaded
from bdaudit.measure.probe import Stage, build_stage
from bdaudit.measure.prompts import default_prompts
from bdaudit.measure.signals import Values
from bdaudit.measure.understood import read_both_ways
from bdaudit.pipeline.inspect import Inspection
from bdaudit.pipeline.lora import Adapter, applied, read_adapter
from bdaudit.pipeline.state import State
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids
from bdaudit.progress import Progress, silent
from bdaudit.report.command import adapter_flags, place, size_flag, trigger_flags, typed
from bdaudit.report.records import (
    DECIDING,
    Calibration,
    CandidateRecord,
    Coverage,
    Exit,
    NotMeasured,
    RecoveryRecord,
    ScanReport,
    SignalRecord,
    Skipped,
)
from bdaudit.scan.candidates import collect, listed, skips
from bdaudit.scan.exposing import Exposed, expose
from bdaudit.scan.families import Family, verdict
from bdaudit.scan.families import adjusted as adjusted_p
from bdaudit.scan.following import located, prompt_records, with_places, without_adapters
from bdaudit.scan.halving import Screen
from bdaudit.scan.keeping import measured, open_state
from bdaudit.scan.localise import rebased
from bdaudit.spelling.points import described
from bdaudit.spelling.reader import read_twice

PER_KIND = 24
"""Controls of each kind, where the kind has so many."""
MEANINGFUL = 40
"""Words of the prompts themselves among the controls."""
STATES_MOVE = 1e-3
"""From this p of the state shift on, a finding is put down to the text encoder."""
MOST = 0.75
"""The share of the prompts' own words that a trigger outdoes in effect, or of harmless texts that it outdoes in attention."""
NOT_LOOKED_AT = ("texts that were not listed", "backdoors without a trigger text", "LoRA files that --lora does not name")


@dataclass
class _Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: ScanConfig
    inspection: Inspection
    suspect: Suspect
    asked: tuple[str, ...]
    ids: dict[str, tuple[int, ...]]
    state: State
    adapters: tuple[Adapter, ...] = ()
    families: tuple[Family, ...] = ()
    stage: Stage = field(init=False)
    controls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    meaningful: tuple[str, ...] = ()
    """Words of the prompts themselves."""
    values: dict[str, Values] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    null: Null = field(init=False)
    exposed: Exposed = field(default_factory=Exposed)
    reference: Inspection | None = None
    """Its weights are loaded when something is found."""
    judged: ScanReport | None = None
    """The report with every verdict, while the findings are looked into further."""

    @property
    def drawn(self) -> list[str]:
        """Texts of sweeps that were drawn at random; no candidates."""
        return [text for family in self.families for text in family.drawn]

    @property
    def control_texts(self) -> list[str]:
        """All controls, those that mean something last."""
        return [*(text for texts in self.controls.values() for text in texts), *self.meaningful]


def run_scan(config: ScanConfig, progress: Progress = silent) -> ScanReport:
    """Probe every candidate and say which are triggers.

    Raises:
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
        InconclusiveError: its architecture is not supported.
    """
    started = time.monotonic()
    inspection = inspected(config, config.model)
    reference = inspected(config, config.reference) if config.reference else None
    suspect = loaded(config, inspection)
    adapters = tuple(read_adapter(path, scale, suspect) for path, scale in config.adapters)
    state = open_state(config, inspection.digest, [adapter.key for adapter in adapters])
    asked = listed(config)
    ids = {text: content_ids(suspect.tokenizer, text) for text in asked}
    run = _Run(config, inspection, suspect, asked, ids, state, adapters, timings={"load": time.monotonic() - started}, reference=reference)
    if not any(ids.values()) and not config.sweeps and not config.suspected:
        _distinct(run)
        said = "no candidate encodes to any token, so nothing was tested"
        return _report(run, "completed", Exit(code=ExitCode.INCONCLUSIVE, name="inconclusive", reason=said), ())
    try:
        report = _completed(run, progress)
    except KeyboardInterrupt:
        ended = Exit(code=ExitCode.INTERRUPTED, name="interrupted", reason=f"stopped by the user after {len(run.values)} texts")
        return replace(run.judged or _report(run, "interrupted", ended, ()), status="interrupted", exit=ended)
    state.finish()
    return report


def _completed(run: _Run, progress: Progress) -> ScanReport:
    with applied(run.suspect, run.adapters):
        _measure(run, progress)
        _expose(run, progress)
        run.judged = report = _judged(run)
        found = [record.text for record in report.candidates if record.verdict == "backdoored" and not record.same_as]
        prompts = prompt_records(run.config, run.families, report.candidates, lambda text: _p_of(run, text))
        records = with_places(report.candidates, located(run.config, run.reference, run.suspect, run.stage, found))
    said = _base_alone(run, found, progress) if run.adapters and found else {}
    records = tuple(replace(record, adapter=said.get(record.text, "")) for record in records)
    return replace(report, candidates=records, prompts=prompts)


def _p_of(run: _Run, text: str) -> float:
    """The p of a text that was not among the candidates."""
    ((_, values, _),) = measured(run.suspect, run.stage, run.state, "full", [text])
    return run.null.p(run.null.score(kind_of(run.suspect.tokenizer, text), values))


def _base_alone(run: _Run, found: Sequence[str], progress: Progress) -> dict[str, str]:
    """The findings once more on the model without its adapters, beside the same controls."""
    stage = rebased(run.suspect, run.stage)
    texts = list(dict.fromkeys([*run.control_texts, *found]))
    values: dict[str, Values] = {}
    for done, (text, signals, _) in enumerate(measured(run.suspect, stage, run.state, "base", texts), start=1):
        values[text] = signals
        progress("probing the base without adapters", done, len(texts))
    kinds = {text: kind_of(run.suspect.tokenizer, text) for text in found}
    try:
        return without_adapters(_controls(run, values), kinds, values, run.config.alpha)
    except ValueError as error:
        return dict.fromkeys(found, f"what the base does alone is not known: {error}")


def _measure(run: _Run, progress: Progress) -> None:
    """All controls and all distinct candidates, measured alike; the controls are chosen before any sweep, and left to be swept."""
    started, config = time.monotonic(), run.config
    prompts = config.prompts or default_prompts()
    run.stage = build_stage(run.suspect, prompts[: config.n_prompts], config.timesteps, config.guidance_scale, config.seed)
    run.controls = control_texts(run.suspect.tokenizer, PER_KIND, config.seed, exclude=run.asked)
    taken = [*run.asked, *(text for texts in run.controls.values() for text in texts)]
    run.meaningful = words_of(prompts, MEANINGFUL, exclude=taken)
    _look(run, prompts, progress)
    tested = _distinct(run)
    before = run.suspect.forward_passes
    texts = list(dict.fromkeys([*run.control_texts, *tested, *run.drawn]))
    for done, (text, values, truncated) in enumerate(measured(run.suspect, run.stage, run.state, "full", texts), start=1):
        run.values[text] = values
        if truncated:
            run.skipped.append(Skipped(what=text, reason="measured, but the text encoder's length cut part of a prompt off"))
        progress("probing", done, len(texts))
    run.passes = {"all": run.suspect.forward_passes, "each": (run.suspect.forward_passes - before) // max(1, len(texts))}
    run.timings["probe"] = time.monotonic() - started


def _expose(run: _Run, progress: Progress) -> None:
    """With ``--expose``, all that was measured once more beside an exposed copy."""
    if run.config.expose == "off":
        return
    started, prompts = time.monotonic(), run.config.prompts or default_prompts()
    before = run.suspect.forward_passes
    run.exposed = expose(run.suspect, run.stage, run.config, prompts, run.control_texts, list(run.values), run.state, progress)
    run.passes["all"] += run.suspect.forward_passes - before
    run.timings["expose"] = time.monotonic() - started


def _look(run: _Run, prompts: Sequence[str], progress: Progress) -> None:
    """Every source of candidates; what came through is asked for as if it had been listed."""
    started = time.monotonic()
    run.families = collect(Screen(run.suspect, run.stage, run.state, progress, run.config.seed), run.config, prompts)
    run.asked = tuple(dict.fromkeys(text for family in run.families for text in family.texts))
    run.ids = {text: content_ids(run.suspect.tokenizer, text) for text in run.asked}
    run.timings["sweep"] = time.monotonic() - started


def _controls(run: _Run, values: Mapping[str, Values]) -> list[Control]:
    tokenizer = run.suspect.tokenizer
    controls = [Control(text, kind, values[text]) for kind, texts in run.controls.items() for text in texts]
    return controls + [Control(text, kind_of(tokenizer, text), values[text], meaning=True) for text in run.meaningful]


def _distinct(run: _Run) -> list[str]:
    """Candidates that encode to something, one of each group that encodes alike; the rest are named as such."""
    first: dict[tuple[int, ...], str] = {}
    for text in run.asked:
        if not run.ids[text]:
            run.skipped.append(Skipped(what=text, reason="encodes to no token, so it was not tested"))
        else:
            first.setdefault(run.ids[text], text)
    return list(first.values())


def _judged(run: _Run) -> ScanReport:
    tokenizer = run.suspect.tokenizer
    try:
        run.null = null = fit(_controls(run, run.values))
    except ValueError as error:
        said = f"the harmless controls give no null on this model ({error})"
        raise InconclusiveError(f"{said}; its predictions may not depend on the prompt at all") from error
    tested = [text for text in run.asked if run.ids[text]]
    kinds = {text: kind_of(tokenizer, text) for text in tested}
    source = {text: _representative(run, text) for text in tested}
    distinct = list(dict.fromkeys(source.values()))
    judged = list(dict.fromkeys([*distinct, *run.drawn]))
    scores = {text: null.score(kind_of(tokenizer, text), run.values[text]) for text in judged}
    left = {text: run.exposed.of(text) for text in judged}
    p = {text: null.p(scores[text], [signal.p for signal in left[text].values()]) for text in distinct}
    decided = {text: [scores[text][name] for name in DECIDING] + [signal.score for signal in left[text].values()] for text in judged}
    adjusted = adjusted_p(p, run.families, decided)
    effects, words = _effects(run, distinct), _effects(run, run.meaningful)
    ordinary = float(np.quantile(list(words.values()), MOST)) if words else 0.0
    found = [_record(run, null, text, of, kinds[text], scores[of], effects[of], p[of], adjusted[of]) for text, of in source.items()]
    ranked = sorted((_unless_word_like(record, ordinary) for record in found), key=_order)
    twice = read_twice(run.config.candidates)
    records = [replace(record, rank=rank, reading=_reading(twice, record.text)) for rank, record in enumerate(ranked, start=1)]
    ended = _unless_read_otherwise(run, _ended(run.config.fail_on, records, _recovery(run)))
    report = _report(run, "completed", ended, tuple(records))
    return replace(report, calibration=_calibration(run, null))


def _representative(run: _Run, text: str) -> str:
    return next(other for other in run.asked if run.ids[other] == run.ids[text])


def _reading(twice: Mapping[str, str], text: str) -> str:
    """Which reading of a list's line ``text`` is, where it was read both ways."""
    if text in twice:
        return f"as it stands, though written like {described(twice[text])}"
    literal = next((other for other, meant in twice.items() if meant == text), "")
    return f"the character that {literal!a} is written like" if literal else ""


def _record(
    run: _Run, null: Null, text: str, source: str, kind: str, scores: dict[str, float], effect: float, p: float, adjusted: float
) -> CandidateRecord:
    places = run.values[source]
    found = verdict(adjusted, run.config.alpha)
    signals = {
        name: SignalRecord(value=max(values[name] for values in places.values()), score=score, p=null.tails[name].p(score))
        for name, score in scores.items()
    } | run.exposed.of(source)
    return CandidateRecord(
        rank=0,
        text=text,
        codepoints=codepoints(text),
        token_ids=run.ids[text],
        kind=kind,
        signals=signals,
        score=-math.log10(max(p, sys.float_info.min)),
        effect=effect,
        p=p,
        p_adjusted=adjusted,
        verdict=found,
        same_as="" if source == text else source,
        component=_component(null, scores) if found != "clean" else "not localised: no finding",
        command=_command(run.config, text) if found == "backdoored" else "",
        source=next(family.name for family in run.families if source in family.texts),
    )


def _order(record: CandidateRecord) -> tuple[float, float, tuple[int, ...], str]:
    """Findings first, the largest effect first among them (their p are all but nought); the others by p."""
    found = record.verdict == "backdoored"
    return (0.0 if found else 1.0, -record.effect if found else record.p, record.token_ids, record.text)


def _unless_word_like(record: CandidateRecord, ordinary: float) -> CandidateRecord:
    """A finding that moves the picture no further than most of the prompts' own words do (``ordinary``), and draws no more attention than
    most harmless texts do, is suspicious alone: a word that was taught on purpose is like that."""
    if record.verdict != "backdoored" or record.effect > ordinary or record.signals["attention share"].p <= 1 - MOST:
        return record
    said = f"a quarter of the prompts' own words move the prediction as far ({ordinary:.1f} times or more), and it draws no unusual"
    return replace(record, verdict="suspicious", command="", word_like=f"{said} attention: a word that was taught on purpose is like that")


def _effects(run: _Run, texts: Sequence[str]) -> dict[str, float]:
    """How many times as far as the median control of all kinds each text moves the prediction, at its strongest position."""

    def furthest(text: str) -> float:
        return max(values["noise shift"] for values in run.values[text].values())

    usual = median(furthest(text) for texts in run.controls.values() for text in texts)
    return {text: math.exp((furthest(text) - usual) / 2) for text in texts}


def _component(null: Null, scores: dict[str, float]) -> str:
    """Text encoder where the hidden states of the other words already move beyond the controls, else the denoiser."""
    return "text encoder" if null.tails["state shift"].p(scores["state shift"]) < STATES_MOVE else "unet"


def _command(config: ScanConfig, text: str) -> str:
    """What to type next: the repair, on the same prompts, of a model that opens with the same leave, the adapters merged in."""
    prompts = ["--prompts", place(config.prompts_file)] if config.prompts_file else []
    leave = [*(["--variant", config.variant] if config.variant else []), *(["--allow-pickle"] if config.allow_pickle else [])]
    lora = adapter_flags(config.adapters)
    return typed("unlearn", config.model, *lora, *trigger_flags([text]), *prompts, *size_flag(config.size), *leave)


def _recovery(run: _Run) -> RecoveryRecord | NotMeasured:
    return next((family.recovery for family in run.families if family.recovery), ScanReport.recovery)


def _ended(gate: str, records: Sequence[CandidateRecord], whole: RecoveryRecord | NotMeasured = ScanReport.recovery) -> Exit:
    order = ("clean", "suspicious", "backdoored")
    found = {verdict: sum(r.verdict == verdict for r in records) for verdict in order}
    said = f"{found['backdoored']} of {len(records)} candidates backdoored, {found['suspicious']} suspicious"
    verdicts = [r.verdict for r in records]
    if isinstance(whole, RecoveryRecord) and whole.verdict != "clean":
        verdicts.append(whole.verdict)
        said += f"; the model as a whole {whole.verdict} (named pull {whole.named_pull:.1f})"
    if gate != "never" and any(order.index(verdict) >= order.index(gate) for verdict in verdicts):
        return Exit(code=ExitCode.FINDING, name="finding", reason=said)
    return Exit(code=ExitCode.PASS, name="pass", reason=said)


def _unless_read_otherwise(run: _Run, ended: Exit) -> Exit:
    """A pass says nothing of what people run where diffusers makes another model of an adapter."""
    otherwise = [adapter.read_otherwise for adapter in run.adapters if adapter.read_otherwise]
    if ended.code != ExitCode.PASS or not otherwise or run.config.fail_on == "never":
        return ended
    said = f"{ended.reason}; not audited: {otherwise[0]}"
    return Exit(code=ExitCode.INCONCLUSIVE, name="inconclusive", reason=f"{said}; merge it with the tool that you use, and scan the result")


def _control_p(run: _Run, null: Null) -> list[float]:
    """Of the controls, by the rule that the candidates are judged by."""
    kept = [text for text in run.control_texts if text not in null.outliers]
    further = [[signal.p for signal in run.exposed.of(text).values()] for text in kept]
    return [null.p(dict(zip(null.names, row, strict=True)), more) for row, more in zip(null.scores, further, strict=True)]


def _calibration(run: _Run, null: Null) -> Calibration:
    scores = sorted(-math.log10(p) for p in _control_p(run, null))
    n = len(DECIDING) + max(len(run.exposed.of(text)) for text in run.control_texts)
    tails = "; ".join(
        f"{name}: {null.tails[name].k} controls above {null.tails[name].threshold:.2f}, "
        f"mean excess {null.tails[name].total / null.tails[name].k:.2f}"
        for name in DECIDING
    )
    return Calibration(
        n_controls=len(scores),
        kinds={kind: len(texts) for kind, texts in run.controls.items()} | {"word of the prompts": len(run.meaningful)},
        quantiles={f"{q:g}": scores[min(len(scores) - 1, int(q * len(scores)))] for q in (0.5, 0.9, 0.95, 0.99)},
        tail=(
            f"smallest of {n} p-values times {n}; each of how many times as far as the {NEAREST} controls that "
            f"move the text encoding alike, with an exponential predictive tail ({tails})"
            + (f"; {n - len(DECIDING)} of what is left in exposed copies" if n > len(DECIDING) else "")
            + (f"; left out as outliers: {', '.join(ascii(t) for t in null.outliers)}" if null.outliers else "")
        ),
        alpha=run.config.alpha,
        forward_passes=run.passes["all"],
        forward_passes_per_candidate=run.passes["each"],
    )


def _report(run: _Run, status: Any, ended: Exit, records: tuple[CandidateRecord, ...]) -> ScanReport:
    sweeps = tuple(family.record for family in run.families if family.record)
    extra = sum(sweep.swept - sweep.survivors for sweep in sweeps)
    tested = sum(bool(run.ids[text]) and _representative(run, text) in run.values for text in run.asked)
    skipped = (*run.skipped, *(skip for sweep in sweeps for skip in skips(sweep)))
    return ScanReport(
        **envelope("scan", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=Coverage(
            asked=len(run.asked) + extra,
            tested=tested + extra,
            skipped=skipped,
            not_looked_at=_not_looked_at(run),
            notes=read_both_ways(run.config),
        ),
        candidates=records,
        sweeps=sweeps,
        adapters=file_records(file for adapter in run.adapters for file in adapter.files),
        recovery=_recovery(run),
        exposure=run.exposed.record,
    )


def _not_looked_at(run: _Run) -> tuple[str, ...]:
    listed_only, *others = NOT_LOOKED_AT
    what = ("triggers of three words or more, and pairs of parts that were not swept together",)
    otherwise = (adapter.read_otherwise for adapter in run.adapters if adapter.read_otherwise)
    return (*(what if run.config.sweeps else (listed_only,)), *others, *otherwise)
