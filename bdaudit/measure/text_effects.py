"""What one text changes on the draws that all share: collected here, where the model runs; what it means is judged elsewhere.

All but the override are logarithms of ratios, so that differences and robust scales make sense, and larger is more suspicious in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from bdaudit.measure.draws import REPLACE, Draws, bare, put, standing
from bdaudit.measure.insertion import slips
from bdaudit.models.attention import recorded, token_share
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Share
from bdaudit.models.tokens import is_truncated

TOGETHER = 16
"""Texts whose passes share batches."""
_TINY = 1e-8


@dataclass(frozen=True)
class TextEffect:
    """Of one text, by draw."""

    shift: tuple[float, ...]
    """log of ‖ε(prompt + text) − ε(prompt)‖² over what the whole prompt changes: 0 moves as much as the prompt. After NaviT2I's one-step
    score (2503.06453)."""
    override: tuple[float, ...]
    """1 − β, where β is the share of the prompt's own part of the prediction that is left: 1 where the text talks over the prompt."""
    states: tuple[float, ...]
    """log of the relative change of the hidden states of the prompt's own words and of the end."""
    level: tuple[float, ...]
    """log of the relative change of what has heard every word: how far the text moves the encoding, which explains an effect."""
    common: float
    """log of the mean square of the mean change over draws, each in units of its prompt's own and none longer than the median one, so that
    no draw speaks for all: what moves all pictures alike."""
    share: tuple[float, ...] = ()
    """log of the share of cross-attention that the text's own tokens draw; none where attention was not recorded."""
    assimilation: tuple[float, ...] = ()
    """−log of T2IShield's F (2407.04215): high where all words' maps look alike."""
    truncated: bool = False
    """Whether the model's length cut something off."""


def text_effects(suspect: Suspect, draws: Draws, texts: Sequence[str], *, attention: bool) -> list[TextEffect]:
    """One a text. Where a look-alike takes its letter's place, its effect counts from the same prompt with a slip of the pen there.

    Raises:
        BdauditError: a prediction is not finite.
    """
    rows = [_Row(text, *_placed(draws, text, d), d) for text in texts for d in range(len(draws))]
    at = torch.tensor([row.draw for row in rows], device=suspect.device)
    heard = suspect.encode([row.prompt for row in rows])
    base = _base(suspect, draws, rows)
    own = [suspect.text.own_positions(row.base, row.prompt) for row in rows]
    out, looks = _predicted(suspect, draws, rows, at, heard, own, attention)
    columns = _columns(suspect, draws, at, out - base.predictions, base.heard, heard, own) | looks
    return [_effect(suspect, rows, columns, i, len(draws)) for i in range(len(texts))]


@dataclass(frozen=True)
class _Row:
    """One text in one draw."""

    text: str
    prompt: str
    base: str
    """What its effect is counted from."""
    draw: int


@dataclass(frozen=True)
class _Base:
    """What effects are counted from, a row a text and draw."""

    heard: Conditioning
    predictions: Tensor


def _placed(draws: Draws, text: str, d: int) -> tuple[str, str]:
    """The draw's prompt with the text in it, and what that is counted from."""
    replaced = standing(draws, d, text) == REPLACE
    return put(draws, d, text), slips(draws.prompts[d], text)[0] if replaced else bare(draws, d)


def _base(suspect: Suspect, draws: Draws, rows: Sequence[_Row]) -> _Base:
    """The plain prompts' figures are there; each slip is run once."""
    slips = list(dict.fromkeys((row.base, row.draw) for row in rows if row.base != bare(draws, row.draw)))
    if not slips:
        at = torch.tensor([row.draw for row in rows], device=suspect.device)
        return _Base(draws.heard[at], draws.plain[at])
    where = torch.tensor([d for _, d in slips], device=suspect.device)
    heard = suspect.encode([prompt for prompt, _ in slips])
    out = suspect.predict_batched(draws.latents[where], draws.timesteps[where], heard).float().flatten(1)
    number = {key: len(draws) + i for i, key in enumerate(slips)}
    at = torch.tensor([number.get((row.base, row.draw), row.draw) for row in rows], device=suspect.device)
    return _Base(Conditioning.cat([draws.heard, heard])[at], torch.cat([draws.plain, out])[at])


