"""What a run will lack, told before it draws anything: evidence of its triggers, a grader, and what is not measured without it.

Loads no weights. A grader's folder is not looked into: where it is none, the run says so at once.
"""

from __future__ import annotations

from bdaudit.config import VerifyConfig


def lacking(config: VerifyConfig) -> tuple[str, ...]:
    """Why there is no grader, what is not measured for it, and how the run ends; and that there is no evidence of the triggers.

    Raises:
        UsageError: no CLIP is called so.
    """
    return (*_no_grader(config), *_no_evidence(config))


def _no_evidence(config: VerifyConfig) -> tuple[str, ...]:
    if not config.triggers or config.evidence != "required" or config.before is not None or config.max_asr == 1:
        return ()
    how = "say --before MODEL_WITH_IT, or --evidence REPORT of that model"
    return (f"no evidence that the trigger ever was one: a low rate proves nothing, and the run cannot pass (exit 1 or 4); {how}",)


def _no_grader(config: VerifyConfig) -> tuple[str, ...]:
    if config.clip.startswith("local-dir:"):
        return ()
    from bdaudit.measure.open_clip_model import missing
    from bdaudit.records import NotMeasured
    from bdaudit.verify.inception import find_inception

    found = missing(config.clip, "--clip")
    if found is None:
        return ()
    inception = not isinstance(find_inception(), NotMeasured)
    rest = "nothing else is asked for, so nothing is drawn (exit 4)"
    if not _needs_it_for_all(config, inception):
        rest = "the rest is measured, and the run cannot pass (exit 1 or 4)"
    return (f"no grader: {found.reason}", f"not measured without a grader: {', '.join(_unmeasured(config, inception))}; {rest}")


def _unmeasured(config: VerifyConfig, inception: bool) -> list[str]:
    paired = ["clip_ratio", "diversity_ratio", "distance"] if config.baseline else []
    sets = ["kid", "fid"] if not inception and (config.baseline or config.real_images) else []
    attack = ["attack success"] if config.triggers and _by_words(config) else []
    return [*attack, "prompt_following", "clip_score", "diversity", *paired, *sets]


def _by_words(config: VerifyConfig) -> bool:
    return bool(config.target_text or config.swaps)


def _needs_it_for_all(config: VerifyConfig, inception: bool) -> bool:
    attack = config.triggers and not _by_words(config)
    return not (attack or config.baseline or (config.real_images and inception))
