"""Where a finding lives: parts of the model exchanged with those of a reference model, one at a time and both ways round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from bdaudit.measure.draws import Draws, draws_again
from bdaudit.measure.text_effects import text_effects
from bdaudit.models.denoiser import Chosen
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.records import Localisation, NotMeasured, SwapRecord

HALF = 0.5
"""A part carries the effect where at most so much is left without it."""
CLEARER = 1.25
"""The audited model must move so many times as far as the reference, else there is nothing to divide."""


def localise(suspect: Suspect, reference: Suspect, draws: Draws, texts: Sequence[str]) -> dict[str, Localisation | NotMeasured]:
    """Each text, and where its effect goes; or why that could not be measured."""
    if reason := _unlike(suspect, reference):
        return {text: NotMeasured(reason=reason) for text in texts}
    alike = [text for text in texts if _ids(suspect, text) == _ids(reference, text)]
    tokenizer = Localisation(where="tokenizer: the reference's gives other ids", swaps={})
    places: dict[str, Localisation | NotMeasured] = dict.fromkeys(texts, tokenizer)
    return places | (_by_swaps(suspect, reference, draws, alike) if alike else {})


def _ids(suspect: Suspect, text: str) -> list[tuple[int, ...]]:
    """By each reader."""
    return [content_ids(reader.tokenizer, text) for reader in suspect.text.readers]


def _by_swaps(suspect: Suspect, reference: Suspect, draws: Draws, texts: Sequence[str]) -> dict[str, Localisation | NotMeasured]:
    audited, foreign = _effects(suspect, draws, texts), _effects(reference, draws, texts)
    left, brought = dict[str, list[float]](), dict[str, list[float]]()
    for part, mine, theirs, chosen in _parts(suspect, reference):
        with exchanged(mine, theirs, chosen):  # the reference then holds the suspect's part
            left[part], brought[part] = _effects(suspect, draws, texts), _effects(reference, draws, texts)
    effects = [{part: (left[part][i], brought[part][i]) for part in left} for i in range(len(texts))]
    return {text: _read(audited[i], foreign[i], effects[i]) for i, text in enumerate(texts)}


def _parts(suspect: Suspect, reference: Suspect) -> list[tuple[str, torch.nn.Module, torch.nn.Module, Chosen]]:
    """In words; both models' modules, and which of their tensors: each text encoder whole, the denoiser by its parts."""
    encoders = [(name.replace("_", " "), module, reference.text.modules[name]) for name, module in suspect.text.modules.items()]
    whole: list[tuple[str, torch.nn.Module, torch.nn.Module, Chosen]] = [(*encoder, lambda name: True) for encoder in encoders]
    mine, theirs = suspect.denoiser.module, reference.denoiser.module
    return whole + [(part, mine, theirs, chosen) for part, chosen in suspect.denoiser.parts.items()]


def _read(audited: float, foreign: float, swaps: dict[str, tuple[float, float]]) -> Localisation | NotMeasured:
    """Effects as amplitudes → shares and the verdict in words."""
    if audited < CLEARER * foreign:
        times = foreign / max(audited, 1e-12)
        return NotMeasured(reason=f"the reference moves {times:.2f} times as far with this text, so there is little to tell apart")
    gap = audited - foreign
    records = {part: SwapRecord(left=(a - foreign) / gap, brought=(b - foreign) / gap) for part, (a, b) in swaps.items()}
    return Localisation(where=where(records), swaps=records)


def where(swaps: dict[str, SwapRecord]) -> str:
    """The part without which the effect goes and which brings it by itself; else the parts that it needs together."""
    alone = [part for part, swap in swaps.items() if swap.left <= HALF <= swap.brought]
    if alone:
        return min(alone, key=lambda part: swaps[part].left)
    needed = [part for part, swap in swaps.items() if swap.left <= HALF]
    if needed:
        return " and ".join(needed) + ", not by one alone"
    return "spread over several parts: no single exchange takes half of it away"


def _effects(suspect: Suspect, draws: Draws, texts: Sequence[str]) -> list[float]:
    """How far each text moves the prediction, in amplitude, on the same latents with this model's own plain predictions."""
    effects = text_effects(suspect, draws_again(suspect, draws), texts, attention=False)
    return [math.sqrt(math.fsum(math.exp(shift) for shift in effect.shift) / len(effect.shift)) for effect in effects]


@contextmanager
def exchanged(one: torch.nn.Module, other: torch.nn.Module, chosen: Callable[[str], bool]) -> Iterator[None]:
    """The chosen tensors of two models change places for the block's length."""
    names = [name for name in one.state_dict() if chosen(name)]
    _exchange(one, other, names)
    try:
        yield
    finally:
        _exchange(one, other, names)


def _exchange(one: torch.nn.Module, other: torch.nn.Module, names: Sequence[str]) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    for name in names:
        copy = mine[name].clone()
        mine[name].copy_(theirs[name])
        theirs[name].copy_(copy)


def _unlike(suspect: Suspect, reference: Suspect) -> str:
    """Why parts cannot be exchanged; empty where they can."""
    for name, mine in {**suspect.text.modules, suspect.denoiser.name: suspect.denoiser.module}.items():
        theirs = reference.heeding.get(name)
        if theirs is None or _shapes(mine) != _shapes(theirs):
            return f"the reference's {name} is of another shape, so parts cannot be exchanged"
    unlike = suspect.schedule.unlike(reference.schedule)
    return f"the reference is another kind of model: {unlike}, so parts cannot be exchanged" if unlike else ""


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
