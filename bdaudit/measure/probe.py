"""The measurement itself: one denoising step with and without a text, on shared clean trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.insertion import insert, item_seed, positions_for, slips
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import is_truncated

TRAJECTORY_STEPS = 20


@dataclass(frozen=True)
class Stage:
    """What all texts share: prompts, latents on their clean trajectories, and what the model predicts there without any text added.

    Every prompt starts from the same noise, so that at the first timestep only the words differ.
    """

    prompts: tuple[str, ...]
    timesteps: Tensor
    """int64 (T,)."""
    latents: Tensor
    """(T, P, C, H, W)."""
    heard: Conditioning
    """Of the P plain prompts."""
    plain: Tensor
    """(T, P, C·H·W): the prediction under the plain prompt."""
    empty: Tensor
    """(T, P, C·H·W): the prediction under the empty prompt."""

    def part(self, t: slice, p: slice) -> Stage:
        """The timesteps ``t`` and the prompts ``p`` alone."""
        return Stage(self.prompts[p], self.timesteps[t], self.latents[t, p], self.heard[p], self.plain[t, p], self.empty[t, p])


def build_stage(suspect: Suspect, prompts: Sequence[str], timesteps: Sequence[float], guidance_scale: float, seed: int) -> Stage:
    """Run the clean trajectories once; ``timesteps`` are shares of the schedule, 1 the noisiest."""
    heard = suspect.encode(prompts)
    noise = suspect.noise([item_seed(seed, "probe")]).expand(len(prompts), *suspect.denoiser.latent_shape)
    run = denoise(suspect, heard, noise, steps=TRAJECTORY_STEPS, guidance_scale=guidance_scale, spacing=1.0)
    rows = [min(TRAJECTORY_STEPS - 1, round((1 - share) * TRAJECTORY_STEPS)) for share in timesteps]
    return stage_on(suspect, prompts, run.timesteps[rows], run.latents[rows])


def stage_on(suspect: Suspect, prompts: Sequence[str], timesteps: Tensor, latents: Tensor) -> Stage:
    """The stage of given latents (T, P, C, H, W) at ``timesteps`` (T,): with what ``suspect`` hears and predicts there."""
    heard = suspect.encode(prompts)
    nothing = suspect.unconditional().expand(len(prompts))
    plain, empty = (predict_all(suspect, latents, timesteps, h) for h in (heard, nothing))
    return Stage(tuple(prompts), timesteps, latents, heard, plain, empty)


def predict_all(suspect: Suspect, latents: Tensor, timesteps: Tensor, heard: Conditioning) -> Tensor:
    """Predictions for every timestep and prompt: (T, P, C, H, W), (T,), P rows → (T, P, C·H·W) float32."""
    times, prompts = latents.shape[:2]
    out = suspect.predict_batched(latents.flatten(0, 1), timesteps.repeat_interleave(prompts), heard.repeat(times))
    return torch.unflatten(out.float().flatten(1), 0, (times, prompts))


@dataclass(frozen=True)
class Change:
    """What one text changed. K positions, T timesteps, P prompts; where a prompt does not allow a position, another's figures stand."""

    text: str
    positions: tuple[str, ...]
    delta: Tensor
    """(K, T, P, C·H·W): change of the prediction, from the plain prompt's, or from the nearest slip's where a letter is replaced."""
    state_shift: Tensor
    """(K, P): change of the hidden states of the prompt's own words and of the end, RMS over RMS, the largest of the readers'."""
    truncated: bool
    """Whether the model's length cut something off."""


Baseline = tuple[Conditioning, Tensor]
"""What is heard of P texts and the predictions (T, P, C·H·W) that a text's effect is counted from."""
Baselines = dict[tuple[str, ...], Baseline]


def changes(suspect: Suspect, stage: Stage, texts: Sequence[str]) -> Iterator[Change]:
    """What every text changes, in order; look-alikes of one letter share what they are counted from, and no pass is run whose figures
    another's stand for."""
    baselines: Baselines = {stage.prompts: (stage.heard, stage.plain)}
    for text in texts:
        placed = _placed(suspect, stage, text)
        for base in placed.counted_from(baselines):
            asked = [i for i, (slip, prompt) in enumerate(zip(base, stage.prompts, strict=True)) if slip != prompt]
            heard = suspect.encode(base)
            baselines[base] = heard, _predict_some(suspect, stage, heard, asked)
        asked = [k * len(stage.prompts) + i for k, rows in enumerate(placed.rows) for i in sorted(set(rows))]
        yield _change(suspect, placed, _predict_some(suspect, stage, placed.heard, asked), baselines)


def _predict_some(suspect: Suspect, stage: Stage, heard: Conditioning, asked: Sequence[int]) -> Tensor:
    """Predictions for ``asked`` of K·P rows, 0 for all others: (T, K·P, C·H·W)."""
    rows = torch.tensor(asked, device=suspect.device)
    latents = stage.latents[:, rows % len(stage.prompts)]
    found = predict_all(suspect, latents, stage.timesteps, heard[rows])
    return found.new_zeros(len(found), len(heard), found.shape[2]).index_copy(1, rows, found)


