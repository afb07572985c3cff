"""From a run to what comes out of it: the report, the provenance, the directory and the patch. Trains and measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bdaudit.config import DENOISER, TEXT_ENCODER, CheckedConfig, Component, RepairConfig, UnlearnConfig
from bdaudit.errors import ExitCode, UsageError
from bdaudit.kept_state import State
from bdaudit.measure.context_prompts import wanted
from bdaudit.measure.effect import Effect
from bdaudit.measure.envelope import envelope, file_records
from bdaudit.measure.estimates import about
from bdaudit.measure.opening import inspected
from bdaudit.models.lora import Adapter, merged
from bdaudit.models.rounding import Differences, rounded
from bdaudit.models.save import check_writable, result_of, write_model, written_files
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress, silent, timed
from bdaudit.records import (
    AppliedAdapter,
    Attempt,
    ChangedTensor,
    Check,
    CleaningRecord,
    Coverage,
    Estimate,
    Exit,
    LossPoint,
    UnlearnReport,
)
from bdaudit.report.command import (
    adapter_flags,
    context_flags,
    drawing_flags,
    machine_flags,
    opening_flags,
    part_flags,
    place,
    trigger_flags,
    typed,
)  # fmt: skip
from bdaudit.report.document import values
from bdaudit.unlearn.from_report import grader_of
from bdaudit.unlearn.patchfile import write_patch
from bdaudit.unlearn.triggers import Sampling
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import Inspection
from bdaudit.untrusted.tree import shown

PROVENANCE = "bdaudit.json"
"""The file in the written directory that says what was done to it."""
PRIVATE = (
    "model",
    "prompts_file",
    "out",
    "patch",
    "state",
    "from_report",
    "pairs",
    "vision",
    "base",
    "merge_with",
    "adapters",
    "parts",
    "parts_from",
    "workers",
)
"""Settings that are paths on the machine of the repair, and how many worked on it; they are no part of what is handed on."""


def opened(config: UnlearnConfig) -> Inspection:
    """The model of a job, inspected; what would stop its result from being written is told now.

    Raises:
        BdauditError: as ``inspected`` and ``check_writable``.
    """
    inspection = inspected(config, config.model)
    check_result(inspection, config)
    return inspection


def check_result(inspection: Inspection, config: UnlearnConfig) -> None:
    """Raises as ``check_writable`` and ``_parts`` where a job's result could not be written."""
    parts = _parts(inspection.layout.heeding, config.component) if isinstance(config, RepairConfig) else ()
    check_writable(inspection, config.out, PROVENANCE, parts)


def _parts(heeding: Sequence[str], component: Component) -> Sequence[str]:
    """Those of a model that ``--component`` lets a repair change; ``heeding`` are all, the denoiser first.

    Raises:
        UsageError: the model has no part of this name.
    """
    several = {"auto": heeding, DENOISER: heeding[:1], TEXT_ENCODER: heeding[1:]}
    if component not in (*several, *heeding):
        raise UsageError(f"--component {component}: this model has {', '.join(heeding)}; name one of them, or say {TEXT_ENCODER}, or auto")
    return several.get(component, (component,))


