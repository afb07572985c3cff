"""`unlearn` from directory to directory: measure, decide what to repair, train, check, write."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.measure.effect import Effect, measure
from bdaudit.measure.envelope import envelope
from bdaudit.measure.probe import Stage, build_stage
from bdaudit.measure.prompts import default_prompts
from bdaudit.pipeline.inspect import Inspection, inspect
from bdaudit.pipeline.load import load
from bdaudit.pipeline.save import check_target, write_model
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids
from bdaudit.progress import Progress, silent
from bdaudit.report.records import ChangedTensor, Coverage, Estimate, Exit, FileRecord, LossPoint, UnlearnReport
from bdaudit.unlearn import check, train_text_encoder, train_unet
from bdaudit.unlearn.pairs import Pair, neighbour_pairs, triggered_pairs
from bdaudit.unlearn.trajectories import collect
from bdaudit.unlearn.weights import Patch

TIMESTEPS = (0.9, 0.6, 0.3)
N_NULL = 40
CHECK_EVERY = 100
STATES_MOVE = 1.5
"""How far beyond the harmless texts' 95th percentile a trigger must move the hidden states to be called encoder-resident."""


@dataclass
class _Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: UnlearnConfig
    inspection: Inspection
    suspect: Suspect
    progress: Progress
    stage: Stage = field(init=False)
    timings: dict[str, float] = field(default_factory=dict)
    component: str = ""
    reason: str = ""
    scope: str = ""
    patch: Patch | None = None
    curve: list[LossPoint] = field(default_factory=list)
    before: list[Effect] = field(default_factory=list)
    after: list[Effect] = field(default_factory=list)
    finished: UnlearnReport | None = None
    """The report as it stands when all is checked and the directory is about to be written."""


def run_unlearn(config: UnlearnConfig, progress: Progress = silent) -> UnlearnReport:
    """Remove the triggers from the model and write the repaired one.

    Raises:
        UsageError: the target directory is not free.
        InconclusiveError: a trigger encodes to nothing, or none does more than harmless texts; nothing is written.
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
    """
    check_target(config.out)
    started = time.monotonic()
    inspection = inspect(config.model, strict=config.strict)
    suspect = load(inspection, device=config.device, dtype=config.dtype, batch_size=config.batch_size)
    for trigger in config.triggers:
        if not content_ids(suspect.tokenizer, trigger):
            said = f"the trigger {trigger!a} encodes to no token of this model"
            raise InconclusiveError(f"{said}, so there is nothing to unlearn; check its spelling")
    prompts = config.prompts or default_prompts()
    run = _Run(config, inspection, suspect, progress)
    try:
        run.stage = build_stage(suspect, prompts[:8], TIMESTEPS, config.guidance_scale, config.seed)
        run.before = _effects(run)
        run.component, run.reason = _decide(config, run.before)
        run.timings["measure"] = time.monotonic() - started
        _train(run, prompts)
        return _finish(run, prompts)
    except KeyboardInterrupt:
        return _interrupted(run)


def _interrupted(run: _Run) -> UnlearnReport:
    """What a stopped run has; the directory was free before and comes whole, so whether it is there says whether it was written."""
    out = run.config.out
    there = out.is_dir() and any(out.iterdir())
    said = f"stopped by the user; the repaired model is whole in {out}" if there else "stopped by the user; nothing was written"
    ended = Exit(code=ExitCode.INTERRUPTED, name="interrupted", reason=said)
    report = replace(run.finished or _report(run, "interrupted", ended), status="interrupted", exit=ended)
    return _with_digests(report, out) if there else report


def _effects(run: _Run) -> list[Effect]:
    """Each trigger's effect; no other trigger is among the harmless texts."""
    triggers, seed = run.config.triggers, run.config.seed
    return [measure(run.suspect, run.stage, trigger, n_null=N_NULL, seed=seed, exclude=triggers) for trigger in triggers]


def _decide(config: UnlearnConfig, effects: Sequence[Effect]) -> tuple[str, str]:
    """Which component carries it, and why; refuses to repair what is not broken."""
    if not any(e.shift > e.limit for e in effects):
        shown = "; ".join(f"{e.text!a} moves the prediction {e.shift:.3g}, harmless texts up to {e.limit:.3g}" for e in effects)
        raise InconclusiveError(f"found no effect to remove: {shown}; nothing was written")
    if config.component != "auto":
        return config.component, "named by --component"
    strongest = max(effects, key=lambda e: e.state_shift / e.state_limit)
    ratio = strongest.state_shift / strongest.state_limit
    said = f"{strongest.text!a} moves the other words' hidden states {ratio:.2f} times as far as harmless texts' 95th percentile"
    if ratio > STATES_MOVE:
        return "text-encoder", f"{said}: the text encoding is already wrong"
    return "unet", f"{said}: the text encoding is in order, the denoiser answers it wrongly"


def _train(run: _Run, prompts: Sequence[str]) -> None:
    started = time.monotonic()
    chosen = _chosen_prompts(prompts, run.config.n_prompts)
    pairs = triggered_pairs(chosen, run.config.triggers)
    neighbours = neighbour_pairs(run.suspect.tokenizer, chosen, run.config.triggers, run.config.seed)
    if run.component == "text-encoder":
        _train_scope(run, "whole", pairs, neighbours)
    else:
        run.progress("trajectories", 0, 1)
        latents = collect(run.suspect, pairs, guidance_scale=run.config.guidance_scale, seed=run.config.seed)
        material = train_unet.prepare(run.suspect, latents, pairs, neighbours)
        run.progress("trajectories", 1, 1)
        _train_scope(run, "cross-attention", pairs, neighbours, material)
        if not _removed(run.after):
            _train_scope(run, "whole", pairs, neighbours, material)
    run.timings["train"] = time.monotonic() - started


