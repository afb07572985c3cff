"""Rows of pictures for a person: with a text and without it, from the same noise, where it does most. Nothing is decided by them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bdaudit.errors import BdauditError
from bdaudit.measure.insertion import insert, item_seed
from bdaudit.measure.picture_grid import grid, write_grid
from bdaudit.models.sample import sample
from bdaudit.records import CandidateRecord
from bdaudit.scan.look import Looking
from bdaudit.scan.settle import where_it_does_most

STEPS = 12
PRIVATE = 0o700
"""Of the folder: a trigger may draw anything, and somebody else's eyes are not asked."""


def shown(records: Iterable[CandidateRecord]) -> list[CandidateRecord]:
    """The texts that get pictures: every finding, and the first of the ranking."""
    return [record for record in records if not record.same_as and (record.verdict != "clean" or record.rank == 1)]


def draw(looking: Looking, records: Iterable[CandidateRecord], rows: int, guidance_scale: float, folder: Path) -> tuple[str, ...]:
    """A sheet of ``rows`` a text, in ``folder``, which no other user can open; their paths.

    Raises:
        BdauditError: the folder cannot be written.
    """
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        folder.chmod(PRIVATE)
    except OSError as error:
        raise BdauditError(f"--pictures-to {folder}: {error.strerror or error}; name a folder of your own") from error
    return tuple(_sheet(looking, record, rows, guidance_scale, folder) for record in shown(records))


def _sheet(looking: Looking, record: CandidateRecord, rows: int, guidance_scale: float, folder: Path) -> str:
    prompts, places, _ = where_it_does_most(looking, record.text, rows)
    changed = [insert(prompt, record.text, place) for prompt, place in zip(prompts, places, strict=True)]
    seeds = [item_seed(looking.context.seed, "pictures", i) for i in range(rows)]
    suspect = looking.context.suspect
    pairs = {
        name: sample(suspect, texts, seeds, steps=STEPS, guidance_scale=guidance_scale)
        for name, texts in (("without", prompts), (f"with {record.text}", changed))
    }
    looking.context.progress("drawing pictures", record.rank, record.rank)
    return write_grid(folder / f"{record.rank:04d}.png", grid(changed, pairs), "--pictures-to")