@dataclass
class Outcome:
    """What a run has so far; an interrupted one is reported from it."""

    config: CheckedConfig
    inspection: Inspection
    suspect: Suspect
    progress: Progress = silent
    state: State = field(default_factory=lambda: State(None, ""))
    prompts: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    """Words that a prompt must have for a trigger to work, named or found."""
    having: tuple[str, ...] = ()
    """Prompts that have one of them."""
    timings: dict[str, float] = field(default_factory=dict)
    component: str = ""
    reason: str = ""
    patch: Patch | None = None
    adapters: tuple[Adapter, ...] = ()
    """Merged into the model before anything was measured: part of the result, though not of the repair."""
    strength: float = 0.0
    """Of the closed form; 0 where there was none."""
    attempts: list[Attempt] = field(default_factory=list)
    curve: list[LossPoint] = field(default_factory=list)
    resumed_at: int = 0
    before: list[Effect] = field(default_factory=list)
    after: list[Effect] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    settled: Differences | None = None
    """What the result lies from MODEL alone as it is read back from its files; None before that is known."""
    lost: tuple[str, ...] = ()
    """Workers that were dropped, and why."""
    finished: UnlearnReport | None = None
    """The report as it stands when all is checked and the result is about to be written."""

    def timed(self, name: str) -> AbstractContextManager[None]:
        """Add the block's seconds, finished or not."""
        return timed(self.timings, name)

    @property
    def failed(self) -> list[str]:
        """The checks that failed, by name."""
        return [check.name for check in self.checks if check.status == "failed"]

    @property
    def undecided(self) -> list[str]:
        """The checks that came to no decision, by name."""
        return [check.name for check in self.checks if check.status not in ("passed", "failed")]

    @property
    def writes(self) -> bool:
        """Whether the result is written: every check is passed, or ``--keep-failed`` was said."""
        return self.config.keep_failed or not (self.failed or self.undecided)

    @property
    def sampling(self) -> Sampling:
        """What all that is drawn follows from."""
        return Sampling(self.prompts, self.config.guidance, self.config.seed)


def decided(run: Outcome) -> UnlearnReport:
    """The report of a finished repair that has written nothing yet."""
    idle = [ascii(effect.text) for effect in run.before if effect.within() and not run.contexts]
    n = len(run.config.triggers) - len(idle)
    where = f", where prompts say {' or '.join(map(ascii, run.contexts))}" if run.contexts else ""
    if not n:
        return report(run, "completed", _nothing_shown(run, idle))
    removed = f"{n} trigger{'' if n == 1 else 's'} removed from the {run.component}{where}"
    unlike = f" ({' and '.join(idle)} did no more than harmless texts before)" if idle else ""
    with_it = f"; {' and '.join(shown(a.files[0].path) for a in run.adapters)} merged in" if run.adapters else ""
    return report(run, "completed", ended(run, "the repaired model", removed + unlike + with_it))


def _nothing_shown(run: Outcome, idle: Sequence[str]) -> Exit:
    """How a forced repair ends of texts that did nothing: no check of it could fail."""
    found = ended(run, "the repaired model", "repaired all the same (--force)")
    said = f"{' and '.join(idle)} did no more than harmless texts before, so that nothing shows that anything was removed; {found.reason}"
    return Exit.of(ExitCode.INCONCLUSIVE, said) if found.code == ExitCode.PASS else found


def ended(run: Outcome, what: str, done: str) -> Exit:
    """How a finished run ends that has written nothing yet: ``what`` fails its own check, or leaves it undecided, or ``done``."""
    where = " and ".join(str(path) for path in (run.config.out, run.config.patch) if path)
    if not (run.failed or run.undecided):
        return Exit.of(ExitCode.PASS, f"{done}; wrote {where}")
    kept = f"written all the same to {where}" if run.config.keep_failed else "nothing was written; --keep-failed writes it"
    if run.failed:
        return Exit.of(ExitCode.FINDING, f"{what} fails its own check ({', '.join(run.failed)}); {kept}")
    said = f"the check of {what} is undecided ({', '.join(run.undecided)}): neither passed nor failed; {kept}"
    return Exit.of(ExitCode.INCONCLUSIVE, said)


def write(run: Outcome) -> UnlearnReport:
    """Write the patch and the directory of a run that changed one component; both hold what adapters added."""
    assert run.finished is not None
    return write_differences(run, _differences(run), provenance(run.finished))


@torch.no_grad()
def settle(run: Outcome) -> None:
    """Have the model be what it will be read back as, rounded as its files round it: that is what is checked, and what is written.

    Raises:
        BdauditError: a file of the model cannot be read.
    """
    assert run.patch is not None
    found = _differences(run)
    exact = rounded(run.inspection, found)
    of_adapters = merged(run.adapters)
    for part, tensors in exact.items():
        for name, difference in tensors.items():
            key = f"{part}.{name}"
            if key in run.patch.originals:
                run.patch.put({key: difference - of_adapters.get((part, name), torch.zeros(()))})
            else:
                parameter = run.suspect.modules[part].get_parameter(name)
                parameter.add_((difference - found[part][name]).to(parameter.device, parameter.dtype))
    left = {part: {name: d for name, d in tensors.items() if bool(d.any())} for part, tensors in exact.items()}
    run.settled = {part: tensors for part, tensors in left.items() if tensors}


