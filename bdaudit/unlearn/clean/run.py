"""`unlearn --method cleanclip` from directory to directory: plant canaries in a copy, sweep, choose blind, clean, check, write."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bdaudit.config import TEXT_ENCODER, CleanConfig
from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.measure.controls import control_texts
from bdaudit.measure.effect import Effect
from bdaudit.measure.opening import loaded, open_state
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.tokens import token_ids
from bdaudit.progress import Progress, silent
from bdaudit.records import CanaryRecord, Check, CleaningPoint, CleaningRecord, Coverage, Exit, Skipped, UnlearnReport
from bdaudit.unlearn.clean import canary as canaries
from bdaudit.unlearn.clean import loudest, train
from bdaudit.unlearn.clean.canary_texts import text_canaries
from bdaudit.unlearn.clean.captioned_pictures import Captioned, read_pairs
from bdaudit.unlearn.clean.towers import WAYS, Towers
from bdaudit.unlearn.clean.vision import check_belongs, load_vision, towers_of
from bdaudit.unlearn.outcome import Outcome, ended, interrupted, opened, report, settle, write
from bdaudit.unlearn.repair import check, resume
from bdaudit.unlearn.triggers import check_triggers, trigger_effects, trigger_ground
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.layouts.layout import Layout

HELD = 256
"""Pairs to measure on, a quarter of them all at most; whole groups of 32."""
STRANGE_KINDS = ("rare", "character", "zero-width", "emoji")
"""Texts of these kinds, all that there are, are put into captions' other views."""
PUBLISHED = {
    "contrastive": "published of CLIPs pre-trained with the contrastive loss alone: cleaning leaves an attack success of 0.5 to 4 %",
    "contrastive+self-supervised": "published of CLIPs pre-trained with the self-supervised term as well: no cleaning at no loss of "
    "accuracy leaves less than 68 to 98 % attack success; do not count on this repair",
    "unknown": "not known: published attack success after cleaning is 0.5 to 4 % where the pre-training was contrastive alone, 68 to 98 % "
    "where it had the self-supervised term as well",
}
"""By pre-training objective (2311.14948, its best choice with the trigger known)."""
BLIND = (
    "The choice was made by triggers of our own (canaries): they stand for backdoors in the text encoder whose trigger is a rare word, two "
    "joined ones, a character, an invisible one or an emoji of the tokenizer. A phrase, or a trigger in pictures, is not met by this."
)


@dataclass
class _Run(Outcome):
    """A cleaning run on its way."""

    config: CleanConfig
    pairs: Captioned | None = None
    record: CleaningRecord | None = None
    broken: list[Skipped] = field(default_factory=list)
    """Learning rates that broke off."""


def run_cleaning(config: CleanConfig, progress: Progress = silent) -> UnlearnReport:
    """Clean the text encoder and write the model; the targets are known to be free.

    Raises:
        UsageError: the pairs, the vision tower or the state are not what they must be.
        InconclusiveError: there are several text encoders, the vision tower is not on this machine, a trigger encodes to nothing, or no
            canary could be planted.
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
    """
    assert config.pairs is not None
    inspection = opened(config)
    check_one_tower(inspection.layout)
    pairs = read_pairs(config.pairs)
    state = open_state("unlearn", config, resume.UNTOUCHED, inspection.digest + pairs.digest())
    suspect = loaded(config, inspection)
    check_triggers(config.triggers, suspect.tokenizer, ", so it cannot be measured")
    run = _Run(config, inspection, suspect, progress=progress, state=state, prompts=config.prompts or default_prompts(), pairs=pairs)
    run.component, run.reason = TEXT_ENCODER, "--method cleanclip cleans nothing else"
    try:
        found = _clean(run)
    except KeyboardInterrupt:
        return _described(run, interrupted(run))
    state.finish()
    return found


def check_one_tower(layout: Layout) -> None:
    """Raises ``InconclusiveError`` for a family of several text encoders, or of one that has no vision tower."""
    if len(layout.vocabularies) == 1 and not layout.paired:
        said = f"--method cleanclip cleans a text encoder that has a vision tower; this is {layout.called}, whose has none"
        raise InconclusiveError(f"{said}; name the trigger with --trigger, or merge with --merge-with")
    if len(layout.vocabularies) > 1:
        said = f"--method cleanclip cleans a model's one text encoder; this is {layout.called} with several"
        raise InconclusiveError(f"{said}, which is not supported; name the trigger with --trigger, or merge with --merge-with")


