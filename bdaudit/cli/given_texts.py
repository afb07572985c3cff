"""The triggers and suspicious prompts that a run is given, as the model reads them. Nothing heavy is imported where there are none."""

from __future__ import annotations

from collections.abc import Sequence

from bdaudit.config import RepairConfig, RunConfig, TriggeredConfig
from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.records import UnderstoodText


def texts_of(config: RunConfig) -> tuple[UnderstoodText, ...]:
    """What the run's triggers and suspicious prompts are understood as."""
    if not (_triggers(config) or getattr(config, "suspected", ())):
        return ()
    from bdaudit.measure.understood import understood

    return understood(config, _triggers(config))


def both_ways(config: RunConfig) -> tuple[str, ...]:
    """A sentence for each candidate that was read both ways."""
    if not getattr(config, "candidates", ()):
        return ()
    from bdaudit.measure.understood import read_both_ways

    return read_both_ways(config)


def check_encoded(texts: Sequence[UnderstoodText]) -> None:
    """Raises ``InconclusiveError`` where a trigger encodes to nothing: whatever is measured with it is measured without."""
    nothing = [ascii(item.text) for item in texts if item.what == "trigger" and item.token_ids == ()]
    if nothing:
        said = f"the trigger {', '.join(nothing)} encodes to no token of this model, so a prompt with it is the prompt without it"
        raise InconclusiveError(f"{said}; check its spelling")


def _triggers(config: RunConfig) -> tuple[str, ...]:
    """Those of the command line, and of a report; what is wrong with that one is the run's to say."""
    if not isinstance(config, RepairConfig) or config.from_report is None:
        return config.triggers if isinstance(config, TriggeredConfig) else ()
    from bdaudit.unlearn.from_report import named_in

    try:
        return tuple(dict.fromkeys((*config.triggers, *named_in(config.from_report))))
    except BdauditError:
        return config.triggers
