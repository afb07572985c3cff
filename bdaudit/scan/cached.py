"""What a scan keeps between runs: each measurement as soon as it is there, so that an interrupted scan goes on where it was.

The one place where blocks become results: from the state, measured here, or by workers. What a block is made of, and with it every
figure, follows from the texts alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws
from bdaudit.measure.paths import PathEffect, Paths, path_effects
from bdaudit.measure.text_effects import TOGETHER, TextEffect, text_effects
from bdaudit.scan.context import ScanContext
from bdaudit.scan.tasks import PathsTask, Task, TextsTask
from bdaudit.workers.blocks import Pace, answered, checked
from bdaudit.workers.crew import Crew

Kept = TypeVar("Kept")
Effect = TypeVar("Effect")

UNTOUCHED = (
    "model", "state", "prompts_file", "alpha", "fail_on", "accept", "clip", "pictures", "pictures_to", "keep", "batch_size", "candidates",
    "sweeps", "pair_words", "suspected", "adapters", "embeddings", "reference", "expose", "workers",
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


@dataclass(frozen=True)
class Block(Generic[Kept]):
    """Some items that are measured and kept together."""

    what: str
    """Names it in the state."""
    items: int
    task: Task
    """For a worker, where somebody else can make its draws."""
    measure: Callable[[], Kept]
    """Here."""
    check: Callable[[Kept], object]
    """Raises ``ValueError`` of what cannot have come of it."""


def mapped(context: ScanContext, prefix: str, kind: type[Kept], blocks: Sequence[Block[Kept]], said: str) -> Iterator[Kept]:
    """What each block gives, in their order; ``said`` tells a person what goes on.

    Raises:
        UsageError: what is kept of one does not fit.
        BdauditError: no worker is left.
        InconclusiveError: one costs every worker that it is given to.
    """
    total = sum(block.items for block in blocks)
    if context.crew is None or not blocks or blocks[0].task.draws.elsewhere:
        done = 0
        for block in blocks:
            yield cached(context.state, prefix, block.what, kind, block.measure, block.check)
            done += block.items
            context.progress(said, done, total)
        return
    yield from _by_crew(context, context.crew, prefix, kind, blocks, said)


def _by_crew(context: ScanContext, crew: Crew, prefix: str, kind: type[Kept], blocks: Sequence[Block[Kept]], said: str) -> Iterator[Kept]:
    """Kept as they come in, handed on in their order."""
    lacking = [i for i, block in enumerate(blocks) if not context.state.has(key_of(prefix, block.what))]
    here = dict[int, Kept]()
    total = sum(block.items for block in blocks)
    pace = Pace(crew, context.progress, said, "texts", total, total - sum(blocks[i].items for i in lacking))
    for i, value, passes in answered(crew, ((i, blocks[i].task) for i in lacking), kind, lambda i: blocks[i].what):
        checked(partial(blocks[i].check, value))
        context.suspect.forward_passes += passes
        here[i] = cached(context.state, prefix, blocks[i].what, kind, partial(_same, value), blocks[i].check)
        pace.at(pace.done + blocks[i].items)
    for i, block in enumerate(blocks):
        yield here.pop(i) if i in here else cached(context.state, prefix, block.what, kind, block.measure, block.check)


def _same(value: Kept) -> Kept:
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

    parts = _blocks(list(dict.fromkeys(texts)))
    tasks = [TextsTask(draws=draws.of, texts=part, attention=attention) for part in parts]
    blocks = [
        Block(f"{of}{part}", len(part), task, partial(measure, part), partial(check, part)) for part, task in zip(parts, tasks, strict=True)
    ]
    return _by_text(parts, mapped(context, name, list[TextEffect], blocks, said))


def followed(context: ScanContext, paths: Paths, texts: Sequence[str]) -> dict[str, PathEffect]:
    """Text → what it changed along ``paths``."""

    def measure(block: tuple[str, ...]) -> list[PathEffect]:
        return path_effects(context.suspect, paths, block)

    def check(block: tuple[str, ...], effects: list[PathEffect]) -> None:
        if [len(e.shift) for e in effects] != [len(paths.draws)] * len(block):
            raise ValueError("a measurement lacks figures")

    parts = _blocks(texts)
    tasks = [PathsTask(draws=paths.draws.of, steps=paths.steps, texts=part) for part in parts]
    blocks = [
        Block(str(part), len(part), task, partial(measure, part), partial(check, part)) for part, task in zip(parts, tasks, strict=True)
    ]
    return _by_text(parts, mapped(context, "path", list[PathEffect], blocks, "following paths"))


def _by_text(parts: Sequence[tuple[str, ...]], found: Iterable[list[Effect]]) -> dict[str, Effect]:
    return {text: effect for part, effects in zip(parts, found, strict=True) for text, effect in zip(part, effects, strict=True)}


def _blocks(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Texts whose passes share batches. What a block is made of follows from the texts alone: a run that resumes ends in the same."""
    return [tuple(texts[at : at + TOGETHER]) for at in range(0, len(texts), TOGETHER)]
