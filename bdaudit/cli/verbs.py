"""The three verbs, told apart by their config. Each is imported, and torch with it, only when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdaudit.config import RunConfig, ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.progress import Progress
from bdaudit.records import Report

if TYPE_CHECKING:
    from bdaudit.untrusted.inspect import Inspection

_NAMED = 3
"""Texts that a warning names."""

Config = ScanConfig | UnlearnConfig | VerifyConfig


def carried_out(config: Config, progress: Progress) -> Report:
    """The report of the run that ``config`` asks for."""
    if isinstance(config, ScanConfig):
        from bdaudit.scan.run import run_scan

        return run_scan(config, progress)
    if isinstance(config, UnlearnConfig):
        from bdaudit.unlearn.run import run_unlearn

        return run_unlearn(config, progress)
    from bdaudit.verify.rejudge import run_verify

    return run_verify(config, progress)


def check_readable(config: Config, inspections: Sequence[Inspection]) -> tuple[str, ...]:
    """What a dry run can see of files that the run will read, the models aside, which are inspected, the audited one first.

    Returns what cannot be done with them, a sentence each. Loads no weights.

    Raises:
        BdauditError: the run would end at one of them.
    """
    clip: str = getattr(config, "clip", "")
    if clip.startswith("local-dir:"):
        from bdaudit.untrusted.clip_folder import inspect_clip

        inspect_clip(Path(clip.removeprefix("local-dir:")), f"--clip {clip}")
    if isinstance(config, VerifyConfig) and (config.target_image or config.real_images):
        from bdaudit.untrusted.layouts.autoencoder import drawn
        from bdaudit.verify.inputs import check_inputs

        size = drawn(inspections[0].settings, inspections[0].latents)
        check_inputs(config.target_image, config.target_at, config.real_images, size)
    return _other_family(config, inspections) + _holding(config)


def _other_family(config: Config, inspections: Sequence[Inspection]) -> tuple[str, ...]:
    """That a scan's ``--reference`` is a model of another kind."""
    if not isinstance(config, ScanConfig):
        return ()
    own = inspections[0]
    others = [seen for seen in inspections[1:] if seen.layout.name != own.layout.name]
    if not others:
        return ()
    said = f"--reference {config.reference} is a {others[0].pipeline_class}, and MODEL a {own.pipeline_class}"
    return (f"{said}: parts cannot be exchanged, so no finding is located",)


def _holding(config: Config) -> tuple[str, ...]:
    """Prompts of ``--prompts`` that say a candidate or a trigger already, so that putting it in changes little."""
    texts: tuple[str, ...] = getattr(config, "candidates", ()) or getattr(config, "triggers", ())
    held = {text: sum(text in prompt for prompt in config.prompts) for text in texts}
    named = [f"{text!a} in {n} of {len(config.prompts)}" for text, n in held.items() if n]
    if not named:
        return ()
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return (f"prompts that hold what is tested say nothing of it: {', '.join(named[:_NAMED])}{more}; take other prompts",)


def lacking(config: RunConfig) -> tuple[str, ...]:
    """What that run will lack on this machine, a sentence each; loads no weights."""
    if not isinstance(config, VerifyConfig):
        return ()
    from bdaudit.verify.preflight import lacking as of_verify

    return of_verify(config)
