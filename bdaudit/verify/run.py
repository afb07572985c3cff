"""From a config to a report: plan the pictures, draw each once, look at them, hold the figures against the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

from bdaudit.config import VerifyConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.context_prompts import wanted
from bdaudit.measure.envelope import envelope, file_records, learned_records
from bdaudit.measure.grader import load_grader
from bdaudit.measure.picture_files import read_picture
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.device import choose_device
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import Tokenizer, content_ids
from bdaudit.progress import Progress, silent, timed
from bdaudit.records import AttackRecord, Coverage, EvidenceRecord, Exit, Metric, NotMeasured, Skipped, VerifyReport
from bdaudit.report.document import AnyReport
from bdaudit.verify import pictures
from bdaudit.verify.attack import measure_attack, untested
from bdaudit.verify.checks import NOT_REACHED, all_checks, outcome
from bdaudit.verify.early_stop import measured
from bdaudit.verify.evidence import BEFORE, REFERENCE, write_evidence
from bdaudit.verify.gallery import Gallery, Pair, Shot
from bdaudit.verify.inception import load_inception
from bdaudit.verify.input_report import NO_CLAIM, Claim, by_report, claim_of, handed_report
from bdaudit.verify.inputs import check_fits
from bdaudit.verify.kept_figures import keep
from bdaudit.verify.metrics import Sets, measure_metrics
from bdaudit.verify.model import Model
from bdaudit.verify.plan import Plan, make_plan, rule_for
from bdaudit.verify.state import open_state
from bdaudit.verify.trials import Trial
from bdaudit.verify.trigger_evidence import NOT_ASKED, NOT_GIVEN, by_before, other_ids, restless
from bdaudit.verify.trigger_forms import with_reach
from bdaudit.workers.hired import Turns

LIMITATIONS = (
    "The attack success rate holds for these prompts and positions of the trigger, and by the rule beside it; others give others.",
    "Intervals are for pictures of prompts drawn at random from the list; they say nothing of prompts that are not on it.",
)
PAIRED_LIMITATION = "With no target given, a backdoor that changes pictures no more than harmless words do is not seen; name the target."
EVIDENCE_LIMITATION = (
    "The evidence is a report: it shows that the text was a trigger, not that what counts as a hit here sees what it did (--before shows "
    "both); and but for a report of unlearn, MODEL's own record alone says that it was made from that model."
)
NO_REFERENCE = NotMeasured(reason="no reference model was given; say --reference MODEL")
NO_BASELINE = NotMeasured(reason="there is no model to compare with; say --before MODEL_WITH_IT or --reference TRUSTED_MODEL")
NOT_DRAWN = "the model's pictures: none was drawn, because all that was asked for needs a grader"
NO_QUALITY = "quality: nothing that was given is shown to be a trigger, so that the run cannot pass"
NOT_LOOKED_AT = (
    "the trigger joined with other texts, and forms of it that are not listed",
    "other samplers, step counts and guidance scales",
)


@dataclass
class _Run:
    """What is known so far; a report can be made of it at any time."""

    config: VerifyConfig
    progress: Progress
    shared: dict[str, Any]
    """The report's envelope."""
    attacks: tuple[AttackRecord, ...] = ()
    metrics: dict[str, Metric] = field(default_factory=dict)
    prompts_skipped: tuple[Skipped, ...] = ()
    images: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    models: list[Model] = field(default_factory=list)
    """Those that were opened, the audited one first."""
    claim: Claim = NO_CLAIM
    evidence: dict[str, EvidenceRecord] = field(default_factory=dict)
    """Trigger → what shows that it ever was one."""
    sampled: dict[str, AttackRecord] = field(default_factory=dict)
    """What nothing shows to be a trigger → its rate on a few pictures of the audited model."""
    no_quality: str = ""
    """Why quality was not looked at; empty where it was."""
    turns: Turns = field(default_factory=Turns)
    """Workers, of one model at a time."""
    hopeless: bool = False
    """Whether nothing was drawn because nothing could have been measured on it."""

    def pictures(self) -> dict[str, int]:
        """How many were drawn, taken from the state directory, and damaged there."""
        return {what: sum(getattr(model.gallery, what) for model in self.models) for what in ("drawn", "reused", "damaged")}

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a block, finished or not."""
        return timed(self.timings, name)

    def draw(self, model: Model, shots: Sequence[Shot], pairs: Sequence[Pair] = ()) -> None:
        """What ``model`` has not drawn yet."""
        model.add(shots, pairs, self.stage, self.progress, self.turns)


@dataclass(frozen=True, kw_only=True)
class _Galleries:
    """What was drawn so far."""

    model: Gallery
    before: Gallery | NotMeasured = NO_BASELINE
    reference: Gallery | NotMeasured = NO_REFERENCE
    baseline: Gallery | NotMeasured = NO_BASELINE
    """Of the reference and the model from before the repair, the one that quality is compared with."""


def run_verify(config: VerifyConfig, progress: Progress = silent) -> VerifyReport:
    """Measure ``config.model``: attack success of each trigger, quality, checks.

    Ctrl-C gives the report of what was measured until then, with exit 130.

    Raises:
        BdauditError: a model, the grader or a named file cannot be used; see ``bdaudit.errors``.
    """
    run = _Run(config, progress, envelope("verify", config))
    try:
        _audit(run)
    except KeyboardInterrupt:
        return _report(run, "interrupted")
    finally:
        run.turns.close()
    report = _report(run, "completed")
    if not run.no_quality:
        keep(config, report, [model.inspection.digest for model in run.models])
    return report


def _audit(run: _Run) -> None:
    config = run.config
    target = None if config.target_image is None else read_picture(config.target_image, "--target-image")
    if config.real_images is not None:
        pictures.check_pictures(pictures.picture_files(config.real_images))  # a wrong folder is told before any work is done
    handed = handed_report(config)
    state = None if config.state is None else open_state(config.state)
    with run.stage("load"):
        device = choose_device(config.device)
        grader, inception = load_grader(config.clip, device), load_inception(device)
        roles = {"": ("pictures", config.model), "before": ("pictures of --before", config.before)}
        roles |= {"reference": ("reference pictures", config.reference)}
        run.models = [Model(config, path, drawing, grader, state, role) for role, (drawing, path) in roles.items() if path]
    model, before = run.models[0], run.models[1] if config.before else None
    if target is not None and config.target_at is not None:
        check_fits((target.shape[-1], target.shape[-2]), config.target_at, model.picture_size)  # told before any picture is drawn
    run.claim = claim_of(model.inspection)
    run.shared = _envelope(config, model)
    with run.stage("plan"):
        extractor = grader if isinstance(inception, NotMeasured) else inception
        plan = make_plan(config, model.tokenizer, rule_for(config, target, grader), grader, extractor)
    run.prompts_skipped = _prompts_skipped(plan)
    if plan.hopeless(config):
        run.hopeless = True
        _measure(run, plan, _Galleries(model=model.gallery))
        return
    run.evidence = {trial.trigger: _evidence(run, plan, trial, model, before, handed) for trial in plan.usable()}
    if not _unproven(run, plan, model):
        _draw(run, plan.without(run.sampled), model, before, run.models[-1] if config.reference else None)


def _envelope(config: VerifyConfig, model: Model) -> dict[str, Any]:
    # A suspect is asked for its device, type and batch size alone, and a model has those before its weights are loaded.
    return envelope("verify", config, model.inspection, cast(Suspect, model))


def _draw(run: _Run, plan: Plan, model: Model, before: Model | None, other: Model | None) -> None:
    """Draw the rest model by model, and measure after each what is there."""
    pairs = plan.pairs(run.config)
    drawn = _Galleries(model=model.gallery)
    if before is not None:
        shown = [shot for pair in pairs for shot in pair]  # drawn already, but where two tokenizers made that needless
        run.draw(before, [*(plan.compared_shots() if other is None else []), *shown], pairs)
        drawn = replace(drawn, before=before.gallery, baseline=before.gallery if other is None else drawn.baseline)
        before.leave()
    run.draw(model, plan.audited_shots(), pairs)
    model.leave()
    run.shared = _envelope(run.config, model)  # the batch size may have shrunk
    if other is None:
        _look(run, plan, drawn, None)
        return
    stopped = NotMeasured(reason="the run was stopped before the reference model's pictures were drawn")
    _look(run, plan, replace(drawn, reference=stopped, baseline=stopped), None)
    run.draw(other, plan.reference_shots(), pairs)
    _look(run, plan, replace(drawn, reference=other.gallery, baseline=other.gallery), other.tokenizer)


# --- what shows that a text was ever a trigger ------------------------------------------------


def _evidence(run: _Run, plan: Plan, trial: Trial, model: Model, before: Model | None, handed: AnyReport | None) -> EvidenceRecord:
    config = run.config
    if before is not None:
        if differs := other_ids(trial, model.tokenizer, before.tokenizer):
            return differs
        _, said, shown = measured(*plan.tried(trial.trigger), before.gallery, partial(run.draw, before))
        return by_before(shown, said, before.inspection.digest)
    if handed is not None:
        read = partial(content_ids, model.tokenizer)
        return by_report(handed, config, model.inspection, run.claim, trial, read)
    return NOT_ASKED if config.evidence == "none" else NOT_GIVEN


def _unproven(run: _Run, plan: Plan, model: Model) -> bool:
    """Look at a few of the audited model's pictures of each text that evidence was offered for and does not hold, since a high rate is a
    finding all the same. Whether that is all there is to do: no text is left that could pass."""
    config = run.config
    if config.evidence == "none":
        return False
    failing = [trigger for trigger, found in run.evidence.items() if found.kind in ("before", "report") and not found.holds]
    for trigger in failing:
        record, *_ = measured(*plan.tried(trigger), model.gallery, partial(run.draw, model))
        run.sampled[trigger] = replace(record, evidence=run.evidence[trigger])
    untestable = [found for found in plan.trials.values() if isinstance(found, NotMeasured) and found != plan.grader]
    if config.max_asr == 1 or not config.triggers or len(failing) + len(untestable) < len(config.triggers):
        return False
    run.attacks = tuple(_attack(trigger, plan, run, _Galleries(model=model.gallery), None) for trigger in plan.trials)
    run.no_quality = run.evidence[failing[0]].reason if failing else untestable[0].reason
    run.shared = _envelope(config, model)
    return True


# --- looking at it ----------------------------------------------------------------------------


def _look(run: _Run, plan: Plan, drawn: _Galleries, tokenizer: Tokenizer | None) -> None:
    """Measure what the galleries hold, and write some of it."""
    _measure(run, plan, drawn, tokenizer)
    if run.config.save_images is not None:
        with run.stage("evidence"):
            earlier = drawn.reference if isinstance(drawn.before, NotMeasured) else drawn.before
            names = (REFERENCE if earlier is drawn.reference else BEFORE, REFERENCE if run.config.reference else BEFORE)
            shots, galleries = plan.shots, (drawn.model, earlier, drawn.baseline)
            run.images = write_evidence(run.config.save_images, plan.usable(), shots, *galleries, names)


def _measure(run: _Run, plan: Plan, drawn: _Galleries, tokenizer: Tokenizer | None = None) -> None:
    """What the galleries hold, over what was measured before; ``tokenizer`` is the reference's."""
    with run.stage("attack success"):
        run.attacks = tuple(_attack(trigger, plan, run, drawn, tokenizer) for trigger in run.config.triggers)
    with run.stage("quality"):
        sets = Sets(model=drawn.model, reference=drawn.baseline, shots=plan.shots, other=plan.other, real=plan.real)
        run.metrics = measure_metrics(sets, plan.grader, plan.extractor, run.config.seed)


