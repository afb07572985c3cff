"""What a scan keeps between runs: every text's measurement as soon as it is there, so that an interrupted scan goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from bdaudit.config import ScanConfig
from bdaudit.measure.envelope import run_key, settings
from bdaudit.measure.probe import Stage, gather
from bdaudit.measure.signals import SIGNALS, Values, measure_all
from bdaudit.pipeline.device import chosen
from bdaudit.pipeline.state import State
from bdaudit.pipeline.suspect import Suspect

UNTOUCHED = (
    "model", "state", "prompts_file", "alpha", "fail_on", "batch_size", "candidates", "sweeps", "pair_words", "suspected", "adapters",
    "reference", "expose",
)  # fmt: skip
"""Settings that change nothing of what one text's measurement gives; the model and the adapters are in the key by their digests."""


def open_state(config: ScanConfig, digest: str, adapters: Sequence[str] = ()) -> State:
    """The scan's folder; ``adapters`` are digests and scales.

    Raises:
        UsageError: it belongs to another run.
    """
    kept = {name: value for name, value in settings(config).items() if name not in UNTOUCHED} | chosen(config.device, config.dtype)
    return State(config.state, run_key("scan", kept | {"adapters": list(adapters)}, digest))


def measured(suspect: Suspect, stage: Stage, state: State, name: str, texts: Sequence[str]) -> Iterator[tuple[str, Values, bool]]:
    """Each text, its signals and whether it was cut off, in order; from the state where it is there. ``name`` tells two models apart."""
    for text in texts:
        key = f"{name}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
        kept = state.read_json(key, tuple[Values, bool])
        if kept is None:
            (evidence,) = gather(suspect, stage, [text])
            kept = (measure_all(evidence, stage), evidence.truncated)
            state.write_json(key, kept)
        with state.fitting(key):
            _check_whole(kept[0])
        yield text, *kept


def _check_whole(values: Values) -> None:
    """Raises ``ValueError`` unless every signal is there at every place."""
    if not values or any(signals.keys() != SIGNALS.keys() for signals in values.values()):
        raise ValueError("a measurement lacks signals")