def _differences(run: Outcome) -> Differences:
    """Of the result from MODEL alone: the repair, and the adapters that it was made on."""
    if run.settled is not None:
        return run.settled
    found: dict[str, dict[str, Tensor]] = {}
    for name, difference in (run.patch.differences() if run.patch else {}).items():
        folder, _, own_name = name.partition(".")
        found.setdefault(folder, {})[own_name] = difference
    for (component, name), delta in merged(run.adapters).items():
        own = found.setdefault(component, {})
        own[name] = own[name] + delta if name in own else delta
    return {component: named for component, named in found.items() if named}


def _before(run: Outcome, name: str, difference: Tensor) -> Tensor:
    """A tensor of MODEL alone."""
    if run.patch is not None and not run.adapters:
        return run.patch.originals[name].float().cpu()
    component, _, own_name = name.partition(".")
    return run.suspect.modules[component].get_parameter(own_name).detach().float().cpu() - difference


def changed(differences: Differences, before: Callable[[str, Tensor], Tensor]) -> tuple[ChangedTensor, ...]:
    """How far the result lies from MODEL alone, relative to it; ``before`` gives MODEL's tensor of a name and its difference."""
    named = {f"{part}.{name}": difference for part, tensors in differences.items() for name, difference in tensors.items()}
    sizes = {name: before(name, difference).norm().clamp_min(1e-12) for name, difference in named.items()}
    return tuple(ChangedTensor(name=name, relative_change=float(named[name].norm() / size)) for name, size in sizes.items())


def write_differences(run: Outcome, differences: Differences, record: dict[str, Any]) -> UnlearnReport:
    """Write the patch and the directory, each with ``record`` of where it comes from; the report says what was written, with digests."""
    assert run.finished is not None
    if run.config.out:  # before the patch: this is where a model that changed under the run is found out
        write_directory(run.inspection, run.config.out, differences, record)
        run.finished = with_digests(run.finished, run.inspection, run.config.out)
    if run.config.patch:
        digest = write_patch(run.config.patch, differences, record)
        run.finished = replace(run.finished, patch=str(run.config.patch), patch_sha256=digest)
    return run.finished


def write_directory(inspection: Inspection, out: Path, differences: Differences, record: dict[str, Any]) -> None:
    """The repaired model with ``record`` beside its weights."""
    write_model(inspection, out, differences, {PROVENANCE: json.dumps(record, indent=2, allow_nan=False).encode("ascii") + b"\n"})


def with_digests(report: UnlearnReport, inspection: Inspection, out: Path) -> UnlearnReport:
    """The report with what lies in ``out``, and the command that grades it beside the model that it was made of."""
    asked = report.config
    with_it = [(Path(path), scale) for path, scale in asked.get("adapters") or ()] if report.adapters else []
    before = ["--before", place(asked["model"]), *adapter_flags(with_it, "before:")]  # the base alone never had their backdoor
    beside = [*before, *opening_flags(asked), *drawing_flags(asked)]
    model, files = out, inspection.part_files
    if inspection.pieces:
        model, files = written_files(inspection, out)
        others = inspection.part_files.items()
        beside += part_flags(inspection.config, [*(("", *each) for each in files.items()), *(("before", *each) for each in others)])
    clip = grader_of(asked.get("from_report"))
    found = [*trigger_flags(report.triggers), *context_flags(report.contexts), *(["--clip", clip] if clip else [])]
    graded = typed("verify", model, *found, *beside, *machine_flags(asked))
    return replace(report, out=str(out), written=file_records(result_of(inspection, out).written_in(out)), next_command=graded)