def _attack(trigger: str, plan: Plan, run: _Run, drawn: _Galleries, tokenizer: Tokenizer | None) -> AttackRecord:
    if trigger in run.sampled:
        return run.sampled[trigger]
    found, reference = plan.trials[trigger], drawn.reference
    if isinstance(found, NotMeasured):
        return untested(trigger, (), found)
    if tokenizer is not None and not content_ids(tokenizer, trigger):
        reference = NotMeasured(reason="the trigger encodes to nothing with the reference model's tokenizer")
    record = with_reach(measure_attack(*found, drawn.model, reference), *found, drawn.model, plan.forms[trigger])
    evidence = run.evidence[trigger]
    tampered = "" if isinstance(drawn.before, NotMeasured) else restless(*found, drawn.model, drawn.before)
    return replace(record, evidence=replace(evidence, holds=False, reason=tampered) if tampered and evidence.holds else evidence)


def _prompts_skipped(plan: Plan) -> tuple[Skipped, ...]:
    return tuple(
        Skipped(what=f"{count} prompts for the trigger {trial.trigger}", reason=reason)
        for trial in plan.usable()
        for reason, count in trial.skipped.items()
    )


# --- the report -------------------------------------------------------------------------------


def _report(run: _Run, status: Literal["completed", "interrupted"]) -> VerifyReport:
    checks = all_checks(run.config, run.attacks, run.metrics, run.no_quality or NOT_REACHED)
    stopped = Exit.of(ExitCode.INTERRUPTED, "stopped by the user; what was measured is in the report")
    limitations = (*run.shared["limitations"], *LIMITATIONS)
    if run.config.triggers and not (run.config.target_image or run.config.target_text or run.config.swaps):
        limitations = (*limitations, PAIRED_LIMITATION)
    if any(found.kind == "report" and found.holds for found in run.evidence.values()):
        limitations = (*limitations, EVIDENCE_LIMITATION)
    return VerifyReport(
        **{**run.shared, "limitations": limitations},
        status=status,
        exit=_unless_read_otherwise(run, outcome(run.config, run.attacks, checks)) if status == "completed" else stopped,
        coverage=_coverage(run),
        timings={name: round(seconds, 3) for name, seconds in run.timings.items()},
        attacks=run.attacks,
        metrics=run.metrics,
        checks=checks,
        images=run.images,
        pictures=run.pictures(),
        adapters=tuple(file for model in run.models for each in model.adapters for file in file_records(each.files)),
        embeddings=learned_records(run.models[0].embeddings) if run.models else (),
        compared_with="reference" if run.config.reference else "before" if run.config.before else "",
        says_of_itself=run.claim.text,
    )


