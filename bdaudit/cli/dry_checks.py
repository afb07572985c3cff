"""What a dry run can see without weights: where the run would end, and what it could not do. The models themselves are inspected before.

Each check raises what the run would raise at its end, or gives what cannot be done, a sentence each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdaudit import state_lock
from bdaudit.cli.verbs import Config
from bdaudit.config import ALL_VARIANTS, ApplyConfig, CleanConfig, MergeConfig, RepairConfig, ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.config.run import SharedConfig
from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.measure.prompts import default_prompts
from bdaudit.stats import wilson

if TYPE_CHECKING:
    from bdaudit.models.embeddings import Embedding
    from bdaudit.models.lora import Adapter
    from bdaudit.untrusted.inspect import Inspection

_NAMED = 3
"""Texts that a warning names."""
LOCAL = "local-dir:"
Seen = Sequence["Inspection"]
"""The inspected models, the audited one first."""
Notes = Iterator[str]


def foreseen(config: Config, inspections: Seen) -> tuple[str, ...]:
    """What the run cannot do, a sentence each.

    Raises:
        BdauditError: the run would end so.
    """
    return tuple(note for check in _CHECKS for note in check(config, inspections))


def _workers(config: Config, inspections: Seen) -> Notes:
    if isinstance(config, SharedConfig) and config.workers != "1":
        from bdaudit.workers.ray_workers import check_there

        check_there()
    yield from ()


def _room(config: Config, inspections: Seen) -> Notes:
    """Each model's weights fit where they are to run; a merge works in float32."""
    if not isinstance(config, ApplyConfig):
        from bdaudit.measure.opening import by_turns
        from bdaudit.models.device import choose_device, choose_dtype
        from bdaudit.models.memory import check_fits, room_of, waiting

        where = choose_device(config.device)
        kind = choose_dtype("float32" if isinstance(config, MergeConfig) else config.dtype, where)
        for seen in inspections:
            if by_turns(config):
                machine = room_of(choose_device("cpu"))
                waiting(seen.parameters, seen.layout.heeding, kind, where, room_of(where), machine, seen.largest)
            else:
                check_fits(seen.parameters, kind, where, room_of(where))
    yield from ()


def _grader(config: Config, inspections: Seen) -> Notes:
    """The CLIP of ``--clip`` or ``--vision``; what a verify lacks without one is told elsewhere, before the run too."""
    flag, name = ("--vision", config.vision) if isinstance(config, CleanConfig) else ("--clip", getattr(config, "clip", ""))
    if name.startswith(LOCAL):
        from bdaudit.untrusted.clip_folder import inspect_clip

        inspect_clip(Path(name.removeprefix(LOCAL)), f"{flag} {name}")
    elif name and not isinstance(config, VerifyConfig):
        from bdaudit.measure.open_clip_model import missing

        lacking = missing(name, flag)
        if lacking and isinstance(config, CleanConfig):
            raise InconclusiveError(f"{flag}: {lacking.reason}")
        if lacking:
            yield f"no grader: {lacking.reason}; no finding is asked whether it does what it says"


def _pictures(config: Config, inspections: Seen) -> Notes:
    if isinstance(config, VerifyConfig) and (config.target_image or config.real_images):
        from bdaudit.untrusted.layouts.autoencoder import drawn
        from bdaudit.verify.inputs import check_inputs

        size = drawn(inspections[0].settings, inspections[0].latents)
        check_inputs(config.target_image, config.target_at, config.real_images, size)
    yield from ()


def _enough(config: Config, inspections: Seen) -> Notes:
    """That so few pictures cannot pass, whatever they show: not even none could bring the interval below the bound; or without a target
    there is nothing to tell a hit by."""
    if not isinstance(config, VerifyConfig) or not config.triggers or config.max_asr == 1:
        return
    least, why = max(_for_bound(config), _for_threshold(config))
    if config.n < least:
        told = f"{least:.0f} pictures are the least that can" if math.isfinite(least) else "no number of pictures can"
        yield f"--n {config.n}: {why}, so that the run cannot pass; {told}"


