"""From a config to a report: plan the pictures, draw each once, look at them, hold the figures against the bounds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from bdaudit.config import VerifyConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.envelope import envelope
from bdaudit.measure.picture_file import read_picture
from bdaudit.measure.prompts import default_prompts
from bdaudit.pipeline.device import choose_device
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import Tokenizer, content_ids
from bdaudit.progress import Progress, silent, timed
from bdaudit.report.records import AttackRecord, Coverage, Exit, Metric, NotMeasured, Skipped, VerifyReport
from bdaudit.verify import pictures
from bdaudit.verify.again import keep
from bdaudit.verify.attack import PairedRule, PictureRule, Rule, TextRule, distances_space, measure_attack, untested
from bdaudit.verify.checks import all_checks, decide
from bdaudit.verify.evidence import looked_at, write_evidence
from bdaudit.verify.gallery import Gallery, Pair, Shot
from bdaudit.verify.grader import Extractor, Grader, load_grader
from bdaudit.verify.inception import load_inception
from bdaudit.verify.metrics import Sets, measure_metrics
from bdaudit.verify.model import Model
from bdaudit.verify.plan import Trial, draw_shots, plan_trial
from bdaudit.verify.reach import Form, plan_forms, with_reach
from bdaudit.verify.state import open_state

LIMITATIONS = (
    "The attack success rate holds for these prompts and positions of the trigger, and by the rule beside it; others give others.",
    "Intervals are for pictures of prompts drawn at random from the list; they say nothing of prompts that are not on it.",
)
PAIRED_LIMITATION = "With no target given, a backdoor that changes pictures no more than harmless words do is not seen; name the target."
NO_REFERENCE = "no reference model was given; say --reference MODEL"
NOT_DRAWN = "the model's pictures: none was drawn, because all that was asked for needs a grader"
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
    galleries: list[Gallery] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """Of the models that were opened, the audited one first."""

    hopeless: bool = False
    """Whether nothing was drawn because nothing could have been measured on it."""

    def pictures(self) -> dict[str, int]:
        """How many were drawn, taken from the state directory, and damaged there."""
        return {what: sum(getattr(gallery, what) for gallery in self.galleries) for what in ("drawn", "reused", "damaged")}

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a block, finished or not."""
        return timed(self.timings, name)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is drawn, and what looks at it."""

    grader: Grader | NotMeasured
    extractor: Extractor | NotMeasured
    trials: dict[str, tuple[Trial, Rule] | NotMeasured]
    """Trigger → its pictures and what counts as a hit on them, or why it cannot be tested."""
    forms: dict[str, tuple[Form, ...]]
    """Trigger → the pictures that tell how far it reaches."""
    shots: tuple[Shot, ...]
    other: tuple[Shot, ...]
    real: Tensor | NotMeasured | None

    def usable(self) -> list[Trial]:
        """Trials of the triggers that can be tested."""
        return [found[0] for found in self.trials.values() if not isinstance(found, NotMeasured)]

    def hopeless(self, config: VerifyConfig) -> bool:
        """Whether no picture would give a figure, for want of a grader; pairs of pictures always give one."""
        return isinstance(self.grader, NotMeasured) and config.reference is None and not self.usable() and not isinstance(self.real, Tensor)

    def audited_shots(self) -> list[Shot]:
        """What the audited model draws."""
        reach = (shot for forms in self.forms.values() for form in forms for shot in (*form.clean, *form.changed, *form.floor))
        return [*self.shots, *(shot for trial in self.usable() for shot in trial.shots()), *reach]

    def pairs(self, config: VerifyConfig) -> list[Pair]:
        """The pairs whose attention is recorded; none where no pictures are wanted."""
        return [] if config.save_images is None else [pair for trial in self.usable() for pair in looked_at(trial)]

    def reference_shots(self) -> list[Shot]:
        """What the reference draws: the same prompts, others for its own spread, and the trials without null and floor."""
        return [*self.shots, *self.other, *(shot for trial in self.usable() for shot in (*trial.clean, *trial.triggered))]


def run_verify(config: VerifyConfig, progress: Progress = silent) -> VerifyReport:
    """Measure ``config.model``: attack success of each trigger, quality, checks.

    Ctrl-C gives the report of what was measured until then, with exit 130.

    Raises:
        BdauditError: the model, the reference, the grader or a named file cannot be used; see ``bdaudit.errors``.
    """
    run = _Run(config, progress, envelope("verify", config))
    try:
        _audit(run)
    except KeyboardInterrupt:
        return _report(run, "interrupted")
    report = _report(run, "completed")
    keep(config, report, run.digests)
    return report


def _audit(run: _Run) -> None:
    config = run.config
    target = None if config.target_image is None else read_picture(config.target_image, "--target-image")
    if config.real_images is not None:
        pictures.picture_files(config.real_images)  # a wrong folder is told before any work is done
    state = None if config.state is None else open_state(config.state)
    with run.stage("load"):
        device = choose_device(config.device)
        grader, inception = load_grader(config.clip, device), load_inception(device)
        model = Model(config, config.model, config.variant)
    run.shared = _envelope(config, model)
    with run.stage("plan"):
        extractor = grader if isinstance(inception, NotMeasured) else inception
        plan = _plan(config, model.tokenizer, _rule(config, target, grader), grader, extractor)
    if plan.hopeless(config):
        run.hopeless = True
        _measure(run, plan, model.gallery(plan.grader, None), NotMeasured(reason=NO_REFERENCE), None)
        return
    ours = _draw(run, model, plan, plan.audited_shots(), state, "pictures")
    run.shared = _envelope(config, model)  # the batch size may have shrunk
    if config.reference is None:
        _look(run, plan, ours, NotMeasured(reason=NO_REFERENCE), None)
        return
    _look(run, plan, ours, NotMeasured(reason="the run was stopped before the reference model's pictures were drawn"), None)
    with run.stage("load"):
        other = Model(config, config.reference)
    theirs = _draw(run, other, plan, plan.reference_shots(), state, "reference pictures")
    _look(run, plan, ours, theirs, other.tokenizer)


def _envelope(config: VerifyConfig, model: Model) -> dict[str, Any]:
    # A suspect is asked for its device, type and batch size alone, and a model has those before its weights are loaded.
    return envelope("verify", config, model.inspection, cast(Suspect, model))


def _draw(run: _Run, model: Model, plan: _Plan, shots: list[Shot], state: Path | None, stage: str) -> Gallery:
    """The gallery of ``shots``; the weights are loaded only where one of them was not kept."""
    gallery = model.gallery(plan.grader, state)
    run.galleries.append(gallery)
    run.digests.append(model.inspection.digest)
    with run.stage(stage):
        missing, unseen = gallery.recall(shots), gallery.recall_maps(plan.pairs(run.config))
    if missing or unseen:
        with run.stage("load"):
            suspect = model.load()
        with run.stage(stage):
            model.draw(suspect, gallery, missing, partial(run.progress, stage))
            if unseen:
                model.look(suspect, gallery, unseen)
    return gallery


# --- what to draw -----------------------------------------------------------------------------


def _rule(config: VerifyConfig, target: Tensor | None, grader: Grader | NotMeasured) -> Rule | NotMeasured:
    """The sharpest rule that what is known of the target allows."""
    if target is not None:
        return PictureRule(target, config.target_at)
    if not config.target_text and not config.swaps:
        return PairedRule(distances_space(grader))
    return grader if isinstance(grader, NotMeasured) else TextRule(grader, config.target_text, config.swaps)


def _plan(
    config: VerifyConfig, tokenizer: Tokenizer, rule: Rule | NotMeasured, grader: Grader | NotMeasured, extractor: Extractor | NotMeasured
) -> _Plan:
    prompts = config.prompts or default_prompts()
    trials = {trigger: _trial(config, tokenizer, rule, trigger, prompts) for trigger in config.triggers}
    tested = {trigger: found[0] for trigger, found in trials.items() if not isinstance(found, NotMeasured)}
    return _Plan(
        grader=grader,
        extractor=extractor,
        trials=trials,
        forms={trigger: plan_forms(tokenizer, trial, config.reach, config.triggers) for trigger, trial in tested.items()},
        shots=draw_shots(prompts, config.n, config.seed),
        other=draw_shots(prompts, config.n, config.seed, "other"),
        real=_real(config, extractor),
    )


def _trial(
    config: VerifyConfig, tokenizer: Tokenizer, rule: Rule | NotMeasured, trigger: str, prompts: tuple[str, ...]
) -> tuple[Trial, Rule] | NotMeasured:
    if isinstance(rule, NotMeasured):
        return rule
    trial = plan_trial(
        tokenizer, trigger, prompts, config.n, config.seed, rule.skip,
        null=rule.needs_null, positions=config.positions, exclude=config.triggers,
    )  # fmt: skip
    return trial if isinstance(trial, NotMeasured) else (trial, rule)


def _real(config: VerifyConfig, extractor: Extractor | NotMeasured) -> Tensor | NotMeasured | None:
    """Features of the real pictures; None where none were given."""
    if config.real_images is None:
        return None
    if isinstance(extractor, NotMeasured):
        return extractor
    return pictures.folder_features(pictures.picture_files(config.real_images), extractor)


# --- looking at it ----------------------------------------------------------------------------


def _look(run: _Run, plan: _Plan, model: Gallery, reference: Gallery | NotMeasured, tokenizer: Tokenizer | None) -> None:
    """Measure what both galleries hold, and write some of it."""
    _measure(run, plan, model, reference, tokenizer)
    if run.config.save_images is not None:
        with run.stage("evidence"):
            run.images = write_evidence(run.config.save_images, plan.usable(), plan.shots, model, reference)


def _measure(run: _Run, plan: _Plan, model: Gallery, reference: Gallery | NotMeasured, tokenizer: Tokenizer | None) -> None:
    """What both galleries hold, over what was measured before; ``tokenizer`` is the reference's."""
    with run.stage("attack success"):
        run.attacks = tuple(_attack(trigger, plan, model, reference, tokenizer) for trigger in plan.trials)
        run.prompts_skipped = tuple(
            Skipped(what=f"{count} prompts for the trigger {trial.trigger}", reason=reason)
            for trial in plan.usable()
            for reason, count in trial.skipped.items()
        )
    with run.stage("quality"):
        sets = Sets(model=model, reference=reference, shots=plan.shots, other=plan.other, real=plan.real)
        run.metrics = measure_metrics(sets, plan.grader, plan.extractor, run.config.seed)


