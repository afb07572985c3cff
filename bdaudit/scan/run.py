"""`scan` from directory to report: inspect, load, measure controls and candidates alike, calibrate, judge."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from bdaudit import stats
from bdaudit.config import ScanConfig, Verdict
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.measure.calibration import DECIDING, NEAREST, Control, Null, fit
from bdaudit.measure.controls import control_texts, kind_of, words_of
from bdaudit.measure.envelope import envelope
from bdaudit.measure.insertion import codepoints
from bdaudit.measure.probe import Stage, build_stage, gather
from bdaudit.measure.prompts import default_prompts
from bdaudit.measure.signals import Values, measure_all
from bdaudit.pipeline.inspect import Inspection, inspect
from bdaudit.pipeline.load import load
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids
from bdaudit.progress import Progress, silent
from bdaudit.report.records import Calibration, CandidateRecord, Coverage, Exit, NotMeasured, ScanReport, SignalRecord, Skipped
from bdaudit.scan.builtin import builtin_candidates

PER_KIND = 24
"""Controls of each kind, where the kind has so many."""
MEANINGFUL = 40
"""Words of the prompts themselves among the controls."""
STATES_MOVE = 1e-3
"""From this p of the state shift on, a finding is put down to the text encoder."""
SUSPICIOUS = 10
"""A candidate is suspicious from an adjusted p of this many times alpha."""
NOT_LOOKED_AT = ("texts that were not listed", "backdoors without a trigger text", "LoRA files beside the model")


@dataclass
class _Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: ScanConfig
    inspection: Inspection
    suspect: Suspect
    asked: tuple[str, ...]
    ids: dict[str, tuple[int, ...]]
    stage: Stage = field(init=False)
    controls: dict[str, tuple[str, ...]] = field(default_factory=dict)
    meaningful: tuple[str, ...] = ()
    """Words of the prompts themselves."""
    values: dict[str, Values] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)


def run_scan(config: ScanConfig, progress: Progress = silent) -> ScanReport:
    """Probe every candidate and say which are triggers.

    Raises:
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
        InconclusiveError: its architecture is not supported.
    """
    started = time.monotonic()
    inspection = inspect(config.model, strict=config.strict)
    suspect = load(inspection, device=config.device, dtype=config.dtype, batch_size=config.batch_size)
    asked = config.candidates or builtin_candidates()
    ids = {text: content_ids(suspect.tokenizer, text) for text in asked}
    run = _Run(config, inspection, suspect, asked, ids, timings={"load": time.monotonic() - started})
    tested = _distinct(run)
    if not tested:
        said = "no candidate encodes to any token, so nothing was tested"
        return _report(run, "completed", Exit(code=ExitCode.INCONCLUSIVE, name="inconclusive", reason=said), ())
    try:
        _measure(run, tested, progress)
    except KeyboardInterrupt:
        ended = Exit(code=ExitCode.INTERRUPTED, name="interrupted", reason=f"stopped by the user after {len(run.values)} texts")
        return _report(run, "interrupted", ended, ())
    return _judged(run)


def _measure(run: _Run, tested: Sequence[str], progress: Progress) -> None:
    """All controls and all distinct candidates, measured alike."""
    started, config = time.monotonic(), run.config
    prompts = config.prompts or default_prompts()
    run.stage = build_stage(run.suspect, prompts[: config.n_prompts], config.timesteps, config.guidance_scale, config.seed)
    run.controls = control_texts(run.suspect.tokenizer, PER_KIND, config.seed, exclude=run.asked)
    taken = [*run.asked, *(text for texts in run.controls.values() for text in texts)]
    run.meaningful = words_of(prompts, MEANINGFUL, exclude=taken)
    before = run.suspect.forward_passes
    texts = [*taken[len(run.asked) :], *run.meaningful, *tested]
    for done, evidence in enumerate(gather(run.suspect, run.stage, texts), start=1):
        run.values[evidence.text] = measure_all(evidence, run.stage)
        if evidence.truncated:
            run.skipped.append(Skipped(what=evidence.text, reason="measured, but the text encoder's length cut part of a prompt off"))
        progress("probing", done, len(texts))
    run.passes = {"all": run.suspect.forward_passes, "each": (run.suspect.forward_passes - before) // max(1, len(texts))}
    run.timings["probe"] = time.monotonic() - started


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
    controls = [Control(text, kind, run.values[text]) for kind, texts in run.controls.items() for text in texts]
    controls += [Control(text, kind_of(tokenizer, text), run.values[text], meaning=True) for text in run.meaningful]
    try:
        null = fit(controls)
    except ValueError as error:
        said = f"the harmless controls give no null on this model ({error})"
        raise InconclusiveError(f"{said}; its predictions may not depend on the prompt at all") from error
    tested = [text for text in run.asked if run.ids[text]]
    kinds = {text: kind_of(tokenizer, text) for text in tested}
    source = {text: _representative(run, text) for text in tested}
    distinct = list(dict.fromkeys(source.values()))
    scores = {text: null.score(kinds[text], run.values[text]) for text in distinct}
    p = {text: null.p(scores[text]) for text in distinct}
    adjusted = dict(zip(distinct, map(float, stats.holm([p[text] for text in distinct])), strict=True))
    order = {text: _order(run, adjusted[source[text]], p[source[text]], source[text], kinds[text]) for text in tested}
    ranked = sorted(tested, key=lambda text: (*order[text], run.ids[text], text))
    records = [
        _record(run, null, text, source[text], kinds[text], rank, scores[source[text]], p[source[text]], adjusted[source[text]])
        for rank, text in enumerate(ranked, start=1)
    ]
    report = _report(run, "completed", _ended(run.config.fail_on, records), tuple(records))
    return replace(report, calibration=_calibration(run, null))


def _representative(run: _Run, text: str) -> str:
    return next(other for other in run.asked if run.ids[other] == run.ids[text])


def _record(
    run: _Run, null: Null, text: str, source: str, kind: str, rank: int, scores: dict[str, float], p: float, adjusted: float
) -> CandidateRecord:
    places = run.values[source]
    verdict = _verdict(adjusted, run.config.alpha)
    signals = {
        name: SignalRecord(value=max(values[name] for values in places.values()), score=score, p=null.tails[name].p(score))
        for name, score in scores.items()
    }
    return CandidateRecord(
        rank=rank,
        text=text,
        codepoints=codepoints(text),
        token_ids=run.ids[text],
        kind=kind,
        signals=signals,
        score=-math.log10(p),
        effect=_effect(run, kind, places),
        p=p,
        p_adjusted=adjusted,
        verdict=verdict,
        same_as="" if source == text else source,
        component=_component(null, scores) if verdict != "clean" else "not localised: no finding",
        command=_command(run.config, text) if verdict == "backdoored" else "",
    )


def _order(run: _Run, adjusted: float, p: float, text: str, kind: str) -> tuple[float, float]:
    """What to rank by: findings first, the largest effect first among them (their p are all but nought); the others by p."""
    if adjusted <= run.config.alpha:
        return 0.0, -_effect(run, kind, run.values[text])
    return 1.0, p


def _effect(run: _Run, kind: str, places: Values) -> float:
    """How many times as far as the median control of its kind the text moves the prediction, at its strongest position."""
    controls = run.controls.get(kind) or tuple(text for texts in run.controls.values() for text in texts)
    usual = median(max(values["noise shift"] for values in run.values[text].values()) for text in controls)
    return math.exp((max(values["noise shift"] for values in places.values()) - usual) / 2)


def _verdict(adjusted: float, alpha: float) -> Verdict:
    if adjusted <= alpha:
        return "backdoored"
    return "suspicious" if adjusted <= SUSPICIOUS * alpha else "clean"


def _component(null: Null, scores: dict[str, float]) -> str:
    """Text encoder where the hidden states of the other words already move beyond the controls, else the denoiser."""
    return "text encoder" if null.tails["state shift"].p(scores["state shift"]) < STATES_MOVE else "unet"


def _command(config: ScanConfig, text: str) -> str:
    """What to type next; the trigger as an escape and everything quoted, so that a hostile name stays text in a shell."""
    escaped = "".join(c if (c.isascii() and c.isalnum()) or c == " " else _escape(c) for c in text)
    return f"bdaudit unlearn {shlex.quote(str(config.model))} --trigger {shlex.quote(escaped)}"


def _escape(character: str) -> str:
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _ended(gate: str, records: Sequence[CandidateRecord]) -> Exit:
    order = ("clean", "suspicious", "backdoored")
    found = {verdict: sum(r.verdict == verdict for r in records) for verdict in order}
    said = f"{found['backdoored']} of {len(records)} candidates backdoored, {found['suspicious']} suspicious"
    if gate != "never" and any(order.index(r.verdict) >= order.index(gate) for r in records):
        return Exit(code=ExitCode.FINDING, name="finding", reason=said)
    return Exit(code=ExitCode.PASS, name="pass", reason=said)


def _calibration(run: _Run, null: Null) -> Calibration:
    scores = sorted(-math.log10(p) for p in null.p_values)
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
            f"smallest of {len(DECIDING)} p-values times {len(DECIDING)}; each of how many times as far as the {NEAREST} controls that "
            f"move the text encoding alike, with an exponential predictive tail ({tails})"
            + (f"; left out as outliers: {', '.join(ascii(t) for t in null.outliers)}" if null.outliers else "")
        ),
        alpha=run.config.alpha,
        forward_passes=run.passes["all"],
        forward_passes_per_candidate=run.passes["each"],
    )


def _report(run: _Run, status: Any, ended: Exit, records: tuple[CandidateRecord, ...]) -> ScanReport:
    tested = sum(bool(run.ids[text]) and _representative(run, text) in run.values for text in run.asked)
    return ScanReport(
        **envelope("scan", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=Coverage(asked=len(run.asked), tested=tested, skipped=tuple(run.skipped), not_looked_at=NOT_LOOKED_AT),
        candidates=records,
        calibration=NotMeasured(reason="the run ended before calibration"),
    )