def _unless_read_otherwise(run: _Run, ended: Exit) -> Exit:
    """A pass says nothing of what people run where diffusers makes another model of an adapter."""
    otherwise = [each.read_otherwise for model in run.models[:1] for each in model.adapters if each.read_otherwise]
    if ended.code != ExitCode.PASS or not otherwise:
        return ended
    said = f"{ended.reason}; not measured: {otherwise[0]}"
    return Exit.of(ExitCode.INCONCLUSIVE, f"{said}; merge it with the tool that you use, and verify the result")


def _coverage(run: _Run) -> Coverage:
    untested_ones = {a.trigger: a.rate.reason for a in run.attacks if isinstance(a.rate, NotMeasured)}
    reached = {a.trigger for a in run.attacks}
    untested_ones |= {trigger: "the run was stopped before it" for trigger in run.config.triggers if trigger not in reached}
    not_looked_at = NOT_LOOKED_AT if run.config.triggers else ("attack success: no trigger was given",)
    return Coverage(
        asked=len(run.config.triggers),
        tested=len(set(run.config.triggers)) - len(untested_ones),
        skipped=(*(Skipped(what=f"trigger {t}", reason=r) for t, r in untested_ones.items()), *run.prompts_skipped),
        not_looked_at=(*not_looked_at, *([NOT_DRAWN] if run.hopeless else []), *([NO_QUALITY] if run.no_quality else [])),
        notes=(*(few for few in [wanted(run.config.prompts or default_prompts(), run.config.contexts)] if few), *run.turns.notes),
    )