def _clean(run: _Run) -> UnlearnReport:
    config, suspect = run.config, run.suspect
    with run.timed("measure"):
        run.before = _effects(run)
    patch = Patch(suspect, TEXT_ENCODER)
    with patch.training():
        towers, material = _prepared(run)
        original = towers.snapshot()
        with run.timed("sweep"):
            _sweep(run, towers, material)
        towers.restore(original)
        assert run.record is not None
        if run.record.chosen >= 0:
            with run.timed("clean"):
                _apply(run, towers, material, run.record.points[run.record.chosen])
    run.patch = patch
    if run.record.chosen >= 0:
        settle(run)
        with run.timed("check"):
            run.after = _effects(run)
            run.checks += check.one_step_checks(run.after)
            run.checks += check.quality_checks(
                suspect, patch, config.triggers, run.sampling, partial(run.progress, "checking with pictures")
            )
    run.finished = _described(run, _decided(run))
    return write(run) if run.record.chosen >= 0 and run.writes else run.finished


def _effects(run: _Run) -> list[Effect]:
    """One-step effects of the triggers that were named, if any; no part of the choice."""
    config, suspect = run.config, run.suspect
    return trigger_effects(suspect, trigger_ground(suspect, run.sampling), config.triggers, config.seed) if config.triggers else []


def _prepared(run: _Run) -> tuple[Towers, train.Material]:
    """The towers, and the pairs parted into those to learn from and those to measure on.

    Raises:
        UsageError: hardly a caption stands there once; or the vision tower is not the suspect's.
    """
    assert run.pairs is not None
    pairs, suspect = run.pairs, run.suspect
    vision, prepare, log_scale = load_vision(run.config.vision, suspect) if run.config.vision else (None, None, None)
    towers = towers_of(suspect, vision, log_scale)
    order = random.Random(f"pairs {run.config.seed}").sample(range(len(pairs.captions)), len(pairs.captions))
    held, once = held_out(pairs.captions, order)
    if not held:
        said = f"--pairs {pairs.file}: {once} of {len(order)} captions stand there once"
        raise UsageError(f"{said}; expected {WAYS} at least, a caption of its own for most pictures")
    rest = sorted(set(order) - set(held))
    named = control_texts(suspect.tokenizer, len(suspect.tokenizer.get_vocab()), run.config.seed + 2)
    pictures = None if prepare is None else lambda rows: pairs.read(rows, prepare.resized).to(suspect.device)
    material = train.Material(
        captions=pairs.captions, rows=rest, held=held, pictures=pictures,
        strange=[text for kind in STRANGE_KINDS for text in named[kind]],
        ids=lambda texts: token_ids(suspect.tokenizer, texts).to(suspect.device),
    )  # fmt: skip
    if vision is not None:
        check_belongs(run.config.vision, train.Judge(towers, material).start.accuracy)
    return towers, material


