"""`unlearn --trigger` from directory to directory: measure, decide what to repair, solve or train, check, write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bdaudit.config import DENOISER, TEXT_ENCODER, RepairConfig
from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.measure.context_prompts import with_context
from bdaudit.measure.draws import covering, heard_plain
from bdaudit.measure.effect import Effect, Ground, again
from bdaudit.measure.opening import loaded, open_state
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.lora import merge, read_adapters
from bdaudit.progress import Progress, silent
from bdaudit.records import Attempt, UnlearnReport
from bdaudit.unlearn.from_report import check_adapters, triggers_of
from bdaudit.unlearn.loop import Checkpoint, Course
from bdaudit.unlearn.outcome import Outcome, decided, interrupted, opened, settle, write
from bdaudit.unlearn.repair import check, closed_form, resume, train_denoiser, train_text_encoder
from bdaudit.unlearn.repair.contexts import find_contexts
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, triggered_pairs
from bdaudit.unlearn.repair.trajectories import collect
from bdaudit.unlearn.repair.workers import CheckWorkers
from bdaudit.unlearn.triggers import bound_ground, check_triggers, trigger_effects, trigger_ground
from bdaudit.unlearn.weights import CLOSED_FORM, Patch
from bdaudit.untrusted.inspect import Inspection

log = logging.getLogger(__name__)

CHECK_EVERY = 100
CLEAR = 3.0
"""How many times their limit a trigger's effects must be, or a context is looked for."""
STATES_MOVE = 1.5
"""How far beyond the harmless texts' 95th percentile a trigger must move the hidden states to be called encoder-resident."""


@dataclass
class _Run(Outcome):
    """A run on its way: what it has so far, and what it works with."""

    config: RepairConfig
    ground: Ground | None = None
    workers: CheckWorkers = field(init=False)

    @property
    def of_readers(self) -> bool:
        """Whether what reads a prompt is repaired, all of it or one part by its name."""
        return self.component != self.suspect.denoiser.name

    def __post_init__(self) -> None:
        self.workers = CheckWorkers(self.config, self.inspection, self.suspect, self.adapters, self.state)


@dataclass
class _Material:
    """What a repair draws from."""

    pairs: list[Pair]
    neighbours: list[Pair]
    denoiser: train_denoiser.Material | None = None
    """What the denoiser's training draws from besides; None before the first such training."""


def run_repair(config: RepairConfig, progress: Progress = silent) -> UnlearnReport:
    """Remove the triggers from the model and write the repaired one; the targets are known to be free.

    Raises:
        UsageError: the state or the report is of another model, or none at all.
        InconclusiveError: a trigger encodes to nothing, or none does more than harmless texts; nothing is written.
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
    """
    run = _opened(config, opened(config), progress)
    try:
        found = _unlearn(run)
    except KeyboardInterrupt:
        return interrupted(run)
    except InconclusiveError:
        run.state.finish()
        raise
    finally:
        run.workers.close()
    run.state.finish()
    return found


def _opened(config: RepairConfig, inspection: Inspection, progress: Progress) -> _Run:
    """The weights with the adapters merged in, the triggers of the command line and the report, and what was kept of such a run."""
    if config.from_report:
        found = triggers_of(config.from_report, inspection.digest)
        config = replace(config, triggers=tuple(dict.fromkeys((*config.triggers, *found))))
    suspect = loaded(config, inspection)
    adapters = read_adapters(config.adapters, suspect)
    if config.from_report:
        check_adapters(config.from_report, adapters)
    state = open_state("unlearn", config, resume.UNTOUCHED, inspection.digest, adapters)
    merge(suspect, adapters)
    check_triggers(config.triggers, suspect.tokenizer, ", so there is nothing to unlearn")
    prompts = config.prompts or default_prompts()
    return _Run(config, inspection, suspect, progress=progress, state=state, prompts=prompts, adapters=adapters)


def _unlearn(run: _Run) -> UnlearnReport:
    config = run.config
    with run.timed("measure"):
        _measure(run)
        run.component, run.reason = _decide(config, run.before, run.suspect.denoiser.name, () if config.contexts else run.contexts)
    material = _material(run)
    sets = _trainable_sets(run)
    kept = resume.kept_training(run.state, sets, config.steps, lambda trainable: Patch(run.suspect, trainable).originals)
    if kept:
        run.attempts, run.suspect.batch_size = list(kept.attempts), kept.batch_size
    for trainable in sets[len(run.attempts) :]:
        _repair(run, trainable, material, kept.checkpoint if kept and kept.trainable == trainable else None)
        _check(run, trainable, last=trainable == sets[-1])
        if not (run.failed or run.undecided):
            break
    run.finished = decided(run)
    return write(run) if run.writes else run.finished


