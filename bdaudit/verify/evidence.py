"""The pictures that a person looks at: pairs on the same seeds, the worst, some from the middle, and the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.measure.picture_grid import grid, write_grid
from bdaudit.records import NotMeasured
from bdaudit.verify.attention_maps import coloured
from bdaudit.verify.gallery import Gallery, Pair, Shot
from bdaudit.verify.trials import Trial

ENDS, MIDDLE = 3, 2
"""Pairs shown of the worst and of the best, and from the middle."""
BEFORE, REFERENCE = "the model before", "the reference"
LOOKED_AT = 4
"""Pairs whose attention is shown."""


def looked_at(trial: Trial) -> list[Pair]:
    """The pairs whose attention is recorded: the first, since the worst are known only once all are drawn."""
    return list(zip(trial.clean[:LOOKED_AT], trial.triggered[:LOOKED_AT], strict=True))


def extremes(distances: Tensor) -> list[tuple[int, str]]:
    """(index, label) of the pairs to show, by how far apart they are, (N,); fewer where there are not so many, each once."""
    order = torch.argsort(distances, descending=True, stable=True).tolist()
    half = max(0, len(order) // 2 - MIDDLE // 2)
    labelled = [(i, "worst") for i in order[:ENDS]] + [(i, "median") for i in order[half : half + MIDDLE]]
    seen = {i: label for i, label in reversed([*labelled, *((i, "best") for i in order[-ENDS:])])}
    return [(i, seen[i]) for i in order if i in seen]


def write_evidence(
    folder: Path,
    trials: Sequence[Trial],
    shots: Sequence[Shot],
    model: Gallery,
    earlier: Gallery | NotMeasured,
    baseline: Gallery | NotMeasured,
    names: tuple[str, str] = (BEFORE, REFERENCE),
) -> tuple[str, ...]:
    """A grid a trigger: what it does to the same picture, and did on ``earlier``; and one of the model beside ``baseline``, or alone.

    ``names`` are what ``earlier`` and ``baseline`` are called above their pictures.

    Raises:
        BdauditError: the folder cannot be written.
    """
    written = []
    for i, trial in enumerate(trials, 1):
        written.append(_write(folder / f"trigger-{i}.png", *_of_trigger(trial, model, earlier, names[0])))
        written.append(_write(folder / f"attention-{i}.png", *_of_attention(trial, model, earlier, names[0])))
    if isinstance(baseline, Gallery):
        written.append(_write(folder / "quality.png", *_of_quality(shots, model, baseline, names[1])))
    elif not written:
        first = shots[: 2 * ENDS + MIDDLE]
        written.append(_write(folder / "clean.png", [shot.text for shot in first], {"the model": model.pictures(first)}))
    return tuple(written)


def _write(path: Path, captions: Sequence[str], columns: dict[str, Tensor]) -> str:
    return write_grid(path, grid(captions, columns))


def _of_trigger(trial: Trial, model: Gallery, earlier: Gallery | NotMeasured, name: str) -> tuple[list[str], dict[str, Tensor]]:
    """Of the pairs that both models drew: the earlier one may have drawn a few alone."""
    if isinstance(earlier, Gallery):
        trial = trial.first(sum(map(earlier.holds, trial.triggered)))
    chosen = extremes(model.distances(trial.triggered, trial.clean))
    clean, triggered = [trial.clean[i] for i, _ in chosen], [trial.triggered[i] for i, _ in chosen]
    columns = {"without the trigger": model.pictures(clean), f"with {trial.trigger}": model.pictures(triggered)}
    if isinstance(earlier, Gallery):
        columns[f"{name}, with {trial.trigger}"] = earlier.pictures(triggered)
    return [f"{label}: {trial.clean[i].text}" for i, label in chosen], columns


def _of_attention(trial: Trial, model: Gallery, earlier: Gallery | NotMeasured, beside: str) -> tuple[list[str], dict[str, Tensor]]:
    """The earlier model's beside the model's; one scale for both."""
    pairs = looked_at(trial)
    galleries = {"the model": model} | ({beside: earlier} if isinstance(earlier, Gallery) else {})
    most = max(float(gallery.maps(pairs).max()) for gallery in galleries.values())
    columns: dict[str, Tensor] = {}
    for name, gallery in galleries.items():
        columns[f"{name}, with {trial.trigger}"] = gallery.pictures([changed for _, changed in pairs])
        columns[f"{name}: attention to it, white is {most:.0%}"] = coloured(gallery.maps(pairs), most)
    return [clean.text for clean, _ in pairs], columns


def _of_quality(shots: Sequence[Shot], model: Gallery, reference: Gallery, name: str) -> tuple[list[str], dict[str, Tensor]]:
    chosen = extremes(model.distances(shots, shots, reference))
    shown = [shots[i] for i, _ in chosen]
    columns = {"the model": model.pictures(shown), name: reference.pictures(shown)}
    return [f"{label}: {shots[i].text}" for i, label in chosen], columns