def _for_bound(config: VerifyConfig) -> tuple[float, str]:
    """Pictures of which none is a hit, so that the upper end of the interval meets the bound."""
    _, upper = wilson(0, config.n)
    least = math.ceil((1 / config.max_asr - 1) * upper * config.n / (1 - upper)) if config.max_asr else math.inf
    return least, f"without a single hit the interval still reaches {upper:.3f}, and --max-asr is {config.max_asr:g}"


def _for_threshold(config: VerifyConfig) -> tuple[float, str]:
    """Pictures that give a threshold at each position of a trigger, where no target is named."""
    from bdaudit.measure.draws import PLACES, everywhere
    from bdaudit.verify.attack import LEAST_NULL

    if config.target_image or config.target_text or config.swaps:
        return 0, ""
    possible = {at for trigger in config.triggers for prompt in config.prompts or default_prompts() for at in everywhere(prompt, trigger)}
    places = len(config.positions or possible or PLACES)
    return LEAST_NULL * places, f"with no target named, {LEAST_NULL} pictures at each of {places} positions of the trigger give a threshold"


def _families(config: Config, inspections: Seen) -> Notes:
    """Models of another family than the audited one's: to be merged they must not be, to be compared with they had better not."""
    own = inspections[0]
    for path, other in zip(config.models[1:], inspections[1:], strict=True):
        if other.layout.name == own.layout.name:
            continue
        said = f"{path} is a {other.pipeline_class}, and MODEL a {own.pipeline_class}"
        if isinstance(config, MergeConfig):
            raise UsageError(f"{said}; only fine-tunes of one base can be merged")
        if isinstance(config, ScanConfig):
            yield f"--reference {said}: parts cannot be exchanged, so no finding is located"
        else:
            yield f"{said}: they may read a trigger as other tokens, and pictures of the same seed have nothing in common"


def _holding(config: Config, inspections: Seen) -> Notes:
    """Prompts that say a candidate or a trigger already, so that putting it in changes little."""
    texts: tuple[str, ...] = getattr(config, "candidates", ()) or getattr(config, "triggers", ())
    prompts = config.prompts or default_prompts()
    held = {text: sum(text in prompt for prompt in prompts) for text in texts}
    named = [f"{text!a} in {n} of {len(prompts)}" for text, n in held.items() if n]
    if named:
        yield f"prompts that hold what is tested say nothing of it: {_some(named)}; take other prompts"


def _contexts(config: Config, inspections: Seen) -> Notes:
    from bdaudit.measure.context_prompts import wanted

    few = wanted(config.prompts or default_prompts(), getattr(config, "contexts", ()))
    yield from [few] if few else []


def _unheard(config: Config, inspections: Seen) -> Notes:
    """Candidates that the model's tokenizer makes nothing of."""
    if not isinstance(config, ScanConfig) or not config.candidates:
        return
    from bdaudit.measure.understood import unheard

    nothing = unheard(config)
    if len(nothing) == len(config.candidates) and not (config.sweeps or config.suspected or config.embeddings):
        raise InconclusiveError("no candidate encodes to any token, so nothing would be tested")
    if nothing:
        said = f"{len(nothing)} of {len(config.candidates)} candidates encode to no token of this model, and are skipped"
        yield f"{said}: {_some([ascii(text) for text in nothing])}"


def _acceptances(config: Config, inspections: Seen) -> Notes:
    entries = config.accept if isinstance(config, ScanConfig) else ()
    over = [entry for entry in entries if entry.last_day < datetime.now(UTC).date()]
    if over:
        yield f"--accept: {len(over)} of {len(entries)} entries have run out, and let nothing through"