def _chosen_prompts(prompts: Sequence[str], n: int) -> list[str]:
    return list(prompts[:n])


def _train_scope(run: _Run, scope: str, pairs: list[Pair], neighbours: list[Pair], material: train_unet.Material | None = None) -> None:
    """Train one scope from the original weights; the effects afterwards stay in ``run.after``."""
    if run.patch is not None:
        run.patch.revert()
    module = run.suspect.text_encoder if run.component == "text-encoder" else run.suspect.unet
    run.patch, run.scope = Patch(module, scope), scope

    def tick(step: int, note: str) -> None:
        run.progress(f"unlearning ({scope}) {note}", step, run.config.steps)

    def should_stop(step: int) -> bool:
        if step % CHECK_EVERY or step == run.config.steps:
            return False
        if step < 2 * CHECK_EVERY:
            return False
        with run.suspect.mixed_precision():
            return all(e.shift <= 0.8 * e.limit for e in _effects(run))

    with run.patch.training():
        if material is None:
            run.curve = train_text_encoder.train(run.suspect, run.patch, pairs, neighbours, run.config, should_stop=should_stop, tick=tick)
        else:
            run.curve = train_unet.train(run.suspect, run.patch, material, run.config, should_stop=should_stop, tick=tick)
    if run.component == "text-encoder":
        run.stage = replace(run.stage, states=run.suspect.encode(run.stage.prompts))
    run.after = _effects(run)


def _removed(effects: Sequence[Effect]) -> bool:
    return all(e.shift <= e.limit for e in effects)


def _finish(run: _Run, prompts: Sequence[str]) -> UnlearnReport:
    assert run.patch is not None
    started = time.monotonic()
    run.progress("checking with pictures", 0, 1)
    checks = check.final_checks(run.suspect, run.patch, run.config, prompts, run.after)
    run.progress("checking with pictures", 1, 1)
    run.timings["check"] = time.monotonic() - started
    failed = [c.name for c in checks if c.status == "failed"]
    write = not failed or run.config.keep_failed
    if failed:
        kept = f"written all the same to {run.config.out}" if write else "nothing was written; --keep-failed writes it"
        ended = Exit(code=ExitCode.FINDING, name="finding", reason=f"the repaired model fails its own check ({', '.join(failed)}); {kept}")
    else:
        said = f"{len(run.config.triggers)} trigger(s) removed from the {run.component}; wrote {run.config.out}"
        ended = Exit(code=ExitCode.PASS, name="pass", reason=said)
    report = replace(_report(run, "completed", ended), checks=tuple(checks))
    if not write:
        return report
    run.finished = report
    return _write(run, report)


def _write(run: _Run, report: UnlearnReport) -> UnlearnReport:
    """Write the directory with its provenance; the report says what was written, with digests."""
    assert run.patch is not None
    component = "text_encoder" if run.component == "text-encoder" else "unet"
    changed: dict[str, dict[str, Tensor]] = {component: {name: run.patch.parameters[name] for name in run.patch.changes()}}
    write_model(run.inspection, run.config.out, changed, {"bdaudit.json": json.dumps(_provenance(report), indent=2).encode() + b"\n"})
    return _with_digests(report, run.config.out)


def _with_digests(report: UnlearnReport, out: Path) -> UnlearnReport:
    files = tuple(FileRecord(path=f.path, bytes=f.bytes, sha256=f.sha256) for f in inspect(out).files)
    return replace(report, out=str(out), written=files)


def _provenance(report: UnlearnReport) -> dict[str, Any]:
    """What went in and what was done to it, kept beside the weights."""
    digest = getattr(report.model, "digest", "")
    effects = {name: {"before": e.value, "after": report.after[name].value} for name, e in report.before.items()}
    return {
        "tool": report.tool,
        "input_digest": digest,
        "triggers": list(report.triggers),
        "component": report.component,
        "method": report.method,
        "config": report.config,
        "effect": effects,
    }


def _estimate(effect: Effect) -> Estimate:
    """The effect, beside the harmless texts' 5th to 95th percentile."""
    null = sorted(effect.null)
    return Estimate(
        value=effect.shift, low=null[int(0.05 * len(null))], high=effect.limit, n=len(null), method="harmless texts' 5th to 95th percentile"
    )


def _report(run: _Run, status: Any, ended: Exit) -> UnlearnReport:
    changed = run.patch.changes() if run.patch else {}
    prefix = "text_encoder" if run.component == "text-encoder" else "unet"
    return UnlearnReport(
        **envelope("unlearn", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=Coverage(asked=len(run.config.triggers), tested=len(run.after), not_looked_at=("triggers that were not named",)),
        triggers=run.config.triggers,
        method=f"SKD-CAG with preservation, {run.scope}" if run.scope else "not started",
        component=run.component,
        component_reason=run.reason,
        steps=len(run.curve),
        loss=tuple(run.curve),
        changed=tuple(ChangedTensor(name=f"{prefix}.{name}", relative_change=value) for name, value in changed.items()),
        before={e.text: _estimate(e) for e in run.before},
        after={e.text: _estimate(e) for e in run.after},
    )