@dataclass(frozen=True)
class _Placed:
    """A text in every prompt at every position that any of them allows."""

    text: str
    positions: tuple[str, ...]
    prompts: list[str]
    """K·P, by position."""
    heard: Conditioning
    """K·P rows."""
    bases: list[list[tuple[str, ...]]]
    """By position the alternatives that the effect is counted from, P prompts each."""
    own: list[list[int]]
    """K·P: the text's own tokens."""
    rows: list[list[int]]
    """By position: whose figures stand for each prompt."""

    def by_position(self, values: Tensor) -> Tensor:
        """(T, K·P, …) → (K, T, P, …)."""
        return torch.unflatten(values, 1, (len(self.positions), -1)).transpose(0, 1)

    def counted_from(self, known: Baselines) -> list[tuple[str, ...]]:
        """What the effect is counted from, but for what is known."""
        return [base for base in dict.fromkeys(base for alternatives in self.bases for base in alternatives) if base not in known]


def _placed(suspect: Suspect, stage: Stage, text: str) -> _Placed:
    positions = tuple(dict.fromkeys(p for prompt in stage.prompts for p in positions_for(prompt, text)))
    flat = [_inserted(prompt, text, position) for position in positions for prompt in stage.prompts]
    bases = [_bases(stage.prompts, text, position) for position in positions]
    plain = [item for alternatives in bases for item in alternatives[0]]
    own = [suspect.text.own_positions(before, after) for before, after in zip(plain, flat, strict=True)]
    rows = [_allowing(stage.prompts, text, position) for position in positions]
    return _Placed(text, positions, flat, suspect.encode(flat), bases, own, rows)


def _change(suspect: Suspect, placed: _Placed, outputs: Tensor, baselines: Baselines) -> Change:
    """``outputs`` are the predictions, (T, K·P, C·H·W)."""
    before = Conditioning.cat([baselines[alternatives[0]][0] for alternatives in placed.bases])
    steps = zip(placed.by_position(outputs), placed.bases, strict=True)
    delta = [_smallest([at - baselines[base][1] for base in alternatives]) for at, alternatives in steps]
    shift = state_shift(suspect, before.states, placed.heard.states, placed.own)
    return Change(
        text=placed.text,
        positions=placed.positions,
        delta=_only(placed.rows, torch.stack(delta)),
        state_shift=_only(placed.rows, torch.unflatten(shift, 0, (len(placed.positions), -1))),
        truncated=any(is_truncated(suspect.tokenizer, item) for item in placed.prompts),
    )


def _inserted(prompt: str, text: str, position: str) -> str:
    return insert(prompt, text, position if position in positions_for(prompt, text) else "prefix")


def _allowing(prompts: Sequence[str], text: str, position: str) -> list[int]:
    """For each prompt itself where it allows the position, else one of those that do, in turn."""
    allowing = [i for i, prompt in enumerate(prompts) if position in positions_for(prompt, text)]
    return [i if i in allowing else allowing[i % len(allowing)] for i in range(len(prompts))]


def _only(rows: Sequence[Sequence[int]], values: Tensor) -> Tensor:
    """(K, P) or (K, T, P, …): of each position, the evidence of the prompts that allow it."""
    dim = min(1, values.dim() - 2)
    chosen = [torch.tensor(row, device=values.device) for row in rows]
    return torch.stack([value.index_select(dim, row) for value, row in zip(values, chosen, strict=True)])


def _bases(prompts: Sequence[str], text: str, position: str) -> list[tuple[str, ...]]:
    """What the text's effect is counted from: the prompts, or where a letter is replaced, the prompts with a slip in that letter."""
    if position != "replace":
        return [tuple(prompts)]
    rows = [slips(prompt, text) if position in positions_for(prompt, text) else (prompt,) for prompt in prompts]
    return [tuple(row[min(i, len(row) - 1)] for row in rows) for i in range(max(map(len, rows)))]


def _smallest(deltas: Sequence[Tensor]) -> Tensor:
    return min(deltas, key=lambda delta: float(delta.square().sum()))


def state_shift(suspect: Suspect, before: Tensor, after: Tensor, own: Sequence[Sequence[int]]) -> Tensor:
    """Relative change of the states that are not the texts' own, in the reader where it is largest: (B, L, D) twice → (B,)."""
    pairs = zip(suspect.text.shares(before), suspect.text.shares(after), strict=True)
    return torch.stack([_of_one_reader(plain, changed, own) for plain, changed in pairs]).amax(0)


def _of_one_reader(plain: Tensor, changed: Tensor, own: Sequence[Sequence[int]]) -> Tensor:
    """Relative change of the states that are not the text's own, matched in order: (B, L, D) twice → (B,)."""
    rows = []
    for before, after, mine in zip(plain.float(), changed.float(), own, strict=True):
        kept = [i for i in range(len(after)) if i not in set(mine)]
        n = min(len(kept), len(before))
        a, b = before[:n], after[kept[:n]]
        rows.append((b - a).norm() / a.norm())
    return torch.stack(rows)