def _predicted(
    suspect: Suspect, draws: Draws, rows: Sequence[_Row], at: Tensor, heard: Conditioning, own: Sequence[Sequence[int]], attention: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Predictions (B, C·H·W) and, where attention is recorded, the share and the assimilation of each pass."""
    if not attention:
        return suspect.predict_batched(draws.latents[at], draws.timesteps[at], heard).float().flatten(1), {}
    words = suspect.text.words(suspect.text.ids([row.prompt for row in rows])).to(suspect.device)
    outputs, shares, spreads = list[Tensor](), list[Tensor](), list[Tensor]()
    with recorded(suspect.denoiser.sites(), averaged=not suspect.denoiser.assimilates) as recording:
        done = 0
        while done < len(rows):
            part = slice(done, min(len(rows), done + suspect.batch_size))
            recording.clear()
            out = suspect.predict_batched(draws.latents[at[part]], draws.timesteps[at[part]], heard[part])
            if part.stop - part.start > suspect.batch_size:  # memory ran out on the way: the recording holds broken passes, so once more
                continue
            done = part.stop
            outputs.append(out.float().flatten(1))
            maps = [torch.cat(passes) for passes in recording.maps.values()]
            shares.append(torch.stack([token_share(m, own[part]) for m in maps]).mean(0))
            if suspect.denoiser.assimilates:
                spreads.append(torch.stack([assimilation(m, words[part]) for m in maps]).mean(0))
    looks = {"share": _log(torch.cat(shares))}
    return torch.cat(outputs), looks | ({"assimilation": -_log(torch.cat(spreads))} if spreads else {})


def _columns(
    suspect: Suspect, draws: Draws, at: Tensor, delta: Tensor, before: Conditioning, heard: Conditioning, own: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Of each row: one number a name; ``delta`` in units of the draw's own scale beside them."""
    scale, prompt = draws.scale[at], (draws.plain - draws.empty)[at]
    beta = ((delta + prompt) * prompt).mean(-1) / scale
    was, now = (suspect.text.summary(c).float() for c in (before, heard))
    return {
        "shift": _log(delta.square().mean(-1) / scale),
        "override": 1 - beta,
        "states": _log(state_shift(suspect, before, heard, own)),
        "level": _log((now - was).norm(dim=-1) / was.norm(dim=-1)),
        "delta": delta / scale.sqrt()[:, None],
    }


def _effect(suspect: Suspect, rows: Sequence[_Row], columns: dict[str, Tensor], i: int, n: int) -> TextEffect:
    part = slice(i * n, (i + 1) * n)
    by_draw = {name: tuple(column[part].double().cpu().tolist()) for name, column in columns.items() if name != "delta"}
    common = float(log_common(columns["delta"][part]))
    truncated = any(is_truncated(suspect.tokenizer, row.prompt) for row in rows[part])
    return TextEffect(**by_draw, common=common, truncated=truncated)


def state_shift(suspect: Suspect, before: Conditioning, after: Conditioning, own: Sequence[Sequence[int]]) -> Tensor:
    """Relative change of the states that are not the texts' own, in the reader where it is largest: B rows twice → (B,)."""
    return torch.stack([_of_one_reader(share, before, after, own) for share in suspect.text.shares]).amax(0)


def _of_one_reader(share: Share, plain: Conditioning, changed: Conditioning, own: Sequence[Sequence[int]]) -> Tensor:
    """Relative change of the states that are heard and not the text's own, matched in order: B rows twice → (B,)."""
    rows = []
    everywhere = range(plain.states.shape[1])[share.positions]
    masks = [None if c.mask is None else c.mask.bool().tolist() for c in (plain, changed)]
    for i, mine in enumerate(map(set, own)):
        heard = [[at for at in everywhere if mask is None or mask[i][at]] for mask in masks]
        kept = [at for at in heard[1] if at not in mine]
        n = min(len(kept), len(heard[0]))
        a, b = plain.states[i, heard[0][:n], share.channels].float(), changed.states[i, kept[:n], share.channels].float()
        rows.append((b - a).norm() / a.norm())
    return torch.stack(rows)


def shifts(delta: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """``TextEffect.shift`` in the mean over draws, and ``TextEffect.common``, of changes of the prediction: (B, D, N) → (B,) twice."""
    own = delta / draws.scale.sqrt()[:, None]
    return _log(own.square().mean(-1)).mean(-1), log_common(own)


def log_common(delta: Tensor) -> Tensor:
    """``TextEffect.common`` of changes in units of each draw's own: (…, D, N) → (…)."""
    norms = delta.square().mean(-1, keepdim=True).sqrt()
    alike = delta * (norms.median(-2, keepdim=True).values / norms.clamp_min(_TINY)).clamp_max(1.0)
    return _log(alike.mean(-2).square().mean(-1))


def _log(value: Tensor) -> Tensor:
    return torch.log(value.clamp_min(_TINY))


def assimilation(maps: Tensor, words: Tensor) -> Tensor:
    """F of T2IShield (2407.04215, equation 4), a pixel: mean over words i of ‖M̄ − M_i‖_F / √(H·W), each map over its own maximum.

    (B, H·W, L) maps and (B, L) bool → (B,). Divided by √(H·W) so that layers of different size can be averaged.
    """
    scaled = maps / maps.amax(1, keepdim=True).clamp_min(1e-12)
    weight = words[:, None, :].float()
    count = weight.sum(-1, keepdim=True).clamp_min(1)
    mean = (scaled * weight).sum(-1, keepdim=True) / count
    distance = (scaled - mean).square().mean(1).sqrt()
    return (distance * words).sum(1) / count.flatten()


def joined(first: TextEffect, further: TextEffect) -> TextEffect:
    """One text on the draws of both; what moves all pictures alike, and the attention, is the latter's."""
    names = ("shift", "override", "states", "level")
    both = {name: tuple(chain(getattr(first, name), getattr(further, name))) for name in names}
    return TextEffect(
        **both,
        common=further.common,
        share=further.share,
        assimilation=further.assimilation,
        truncated=first.truncated or further.truncated,
    )
