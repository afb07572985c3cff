"""What a dry run says: what would be loaded, run and written, and about how much work it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Group
from rich.text import Text

from bdaudit.config import ApplyConfig, CleanConfig, MergeConfig, RepairConfig, RunConfig, ScanConfig, VerifyConfig
from bdaudit.config.effort import EFFORTS, Spent
from bdaudit.config.run import SharedConfig
from bdaudit.records import NotMeasured, UnderstoodText
from bdaudit.report.safe import visible

PASS = "denoiser forward passes of one latent"
EXPOSED_STEPS = 300
"""Of both parts, where neither reaches its stop."""
CONTROLS, CLEAN_STEPS = 120, 8
"""A scan's harmless texts, and the guided steps of each draw's clean trajectory."""
FURTHER, FOLLOWED = 64, 48
"""Of these, those that are measured further and those that are followed along paths, about."""
ALIKE, USUAL = 2, 3
"""Draws in which such a text did most, and harmless texts on further ones like each."""
TRAJECTORY = 20
"""Guided steps of a clean trajectory; two passes each."""
CHECK_ONCE, CHECK_EACH = 850, 1_350
"""Passes of `unlearn`'s check where its first pictures decide: draws and pictures without a trigger; and for each trigger, 26 texts before,
itself afterwards, and pictures with it and with harmless texts."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A dry run's answer; its ``status`` keeps it from being read as a report."""

    command: str
    loaded: tuple[str, ...]
    """Pipeline, digest, and each file that would be opened, with its size."""
    left_alone: tuple[str, ...]
    """What lies in the directory and would not be opened."""
    run: tuple[str, ...]
    """What would be computed."""
    written: tuple[str, ...]
    """Every path that would be written."""
    cost: str
    """About how much work, in words and figures."""
    config: dict[str, Any]
    not_measured: tuple[str, ...] = ()
    """What the machine lacks, and what is not measured for it."""
    understood: tuple[UnderstoodText, ...] = ()
    """The triggers and suspicious prompts; told on stderr."""
    status: str = "dry run"


def lines(plan: Plan) -> Group:
    """The plan for a terminal."""
    shown = [Text(f"dry run of bdaudit {plan.command}: no weights were loaded, nothing was run or written")]
    for field in fields(plan):
        value = getattr(plan, field.name)
        if isinstance(value, tuple) and field.name not in ("not_measured", "understood"):
            shown += [Text(f"would be {field.name.replace('_', ' ')}: {visible(item)}") for item in value or ("nothing",)]
    shown += [Text(f"warning: {visible(item)}", style="yellow") for item in plan.not_measured]
    return Group(*shown, Text(f"cost: {plan.cost}"))


Work = tuple[tuple[str, ...], str]
"""What a run computes, in words, and a rough count of forward passes: a guided step is two."""


def work(config: RunConfig) -> Work:
    """What a run of ``config`` is to do."""
    return _WORK[type(config)](config)


def passes(config: RunConfig) -> int:
    """About how many passes of one latent a run takes at the least; 0 where nothing is passed, or nobody can say."""
    if isinstance(config, ScanConfig):
        spent = EFFORTS[config.effort]
        return _fixed(spent) + spent.first * len(config.candidates)
    if isinstance(config, RepairConfig):
        return CHECK_ONCE + CHECK_EACH * max(1, len(config.triggers))
    if isinstance(config, MergeConfig):
        return _merge_passes(config)
    return 2 * config.steps * pictures(config) if isinstance(config, VerifyConfig) else 0