def _measure(run: _Run) -> None:
    """What the triggers do; in the contexts that were named, or that are found where a trigger does little."""
    config, suspect = run.config, run.suspect
    log.info("measuring what %s, beside harmless texts", "the trigger does" if len(config.triggers) == 1 else "the triggers do")

    def effects() -> list[Effect]:
        assert run.ground is not None
        return trigger_effects(suspect, run.ground, config.triggers, config.seed)

    if not config.contexts:
        run.ground = trigger_ground(suspect, run.sampling)
        run.before = resume.effects(run.state, effects)
        run.contexts = resume.contexts(run.state, partial(_looked_for, run))
    else:
        run.contexts = config.contexts
    if run.contexts:
        run.having = with_context(run.prompts, run.contexts, config.seed)
        run.ground = bound_ground(suspect, run.sampling, run.having, run.contexts)
        run.before = resume.effects(run.state, effects, "before-in-context")


def _looked_for(run: _Run) -> tuple[str, ...]:
    """The contexts of all triggers that do nothing, or little: what one does in a few prompts may lie in its mean over all."""
    found: dict[str, None] = {}
    for effect in run.before:
        if effect.within(CLEAR):
            run.progress("looking for a context", 0, 1)
            found |= dict.fromkeys(find_contexts(run.suspect, run.prompts, effect.text, run.config.seed).words)
            run.progress("looking for a context", 1, 1)
    return tuple(found)


def _effects_now(run: _Run) -> list[Effect]:
    """Of the triggers alone: what harmless texts did before is what they must not exceed."""
    assert run.ground is not None
    return again(run.suspect, _refreshed(run, run.ground), run.before)


def _refreshed(run: _Run, ground: Ground) -> Ground:
    """The draws' hidden states are the text encoder's of before."""
    if not run.of_readers:
        return ground
    draws = ground.draws
    return replace(ground, draws=replace(draws, heard=heard_plain(run.suspect, draws.prompts, draws.places)))


def _decide(config: RepairConfig, effects: Sequence[Effect], denoiser: str, found_in: Sequence[str] = ()) -> tuple[str, str]:
    """Which component carries it, and why; refuses to repair what is not broken. A context that was found is an effect by itself."""
    if all(e.within() for e in effects) and not (config.force or found_in):
        raise InconclusiveError(_nothing(config, effects))
    if config.component != "auto":
        return denoiser if config.component in (DENOISER, denoiser) else config.component, "named by --component"
    if config.trainable != "auto":
        return denoiser, "implied by --trainable"
    strongest = max([e for e in effects if not e.within()] or effects, key=lambda e: e.states.value / e.states.limit)
    ratio = strongest.states.value / strongest.states.limit
    said = f"{strongest.text!a} moves the other words' hidden states {ratio:.2f} times as far as harmless texts' 95th percentile"
    if ratio > STATES_MOVE:
        return TEXT_ENCODER, f"{said}: the text encoding is already wrong"
    return denoiser, f"{said}: the text encoding is in order, the denoiser answers it wrongly"


def _nothing(config: RepairConfig, effects: Sequence[Effect]) -> str:
    """Why there is nothing to repair, and what can be done about it."""
    shown = "; ".join(
        f"{e.text!a} moves the prediction {e.shift.value:.3g} ({e.common.value:.3g} alike in all prompts), "
        f"harmless texts up to {e.shift.limit:.3g} ({e.common.limit:.3g})"
        for e in effects
    )
    where = f"with {' or '.join(map(ascii, config.contexts))}" if config.contexts else "with any word that several of these prompts share"
    needs = (
        "if it needs other prompts, give them with --prompts FILE, or name what they say with --context TEXT; --force repairs all the same"
    )
    return f"found no effect to remove, nor one bound to prompts {where}: {shown}; {needs}; nothing was written"


def _trainable_sets(run: _Run) -> tuple[str, ...]:
    """What is repaired, the smallest and quickest first; the next only if the one before does not pass."""
    if run.of_readers:
        return (run.component,)
    trained = tuple(run.suspect.denoiser.trainable)
    sets = trained if run.config.method == "skd-cag" else (CLOSED_FORM, *trained)
    asked = sets[-1] if run.config.trainable == DENOISER else run.config.trainable
    if asked not in ("auto", *sets):
        raise UsageError(f"--trainable {asked}: this model's denoiser has the sets {', '.join(sets)}; choose one of them, or auto")
    return sets if asked == "auto" else (asked,)