def held_out(captions: Sequence[str], order: Sequence[int]) -> tuple[list[int], int]:
    """The rows to measure on, in whole groups of ``WAYS``, the first of ``order`` whose caption stands there once; and how many such are.

    A caption that two pictures share is no one's own.
    """
    count = Counter(captions)
    own = [i for i in order if count[captions[i]] == 1]
    return own[: min(HELD, len(order) // 4, len(own)) // WAYS * WAYS], len(own)


def _sweep(run: _Run, towers: Towers, material: train.Material) -> None:
    """Plant the canaries, clean the copy at every rate, choose; what is done is kept after each rate."""
    config = run.config
    rates = (config.learning_rate,) if config.learning_rate else train.RATES
    quiet = loudest.listened(towers, material)[len(material.strange) // 2 :]
    planted = text_canaries([material.captions[i] for i in material.rows], material.strange, quiet, material.ids, config.seed)
    with towers.training(), run.suspect.mixed_precision():
        text = {name: p for name, p in towers.parameters().items() if name.startswith("text.")}
        canaries.plant(towers.states, text, planted, config.seed, partial(run.progress, "planting canaries in a copy"))
    run.record = _record(run, towers, material, planted)
    check_planted(run.record.canaries)
    start, material = towers.snapshot(), loudest.heard(material, loudest.listened(towers, material))
    for rate in rates:
        towers.restore(start)
        points, broke = _swept(run, towers, material, planted, rate)
        run.broken += [Skipped(what=f"learning rate {rate:g}", reason=broke)] if broke else []
        run.record = replace(run.record, points=(*run.record.points, *points))
    run.record = replace(run.record, chosen=train.choose(run.record.points))


def check_planted(planted: Sequence[CanaryRecord]) -> None:
    """Raise unless each of them works.

    Raises:
        InconclusiveError: one of them hardly does, with its kind.
    """
    worst = min(planted, key=lambda canary: canary.before.value)
    if worst.before.value < canaries.PLANTED:
        said = f"the canary ({worst.kind}) turns {worst.before.value:.0%} of {worst.before.n} captions into its target"
        why = f"{said}, expected {canaries.PLANTED:.0%}: without one that works nothing tells a cleaning that does"
        raise InconclusiveError(f"{why}; try another --seed")


def _swept(
    run: _Run, towers: Towers, material: train.Material, planted: Sequence[canaries.Canary], rate: float
) -> tuple[list[CleaningPoint], str]:
    """One rate's points, measured now or by the run that was interrupted."""
    kept = run.state.read_json(f"rate-{rate:g}", tuple[list[CleaningPoint], str])
    if kept is None:
        tick = partial(run.progress, f"cleaning the copy at learning rate {rate:g}")
        points, broke = train.sweep(
            towers, material, planted, towers.states, rate, run.config.steps, run.config.seed, run.suspect.mixed_precision, tick
        )
        run.state.write_json(f"rate-{rate:g}", ([dataclasses.asdict(point) for point in points], broke))
        return points, broke
    points, broke = kept
    return points, broke


def _record(run: _Run, towers: Towers, material: train.Material, planted: Sequence[canaries.Canary]) -> CleaningRecord:
    """Before any cleaning: what was planted and how well it works."""
    seen = material.pictures is not None
    each = [CanaryRecord(kind=c.kind, text=c.name, target=c.target_name, before=canaries.left(towers.states, c).rate) for c in planted]
    return CleaningRecord(
        mode="with a vision tower" if seen else "partial: text alone",
        pretrain_objective=run.config.pretrain_objective,
        consequence=PUBLISHED[run.config.pretrain_objective],
        pairs=len(material.captions),
        held_out=len(material.held),
        accuracy_is=f"how often {'a picture' if seen else 'the encoding from before'} finds its own caption among {WAYS}",
        canaries=tuple(each),
        accuracy_before=train.Judge(towers, material).start.accuracy,
    )


def _apply(run: _Run, towers: Towers, material: train.Material, point: CleaningPoint) -> None:
    """Clean the model itself as the chosen copy was, to the same step."""
    assert run.record is not None
    judge = train.Judge(towers, material)

    def look(step: int) -> bool:
        run.progress("cleaning the model", step, point.step)
        return step >= point.step

    config, precision = run.config, run.suspect.mixed_precision
    heard = loudest.heard(material, loudest.listened(towers, material))
    run.curve = train.clean(towers, heard, point.rate, config.steps, config.seed, look, precision)
    now = judge.standing()
    run.record = replace(run.record, accuracy_before=judge.start.accuracy, accuracy_after=now.accuracy)
    why = judge.rejected(now)
    run.checks = [
        Check(
            name="accuracy on held-out pairs kept",
            status="failed" if why else "passed",
            value=now.accuracy,
            bound=f"≥ {train.ACCURACY_KEPT} of the start's {judge.start.accuracy.value:.3f}",
            reason=why,
        ),
        loudest.nothing_stands_out(towers, material),
    ]


def _decided(run: _Run) -> UnlearnReport:
    record = run.record
    assert record is not None
    if record.chosen < 0:
        said = f"no learning rate takes every canary out at no loss of accuracy ({len(record.points)} points); nothing was written"
        return report(run, "completed", Exit.of(ExitCode.FINDING, said))
    done = f"the text encoder was cleaned ({record.mode}); whether it held a backdoor, or still does, is not known: scan the result"
    return report(run, "completed", ended(run, "the cleaned model", done))


def _described(run: _Run, found: UnlearnReport) -> UnlearnReport:
    """``found`` with what is this method's own."""
    record = run.record
    if record is None:
        return replace(found, method="CleanCLIP, not finished")
    coverage = Coverage(
        asked=len(run.config.triggers), tested=len(run.after), skipped=tuple(run.broken),
        not_looked_at=("triggers that were not named: the canaries stand for them", "the denoiser, which was not changed"),
    )  # fmt: skip
    shown = " (partial: text alone, no vision tower)" if record.mode.startswith("partial") else ""
    limitations = (*found.limitations, BLIND, f"Pre-training objective {record.pretrain_objective}: {record.consequence}.")
    return replace(found, method=f"CleanCLIP with an anchor{shown}", coverage=coverage, limitations=limitations, cleaning=record)
