"""`unlearn --merge-with` from directories to a directory: open, compare with the base, merge, measure, check, write."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from torch import Tensor

from bdaudit.config import MERGING, TEXT_ENCODER, MergeConfig
from bdaudit.errors import ExitCode, InconclusiveError
from bdaudit.measure import estimates
from bdaudit.measure.effect import Effect
from bdaudit.measure.opening import inspected
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.rounding import rounded
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress, silent
from bdaudit.records import Exit, UnlearnReport
from bdaudit.unlearn.merging import defence, findings
from bdaudit.unlearn.merging.blend import Blend
from bdaudit.unlearn.merging.closed_forms import CLOSED_FORMS, SCALE
from bdaudit.unlearn.merging.contributors import Contributor, from_model, open_contributor, open_model
from bdaudit.unlearn.merging.lessons import Lessons, collect
from bdaudit.unlearn.outcome import Outcome, changed, ended, interrupted, opened, provenance, report, write_differences
from bdaudit.unlearn.repair import check
from bdaudit.unlearn.triggers import check_triggers, trigger_effects, trigger_ground
from bdaudit.untrusted.inspect import Inspection

N_NULL = 24
CHECKED = 16
"""Prompts that the finished merge is measured on, under noise that no mask was trained on."""


@dataclass(kw_only=True)
class _Run(Outcome):
    """A merge on its way."""

    config: MergeConfig
    contributors: list[Contributor]
    base: Suspect
    blend: Blend
    masks: defence.Found | None = None
    merge: dict[str, Tensor] = field(default_factory=dict)
    """The merge's difference from the base; empty until there is one."""
    measured: list[findings.Measured] = field(default_factory=list)


def run_merge(config: MergeConfig, progress: Progress = silent) -> UnlearnReport:
    """Merge the model with other fine-tunes of its base and write the result; the targets are known to be free.

    Raises:
        UsageError: one of the models is no fine-tune of the base.
        InconclusiveError: nothing to merge, or a trigger encodes to nothing.
        RefusedError, BdauditError: a model cannot be opened safely, or at all.
    """
    inspection = opened(config)
    run = _opened(config, inspection, progress)
    try:
        return _merged(run)
    except KeyboardInterrupt:
        run.finished = run.finished or _report(run, "interrupted", Exit.of(ExitCode.INTERRUPTED, ""))
        return interrupted(run)


def _opened(config: MergeConfig, inspection: Inspection, progress: Progress) -> _Run:
    """The base, and everything that is merged as its difference from it."""
    assert config.base is not None
    began, total = time.monotonic(), 2 + len(config.merge_with)
    progress("opening", 0, total)
    base = open_model(inspected(config, config.base), config)
    progress("opening", 1, total)
    suspect = open_model(inspection, config)
    contributors = [from_model(inspection, suspect, base)]
    for path, scale in config.merge_with:
        progress("opening", 1 + len(contributors), total)
        contributors.append(open_contributor(path, scale, base, config))
    progress("opening", total, total)
    check_triggers(config.triggers, base.tokenizer)
    alike = [c.path for c in contributors if not c.vector]
    if alike:
        raise InconclusiveError(f"{alike[0]!a} is the base itself, number for number; there is nothing of it to merge")
    blend = Blend(suspect, base, [c.vector for c in contributors], SCALE)
    return _Run(
        config=config, inspection=inspection, suspect=suspect, timings={"open": time.monotonic() - began},
        component=" and ".join(_components(blend)),
        reason="this is where the fine-tunes differ from their base", contributors=contributors, base=base, blend=blend, progress=progress,
        prompts=config.prompts or default_prompts(), measured=[findings.Measured() for _ in contributors],
    )  # fmt: skip


def _components(blend: Blend) -> list[str]:
    """As the command line calls them."""
    suspect = blend.suspect
    parts = [part for part in suspect.modules if any(name.startswith(f"{part}.") for name in blend.parameters)]
    return list(dict.fromkeys(TEXT_ENCODER if part in suspect.text.modules else part for part in parts))


def _method(config: MergeConfig) -> str:
    return MERGING[0] if config.method == "auto" else config.method


def _merged(run: _Run) -> UnlearnReport:
    config, blend = run.config, run.blend
    if config.triggers:
        with run.timed("triggers"):
            _measure_triggers(run)
    with run.timed("merge"):
        if _method(config) == "dam":
            lessons = _lessons(run, "merging: lessons", run.prompts[: config.n_prompts], config.seed)
            run.masks = defence.optimise(blend, run.base, lessons, config.seed, partial(run.progress, "merging: masks"))
            run.curve = list(run.masks.curve)
        else:
            blend.put_difference(CLOSED_FORMS[_method(config)](blend.vectors, config.seed))
        run.merge = blend.difference()
        run.merge = _settled(run)
    with run.timed("check"):
        _check(run)
    run.finished = _decided(run)
    return _write(run) if run.writes else run.finished