def provenance(report: UnlearnReport) -> dict[str, Any]:
    """What went in, what was done to it and what that did: handed on with the weights."""
    plain = values(report)
    return {
        "tool": report.tool,
        "input_digest": getattr(report.model, "digest", ""),
        "triggers": list(report.triggers),
        **({"contexts": list(report.contexts)} if report.contexts else {}),
        "component": report.component,
        "component_reason": report.component_reason,
        "method": report.method,
        "steps": report.steps,
        "config": {name: value for name, value in report.config.items() if name not in PRIVATE},
        "effect": {name: {"before": e.value, "after": report.after[name].value} for name, e in report.before.items()},
        "checks": plain["checks"],
        "attempts": plain["attempts"],
        **({"adapters": [_handed_on(adapter) for adapter in report.adapters]} if report.adapters else {}),
        **({"cleaning": plain["cleaning"]} if isinstance(report.cleaning, CleaningRecord) else {}),
    }


def _handed_on(adapter: AppliedAdapter) -> dict[str, Any]:
    """Which adapter is in the weights, without the path that it lay at."""
    return {"scale": adapter.scale, "files": [{"name": Path(file.path).name, "sha256": file.sha256} for file in adapter.files]}


def interrupted(run: Outcome) -> UnlearnReport:
    """What a stopped run has; what is written was free before and comes whole, so whether it is there says whether it was written."""
    out, patch = run.config.out, run.config.patch
    there = out is not None and out.is_dir() and any(out.iterdir())
    written = [str(path) for path, is_there in ((out, there), (patch, patch is not None and patch.is_file())) if is_there]
    said = f"stopped by the user; the result is whole in {' and '.join(written)}" if written else "stopped by the user; nothing was written"
    ended = Exit.of(ExitCode.INTERRUPTED, said)
    found = replace(run.finished or report(run, "interrupted", ended), status="interrupted", exit=ended)
    return with_digests(found, run.inspection, out) if there and out else found


def effect_estimates(effects: Sequence[Effect]) -> dict[str, Estimate]:
    """By the trigger."""
    return {effect.text: effect_estimate(effect) for effect in effects}


def effect_estimate(effect: Effect) -> Estimate:
    """The effect, and from the 5th to the 95th percentile what it stands beside."""
    reading, null = effect.shift, sorted(effect.shift.null)
    return about(reading.value, (null[int(0.05 * len(null))], reading.limit), len(null), f"5th to 95th percentile of {effect.beside}")


def _method(trained: str, strength: float) -> str:
    if trained == "closed-form":
        return f"keys and values in closed form, strength {strength:g}"
    return f"SKD-CAG with preservation, {trained}" if trained else "not finished"


def _coverage(run: Outcome) -> Coverage:
    few = wanted(run.prompts, run.contexts)
    notes = (*([few] if few else []), *run.lost)
    return Coverage(asked=len(run.config.triggers), tested=len(run.after), not_looked_at=("triggers that were not named",), notes=notes)


def report(run: Outcome, status: Literal["completed", "interrupted"], ended: Exit) -> UnlearnReport:
    """All that is known so far."""
    trained = run.attempts[-1].trainable if run.attempts else ""
    return UnlearnReport(
        **envelope("unlearn", run.config, run.inspection, run.suspect),
        status=status,
        exit=ended,
        timings=run.timings,
        coverage=_coverage(run),
        triggers=run.config.triggers,
        contexts=run.contexts,
        method=_method(trained, run.strength),
        component=run.component,
        component_reason="; ".join([run.reason, *(f"{a.trainable} alone was not enough: {a.outcome}" for a in run.attempts[:-1])]),
        steps=len(run.curve),
        loss=tuple(run.curve),
        changed=changed(_differences(run), partial(_before, run)) if run.patch else (),
        before=effect_estimates(run.before),
        after=effect_estimates(run.after),
        checks=tuple(run.checks),
        attempts=tuple(run.attempts),
        adapters=tuple(AppliedAdapter(scale=a.scale, files=file_records(a.files)) for a in run.adapters),
        resumed_at=run.resumed_at,
        forward_passes=run.suspect.forward_passes,
    )