def _attack(trigger: str, plan: _Plan, model: Gallery, reference: Gallery | NotMeasured, tokenizer: Tokenizer | None) -> AttackRecord:
    found = plan.trials[trigger]
    if isinstance(found, NotMeasured):
        return untested(trigger, (), found)
    if tokenizer is not None and not content_ids(tokenizer, trigger):
        reference = NotMeasured(reason="the trigger encodes to nothing with the reference model's tokenizer")
    return with_reach(measure_attack(*found, model, reference), *found, model, plan.forms[trigger])


# --- the report -------------------------------------------------------------------------------


def _report(run: _Run, status: Literal["completed", "interrupted"]) -> VerifyReport:
    checks = all_checks(run.config, run.attacks, run.metrics)
    code = ExitCode.INTERRUPTED
    stopped = Exit(code=int(code), name=code.label, reason="stopped by the user; what was measured is in the report")
    limitations = (*run.shared["limitations"], *LIMITATIONS)
    if run.config.triggers and not (run.config.target_image or run.config.target_text or run.config.swaps):
        limitations = (*limitations, PAIRED_LIMITATION)
    return VerifyReport(
        **{**run.shared, "limitations": limitations},
        status=status,
        exit=decide(checks) if status == "completed" else stopped,
        coverage=_coverage(run),
        timings={name: round(seconds, 3) for name, seconds in run.timings.items()},
        attacks=run.attacks,
        metrics=run.metrics,
        checks=checks,
        images=run.images,
        pictures=run.pictures(),
    )


def _coverage(run: _Run) -> Coverage:
    untested_ones = {a.trigger: a.rate.reason for a in run.attacks if isinstance(a.rate, NotMeasured)}
    reached = {a.trigger for a in run.attacks}
    untested_ones |= {trigger: "the run was stopped before it" for trigger in run.config.triggers if trigger not in reached}
    not_looked_at = NOT_LOOKED_AT if run.config.triggers else ("attack success: no trigger was given",)
    return Coverage(
        asked=len(run.config.triggers),
        tested=len(set(run.config.triggers)) - len(untested_ones),
        skipped=(*(Skipped(what=f"trigger {t}", reason=r) for t, r in untested_ones.items()), *run.prompts_skipped),
        not_looked_at=(*not_looked_at, *([NOT_DRAWN] if run.hopeless else [])),
    )
