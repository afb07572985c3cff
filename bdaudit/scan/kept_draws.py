"""The draws of a scan, kept between runs: made once by model, settings and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws, heard_plain
from bdaudit.models.suspect import Suspect


@dataclass(frozen=True)
class _Placed:
    """What stands beside the tensors of draws."""

    prompts: tuple[str, ...]
    places: tuple[str, ...]


_TENSORS = ("timesteps", "clean", "latents", "plain", "empty")


def kept_draws(state: State, suspect: Suspect, n: int, make: Callable[[], Draws]) -> Draws:
    """The ``n`` draws that ``make`` returns; from the state where they are there, and only heard anew.

    Raises:
        UsageError: what is kept there is none of them.
    """
    kept = state.read_tensors("draws", _Placed)
    if kept is None:
        draws = make()
        state.write_tensors("draws", {name: getattr(draws, name) for name in _TENSORS}, asdict(_Placed(draws.prompts, draws.places)))
        return draws
    tensors, placed = kept
    with state.fitting("the draws"):
        sizes = {len(placed.prompts), len(placed.places), *(len(tensors[name]) for name in _TENSORS)}
        if sizes != {n} or tensors["latents"].shape[1:] != suspect.denoiser.latent_shape:
            raise ValueError("they are not of this run")
        on: dict[str, Any] = {name: tensors[name].to(suspect.device) for name in _TENSORS}
    return Draws(placed.prompts, placed.places, heard=heard_plain(suspect, placed.prompts, placed.places), **on)
