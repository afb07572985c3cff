"""What a scan keeps between runs: each measurement as soon as it is there, so that an interrupted scan goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws
from bdaudit.measure.paths import PathEffect, Paths, path_effects
from bdaudit.measure.text_effects import TOGETHER, TextEffect, text_effects
from bdaudit.scan.context import ScanContext

Kept = TypeVar("Kept")

UNTOUCHED = (
    "model", "state", "prompts_file", "alpha", "fail_on", "accept", "clip", "pictures", "pictures_to", "batch_size", "candidates", "sweeps",
    "pair_words", "suspected", "adapters", "embeddings", "reference", "expose",
)  # fmt: skip
"""Settings that change nothing of what one text's measurement gives; the model, adapters and embeddings are in the key by their digests."""


def key_of(prefix: str, what: str) -> str:
    """A name in the state for the measurement of ``what``."""
    return f"{prefix}-{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def cached(
    state: State, prefix: str, what: str, kind: type[Kept], measure: Callable[[], Kept], check: Callable[[Kept], object] = lambda _: None
) -> Kept:
    """What ``measure`` returns, of ``kind``; from the state where it is there, if ``check`` raises no ``ValueError`` of it.

    Raises:
        UsageError: what is kept there is none of it.
    """
    key = key_of(prefix, what)
    value: Kept | None = state.read_json(key, kind)
    if value is None:
        value = measure()
        state.write_json(key, value)
    with state.fitting(key):
        check(value)
    return value


def measured(
    context: ScanContext, name: str, draws: Draws, texts: Sequence[str], *, attention: bool, said: str, of: str = ""
) -> dict[str, TextEffect]:
    """Text → what it changed on ``draws``. ``name`` and ``of`` tell measurements of one scan apart, ``said`` tells a person what goes on.

    ``name`` stands in the names of files, ``of`` may hold whatever a prompt does.
    """

    def measure(block: tuple[str, ...]) -> list[TextEffect]:
        return text_effects(context.suspect, draws, block, attention=attention)

    def check(block: tuple[str, ...], effects: list[TextEffect]) -> None:
        if [(len(e.shift), bool(e.share)) for e in effects] != [(len(draws), attention)] * len(block):
            raise ValueError("a measurement lacks figures")

    found = dict[str, TextEffect]()
    for block in _blocks(list(dict.fromkeys(texts))):
        effects = cached(context.state, name, f"{of}{block}", list[TextEffect], partial(measure, block), partial(check, block))
        found |= dict(zip(block, effects, strict=True))
        context.progress(said, len(found), len(texts))
    return found


def followed(context: ScanContext, paths: Paths, rows: dict[str, tuple[int, ...]]) -> dict[str, PathEffect]:
    """Text → what it changed along the paths of its ``rows``."""

    def measure(block: tuple[str, ...]) -> list[PathEffect]:
        return path_effects(context.suspect, paths, block, [rows[text] for text in block])

    def check(block: tuple[str, ...], effects: list[PathEffect]) -> None:
        if [len(e.shift) for e in effects] != [len(rows[text]) for text in block]:
            raise ValueError("a measurement lacks figures")

    found = dict[str, PathEffect]()
    for block in _blocks(list(rows)):
        what = str([(text, rows[text]) for text in block])
        effects = cached(context.state, "path", what, list[PathEffect], partial(measure, block), partial(check, block))
        found |= dict(zip(block, effects, strict=True))
        context.progress("following paths", len(found), len(rows))
    return found


def _blocks(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Texts whose passes share batches. What a block is made of follows from the texts alone: a run that resumes ends in the same."""
    return [tuple(texts[at : at + TOGETHER]) for at in range(0, len(texts), TOGETHER)]