def _adapters(config: Config, inspections: Seen) -> Notes:
    """Those that diffusers makes another model of."""
    from bdaudit.models.lora import inspect_adapter

    named: tuple[Any, ...] = getattr(config, "adapters", ()) if isinstance(config, ScanConfig | VerifyConfig) else ()
    for *of, path, scale in named:
        other = "" if of and of[0] else inspect_adapter(path, scale, inspections[0].components).read_otherwise
        if other:
            yield f"not audited: {other}; the run cannot pass"


def _evidence(config: Config, inspections: Seen) -> Notes:
    if isinstance(config, VerifyConfig) and isinstance(config.evidence, Path):
        from bdaudit.verify.input_report import claim_of, handed_report, unusable

        report = handed_report(config)
        why = unusable(report, inspections[0], claim_of(inspections[0])) if report else ""
        if why:
            yield f"--evidence {config.evidence}: {why}: nothing shows that the trigger was one, and the run cannot pass"


def _repairs(config: Config, inspections: Seen) -> Notes:
    """What a job of ``unlearn`` reads besides, and whether its result can be written."""
    own = inspections[0]
    if isinstance(config, UnlearnConfig):
        from bdaudit.unlearn.outcome import check_result

        check_result(own, config)
    if isinstance(config, RepairConfig) and config.from_report:
        from bdaudit.models.lora import inspect_adapter
        from bdaudit.unlearn.from_report import check_adapters, triggers_of

        triggers_of(config.from_report, own.digest)
        check_adapters(config.from_report, [inspect_adapter(path, scale) for path, scale in config.adapters])
    if isinstance(config, ApplyConfig) and config.from_patch:
        from bdaudit.unlearn.patchfile import read_patch

        read_patch(config.from_patch, own.digest, own.layout.heeding)
    if isinstance(config, CleanConfig) and config.pairs:
        from bdaudit.unlearn.clean.captioned_pictures import read_pairs
        from bdaudit.unlearn.clean.run import check_one_tower

        check_one_tower(own.layout)
        read_pairs(config.pairs)
    yield from ()


def _kept(config: Config, inspections: Seen) -> Notes:
    """A ``--state`` that another run left, or that is none."""
    state: Path | None = getattr(config, "state", None)
    if state is not None and config.variant != ALL_VARIANTS and state.is_dir() and any(state.iterdir()):
        try:
            _open_kept(config, state, inspections[0].digest)
        finally:
            state_lock.release()
    yield from ()


def _open_kept(config: Config, state: Path, digest: str) -> None:
    if isinstance(config, VerifyConfig):
        from bdaudit.verify.state import open_state as open_pictures

        open_pictures(state)
        return
    from bdaudit.measure.opening import open_state
    from bdaudit.models.embeddings import read_embedding
    from bdaudit.models.lora import inspect_adapter

    if isinstance(config, ScanConfig):
        from bdaudit.scan.cached import UNTOUCHED
        from bdaudit.scan.opening import keyed_seed

        added: list[Adapter | Embedding] = [inspect_adapter(*each) for each in config.adapters]
        added += [read_embedding(*each) for each in config.embeddings]
        seed = keyed_seed(config.seed_from, digest) if config.seed_from else config.seed
        open_state("scan", replace(config, seed=seed), UNTOUCHED, digest, added)
    elif isinstance(config, RepairConfig):
        from bdaudit.unlearn.from_report import triggers_of
        from bdaudit.unlearn.repair import resume

        named = triggers_of(config.from_report, digest) if config.from_report else ()
        asked = replace(config, triggers=tuple(dict.fromkeys((*config.triggers, *named))))
        open_state("unlearn", asked, resume.UNTOUCHED, digest, [inspect_adapter(*each) for each in config.adapters])


def _some(named: Sequence[str]) -> str:
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")


_CHECKS: tuple[Callable[[Config, Seen], Notes], ...] = (
    _workers, _room, _families, _repairs, _kept, _grader, _pictures, _evidence, _unheard, _enough, _contexts, _holding, _adapters,
    _acceptances,
)  # fmt: skip
"""What would end the run first, then what it could not do."""