def _material(run: _Run) -> _Material:
    """Half of the prompts with the contexts, where there are any; elsewhere the trigger is to do no more than before."""
    n, seed = run.config.n_prompts, run.config.seed
    inside = covering(run.having, min(len(run.having), max(1, n // 2)), seed) if run.having else []
    chosen = list(dict.fromkeys((*inside, *run.prompts)))[:n]
    pairs = triggered_pairs(chosen, run.config.triggers)
    return _Material(pairs, neighbour_pairs(chosen, {effect.text: effect.quiet() for effect in run.before}, seed))


def _repair(run: _Run, trainable: str, material: _Material, checkpoint: Checkpoint | None) -> None:
    """Repair one set from the original weights; the effects afterwards stay in ``run.after``."""
    if run.patch is not None:
        run.patch.revert()
    suspect = run.suspect
    run.patch = Patch(suspect, trainable)
    run.settled = None
    run.after, run.checks, run.resumed_at = [], [], len(checkpoint.curve) if checkpoint else 0
    if trainable == "closed-form":
        _solve(run, run.patch, material)
    else:
        _train(run, run.patch, trainable, material, checkpoint)
    settle(run)
    with run.timed("measure"):
        run.after = _effects_now(run)


def _solve(run: _Run, patch: Patch, material: _Material) -> None:
    run.progress("keys and values in closed form", 0, 1)
    with run.timed("closed form"):
        run.strength = closed_form.solve(
            run.suspect, patch, material.pairs, material.neighbours, lambda: max(e.shift.value for e in _effects_now(run))
        )
    run.progress("keys and values in closed form", 1, 1)


def _train(run: _Run, patch: Patch, trainable: str, material: _Material, checkpoint: Checkpoint | None) -> None:
    course = _course(run, trainable, checkpoint)
    if run.of_readers:
        with run.timed("train"), patch.training():
            run.curve = train_text_encoder.train(run.suspect, patch, material.pairs, material.neighbours, course)
        return
    material.denoiser = material.denoiser or _trajectories(run, material)
    with run.timed("train"), patch.training():
        run.curve = train_denoiser.train(run.suspect, patch, material.denoiser, run.config.attention_weight, course)


def _trajectories(run: _Run, material: _Material) -> train_denoiser.Material:
    """Made once, under the original weights, and shared by every set that is trained."""
    suspect, config = run.suspect, run.config
    with run.timed("trajectories"):
        run.progress("trajectories", 0, 1)
        latents = resume.latents(
            run.state,
            suspect.device,
            len(material.pairs),
            lambda: collect(suspect, material.pairs, guidance_scale=config.guidance, seed=config.seed),
        )
        found = train_denoiser.prepare(suspect, latents, material.pairs, material.neighbours)
        run.progress("trajectories", 1, 1)
    return found


def _course(run: _Run, trainable: str, checkpoint: Checkpoint | None) -> Course:
    config = run.config

    def tick(step: int, note: str) -> None:
        run.progress(f"unlearning ({trainable}) {note}", step, config.steps)

    def should_stop(step: int) -> bool:
        if step % CHECK_EVERY or step < 2 * CHECK_EVERY:
            return False
        with run.suspect.mixed_precision():
            return all(e.within(0.8) for e in _effects_now(run))

    def save(found: Checkpoint) -> None:
        resume.keep_training(run.state, resume.Training(trainable, found, run.attempts, run.suspect.batch_size))

    return Course(
        steps=config.steps, seed=config.seed, rate=config.learning_rate, resume=checkpoint, should_stop=should_stop, tick=tick, save=save
    )


def _inside(run: _Run) -> check.Inside | None:
    return check.Inside(run.having, f"under prompts with {' or '.join(map(ascii, run.contexts))}") if run.having else None


def _check(run: _Run, trainable: str, *, last: bool) -> None:
    """One-step effects; and pictures, unless those effects already say that a wider set is needed."""
    assert run.patch is not None
    run.checks = check.one_step_checks(run.after)
    if last or not run.failed:
        with run.timed("check"), run.workers.drawing(run.patch) as draw:
            tick = partial(run.progress, f"checking with pictures ({trainable})")
            run.checks += check.picture_checks(run.suspect, run.patch, run.config.triggers, run.sampling, tick, _inside(run), draw)
        run.lost = run.workers.notes
    open_ones = [f"{said}: {', '.join(names)}" for said, names in (("failed", run.failed), ("undecided", run.undecided)) if names]
    outcome = "; ".join(open_ones) or "passed its check"
    run.attempts.append(Attempt(trainable=trainable, steps=len(run.curve), outcome=outcome))