def _lessons(run: _Run, stage: str, prompts: tuple[str, ...], seed: int) -> Lessons:
    return collect(run.blend, run.base, prompts, guidance_scale=run.config.guidance, seed=seed, tick=partial(run.progress, stage))


def _measure_triggers(run: _Run) -> None:
    """What each named trigger does in each contributor."""
    for i, (contributor, measured) in enumerate(zip(run.contributors, run.measured, strict=True)):
        run.progress("measuring the triggers", i, len(run.contributors))
        run.blend.put_difference(contributor.vector)
        measured.triggers = _effects(run)
    run.before = run.measured[0].triggers
    run.progress("measuring the triggers", len(run.contributors), len(run.contributors))


def _effects(run: _Run) -> list[Effect]:
    """Of the named triggers in the model that the blend holds now, on its own trajectories."""
    config, suspect = run.config, run.suspect
    return trigger_effects(suspect, trigger_ground(suspect, run.sampling), config.triggers, config.seed, N_NULL)


def _check(run: _Run) -> None:
    """Nearness to the contributors, soft tokens, and the triggers where any are named; the blend holds the merge before and after."""
    blend, steps = run.blend, 4
    run.progress("checking", 0, steps)
    lessons = _lessons(run, "checking: lessons", run.prompts[:CHECKED], run.config.seed + 1)
    tokens = findings.soft_tokens(blend, run.base, lessons, run.config.seed)
    run.progress("checking", 1, steps)
    blend.put_difference(run.merge)
    near = findings.nearness(blend, lessons)
    run.checks = [findings.nearness_check(*near)]
    run.progress("checking", 2, steps)
    for measured, merged, origin, (token, excess) in zip(run.measured, *near, tokens, strict=True):
        measured.quality = estimates.ratio(merged, origin)
        measured.soft_token, measured.soft_token_after = excess, findings.token_excess(blend, run.base, lessons, token)
    run.progress("checking", 3, steps)
    run.after = _effects(run) if run.config.triggers else []
    run.checks += check.one_step_checks(run.after)
    run.progress("checking", steps, steps)


def _decided(run: _Run) -> UnlearnReport:
    """The report of a finished merge that has written nothing yet."""
    done = f"{len(run.contributors)} fine-tunes of one base merged by {_method(run.config)}"
    return _report(run, "completed", ended(run, "the merge", done))


def _report(run: _Run, status: Literal["completed", "interrupted"], ended: Exit) -> UnlearnReport:
    """All that is known so far."""
    found = report(run, status, ended)
    unlooked = (*found.coverage.not_looked_at, "pictures: bdaudit verify draws them")
    return replace(
        found,
        coverage=replace(found.coverage, not_looked_at=unlooked),
        method=f"merging by {_method(run.config)}",
        changed=changed(_differences(run), partial(_before, run)),
        merged=findings.records(run.contributors, run.measured, run.blend, run.merge, run.masks, run.after) if run.merge else (),
        forward_passes=found.forward_passes + run.base.forward_passes,
    )


def _before(run: _Run, name: str, difference: Tensor) -> Tensor:
    """A tensor of the model itself."""
    return run.blend.base[name].cpu() + run.contributors[0].vector.get(name, 0.0)


def _settled(run: _Run) -> dict[str, Tensor]:
    """The merge as it is read back from files of the model's own types."""
    own, exact = run.contributors[0].vector, rounded(run.inspection, _differences(run))
    named = {f"{part}.{name}": difference for part, tensors in exact.items() for name, difference in tensors.items()}
    return {name: own.get(name, 0.0) + named[name] if name in named else tensor for name, tensor in run.merge.items()}


def _differences(run: _Run) -> Mapping[str, Mapping[str, Tensor]]:
    """The merge − the model, by component."""
    found: dict[str, dict[str, Tensor]] = {}
    own = run.contributors[0].vector
    for name, tensor in run.merge.items():
        difference = tensor - own[name] if name in own else tensor
        if bool(difference.any()):
            part, _, short = name.partition(".")
            found.setdefault(part, {})[short] = difference
    return found


def _write(run: _Run) -> UnlearnReport:
    assert run.finished is not None
    contributors = [{"sha256": c.sha256, "kept": c.kept} for c in run.finished.merged]
    return write_differences(run, _differences(run), {**provenance(run.finished), "merged": contributors})