def duration(seconds: float) -> str:
    """``45 seconds``, ``12 minutes``, ``3.5 hours``."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def timed(config: RunConfig, each: float | NotMeasured) -> str:
    """How long a run of ``config`` takes at the least, where a pass takes so many seconds; in words, for the plan."""
    if isinstance(each, NotMeasured) or not passes(config):
        return f"; time: not measured: {each.reason}" if isinstance(each, NotMeasured) else ""
    took = each * passes(config)
    told = f"; about {duration(took)} for {passes(config):,} passes, by a batch of random weights ({each:.2g} s a pass)"
    workers = config.workers if isinstance(config, ScanConfig | VerifyConfig) else "1"  # a repair's check alone is shared
    if not workers.isdecimal() or workers == "1":
        return told
    return f"{told}; about {duration(took / int(workers))} where each of {workers} workers is as fast as this process"


def _fixed(spent: Spent) -> int:
    first, draws, path = spent.first, spent.draws, spent.paths * spent.steps
    controls = CONTROLS * first + FURTHER * (draws - first) + FOLLOWED * (path + spent.context)
    return controls + draws * (spent.context // ALIKE) * (2 + USUAL) + draws * (2 * CLEAN_STEPS + 2) + 2 * path


def _scan(config: ScanConfig) -> Work:
    spent = EFFORTS[config.effort]
    first, draws, path, fixed = spent.first, spent.draws, spent.paths * spent.steps, _fixed(spent)
    listed = f", {first * len(config.candidates):,} for the list at first" if config.candidates else ""
    swept = "; a sweep takes 2 for each text and 8 for one in eight, of two-part texts 2 for 32" if config.sweeps else ""
    swept += ", recovery about 15,000, gradients among them" if "recovery" in config.sweeps else ""
    exposed = f"; a copy takes {EXPOSED_STEPS} steps at most, {2 * draws} a text read off it" if config.expose else ""
    exposed += _shared(config, fixed, "draws and controls", "copies and exchanges run in one")
    told = (
        f"{draws} draws, each a prompt, a noise and a step that a text is tried in",
        *_looked_at(config),
        "harmless controls, selected like the candidates",
    )
    each = f"{first} for each text, {draws} for what stands out, {path + spent.context} more on paths and elsewhere for what does last"
    return told, f"about {fixed:,} {PASS} for draws and controls{listed}: {each}{swept}{exposed}"


def _shared(config: SharedConfig, passes: int, what: str, alone: str) -> str:
    """What workers make of ``passes``, about, that are for ``what``; what runs in one process ``alone``."""
    if config.workers == "1":
        return ""
    if config.workers == "auto":
        return f"; {what} are shared by as many workers as the cluster has; {alone}"
    each = math.ceil(passes / int(config.workers))
    return f"; shared by {config.workers} workers, about {each:,} for {what} each; {alone}"


def _repair(config: RepairConfig) -> Work:
    solved, trained = "keys and values in closed form", f"{config.n_prompts} trajectories and at most {config.steps} training steps"
    either = f"{solved}; where that fails its check or the text encoder is at fault, {trained}"
    added = [f"the adapter {path} merged in at scale {scale:g}" for path, scale in config.adapters]
    how = {"auto": either, "closed-form": solved}.get(config.trainable, trained) if config.method == "auto" else trained
    steps = (*added, "the check before and after", how)
    checked = CHECK_ONCE + CHECK_EACH * max(1, len(config.triggers))
    passes = f"{2 * TRAJECTORY * config.n_prompts:,} for trajectories and {config.steps:,} training steps at most"
    many = "as many workers as the cluster has" if config.workers == "auto" else f"{config.workers} workers"
    shared = "" if config.workers == "1" else f"; the check's pictures are shared by {many}, all else runs in one"
    return steps, f"about {checked:,} {PASS} to measure and check; {passes} where it is trained{shared}"


def _apply(config: ApplyConfig) -> Work:
    return (f"the difference in {config.from_patch} is added to the weights",), "none: nothing is trained or drawn"


def _merge(config: MergeConfig) -> Work:
    others = ", ".join(f"{path} at scale {scale:g}" if path.is_file() else str(path) for path, scale in config.merge_with)
    steps = (f"the difference of the model and of {others} from {config.base}", "the merge, and its check against each of them")
    trains = "; dam trains as many again" if config.method in ("auto", "dam") else ""
    return steps, f"about {_merge_passes(config):,} {PASS}{trains}"


def _merge_passes(config: MergeConfig) -> int:
    fine_tunes = 1 + len(config.merge_with)
    return 200 * (fine_tunes + 2) + 10 * config.n_prompts * (fine_tunes + 3)


def _clean(config: CleanConfig) -> Work:
    with_it = f"with the vision tower {config.vision}" if config.vision else "text alone (partial: no --vision)"
    steps = ("canaries planted in a copy", f"the copy cleaned at several rates, {with_it}", "the model cleaned at the chosen one")
    trained = (1 + (1 if config.learning_rate else 5)) * config.steps
    passes = "as many passes of the text encoder alone; time: not measured: only a denoiser is timed"
    return steps, f"{trained:,} training steps of 64 pairs at most, and {passes}"


def _verify(config: VerifyConfig) -> Work:
    graded = "attack success of each trigger and quality" if config.triggers else "quality; no trigger, so no attack success rate"
    drawn = pictures(config)
    added = [f"{of or 'MODEL'} with the adapter {path} at scale {scale:g}" for of, path, scale in config.adapters]
    added += [f"the embedding {path} in every model's vocabulary" for path, _ in config.embeddings]
    steps = (*added, f"{drawn} pictures of {config.steps} guided steps", *_evidence(config), f"{graded}, graded by {config.clip}")
    passes = 2 * config.steps * drawn
    return steps, f"about {passes:,} {PASS}{_shared(config, passes, 'pictures', 'grading runs in one')}"


_WORK: dict[type[RunConfig], Callable[[Any], Work]] = {
    ScanConfig: _scan,
    RepairConfig: _repair,
    ApplyConfig: _apply,
    MergeConfig: _merge,
    CleanConfig: _clean,
    VerifyConfig: _verify,
}


def _evidence(config: VerifyConfig) -> tuple[str, ...]:
    """What shows that a text was ever a trigger."""
    if not config.triggers:
        return ()
    if config.before:
        return (f"each trigger on {config.before} first, on no more pictures than it takes; one that does nothing there cannot pass",)
    said = {"required": "none was given, so that the run cannot pass", "none": "none is asked for (evidence = none)"}
    return (f"evidence of each trigger: {said.get(str(config.evidence), f'the report {config.evidence}')}",)


def _looked_at(config: ScanConfig) -> tuple[str, ...]:
    """Where a scan takes its candidates from."""
    other = bool(config.sweeps or config.suspected)
    listed = [] if other else ["the built-in candidates"]
    listed = [f"{len(config.candidates)} candidates of the list"] if config.candidates else listed
    swept = [f"sweep {name}: {_swept(name)}, what stands out in full" for name in config.sweeps]
    parts = [f"parts of {len(config.suspected)} suspicious prompts"] if config.suspected else []
    applied = [f"with the adapter {path} at scale {scale:g}" for path, scale in config.adapters]
    applied += [f"with the embedding {path} in the vocabulary, its token a candidate" for path, _ in config.embeddings]
    located = [f"findings located by exchanging parts with {config.reference}"] if config.reference else []
    exposed = ["a copy in memory that unlearns captions, and the first of the ranking read off it"] if config.expose else []
    return (*listed, *swept, *parts, *applied, *located, *exposed)


def _swept(name: str) -> str:
    return "texts named by gradients" if name == "recovery" else "a cheap screen over all"


def pictures(config: VerifyConfig) -> int:
    """How many a verify draws, but for forms of a trigger."""
    triggered = config.n * len(config.triggers)
    of_reference = 2 * config.n + triggered if config.reference else 0
    of_before = (0 if config.reference else 2 * config.n) + triggered if config.before else 0
    return config.n + triggered + of_reference + of_before


def writes(config: RunConfig, reports: tuple[str, ...]) -> tuple[str, ...]:
    """The paths that a run of ``config`` writes."""
    return (*(str(path) if flag == "--patch" else f"{path}/" for flag, path in config.written), *reports)
