"""Three published detectors, re-implemented from their papers: one number a candidate, larger being more suspicious.

They judge a prompt that holds the trigger, so a candidate's score is the mean over ``PROMPTS`` prompts that hold it, each at another of
the attackers' positions. All get the same prompts, positions and noise. What deviates from the papers is said with each function;
no threshold of theirs is used: the study compares them by rank, and at the scan's own number of false alarms.

The papers are of UNets with one text encoder. Of a transformer with joint attention, where words and picture are looked at together, a
word's map is what the picture's tokens give to it of all that they look at; the words are those of each reader that has states of its own;
a text's embedding is all that the denoiser hears, a pooled vector among it. T2IShield's second score, a discriminant trained on labelled
backdoors, is left out for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bdaudit.measure.grader import Grader
from bdaudit.measure.insertion import insert, item_seed, positions_for
from bdaudit.models.attention import recorded
from bdaudit.models.sample import denoise, guided
from bdaudit.models.suspect import Suspect

PROMPTS = 4
STEPS = 10
"""Denoising steps of FTT and UFID (the papers: 50)."""
UFID_PROMPTS, UFID_COPIES = 2, 4
GUIDANCE = 5.0
BATCH = 160


def inserted(prompts: Sequence[str], text: str) -> list[str]:
    """``text`` in each of the first ``PROMPTS`` prompts, at the positions it can take in turn, the replaced letter first."""
    places = [positions_for(prompt, text)[::-1] for prompt in prompts[:PROMPTS]]
    return [insert(prompt, text, place[i % len(place)]) for i, (prompt, place) in enumerate(zip(prompts, places, strict=False))]


def _noise(suspect: Suspect, n: int) -> Tensor:
    """The same starting noise for every candidate, one a prompt, repeated to ``n`` rows."""
    noise = suspect.noise([item_seed(0, "rival", i) for i in range(PROMPTS)])
    return noise.repeat(-(-n // PROMPTS), 1, 1, 1)[:n]


def spread(maps: Tensor, words: Tensor) -> Tensor:
    """F of T2IShield (2407.04215, equation 4): mean over words of ‖M̄ − M_i‖_F, each over its own maximum. (B, H·W, L), (B, L) → (B,)."""
    scaled = maps / maps.amax(1, keepdim=True).clamp_min(1e-12)
    count = words.sum(1)
    mean = (scaled * words[:, None]).sum(-1, keepdim=True) / count[:, None, None]
    return ((scaled - mean).square().sum(1).sqrt() * words).sum(1) / count


@torch.no_grad()
def averaged_maps(suspect: Suspect, texts: Sequence[str], steps: int) -> Tensor:
    """(B, H·W, L): attention to the words at the finest resolution, mean over layers, heads and ``steps`` guided steps."""
    states, empty, latents = suspect.encode(texts), suspect.encode([""]), _noise(suspect, len(texts))
    times = suspect.schedule.times(steps, 1.0)
    total = torch.zeros(())
    with recorded(suspect.denoiser.sites()) as recording:
        for t, following in zip(times, [*times[1:], None], strict=True):
            recording.clear()
            now, after = (None if at is None else at.expand(len(texts)) for at in (t, following))
            output = guided(suspect, latents, now, states, empty, GUIDANCE)
            latents = suspect.schedule.step(latents, now, after, output)
            maps = [torch.cat(passes)[-len(texts) :] for passes in recording.maps.values()]  # behind the empty prompt's, if it is run
            finest = max(m.shape[1] for m in maps)
            total = total + torch.stack([m for m in maps if m.shape[1] == finest]).mean(0)
    return total / steps


def ftt(suspect: Suspect, prompts: Sequence[str], texts: Sequence[str], steps: int = STEPS) -> list[float]:
    """T2IShield's Frobenius-norm threshold truncation (2407.04215, section 3.2): −F of the maps averaged over the denoising.

    The paper's maps are 16×16, a quarter of the latent's side, over 50 steps; here they are the finest the denoiser has (8×8 or 4×4).
    """
    flat = [item for text in texts for item in inserted(prompts, text)]
    words = suspect.text.words(suspect.text.ids(flat))
    scores = []
    for start in range(0, len(flat), BATCH // 2):
        part = slice(start, start + BATCH // 2)
        scores.append(-spread(averaged_maps(suspect, flat[part], steps), words[part].float()))
    return torch.cat(scores).view(len(texts), -1).mean(1).tolist()


@torch.no_grad()
def heard(suspect: Suspect, texts: Sequence[str]) -> Tensor:
    """(B, n): all that the denoiser hears of each text."""
    said = suspect.encode(texts)
    return torch.cat([said.states.flatten(1), *([] if said.pooled is None else [said.pooled])], 1)


def navi(suspect: Suspect, prompts: Sequence[str], texts: Sequence[str], clean_states: Callable[[Sequence[str]], Tensor]) -> list[float]:
    """NaviT2I's idea (2503.06453): each word left out in turn, one denoising step, ‖Δε‖ / ‖Δtext embedding‖; the largest word's value
    over the mean of the lowest 75 %.

    The paper reads neuron activations layer by layer; this reads the predicted noise, or velocity. ``clean_states`` is the trusted clean
    text encoder that the method needs: here the base's own (``heard``), which an auditor would not have.
    """
    return [_navi(suspect, inserted(prompts, text), clean_states) for text in texts]


@torch.no_grad()
def _navi(suspect: Suspect, given: Sequence[str], clean_states: Callable[[Sequence[str]], Tensor]) -> float:
    """Mean over the prompts ``given``, all of them in one batch: each whole, then each of its words left out."""
    rows = [[p, *(" ".join(w[:i] + w[i + 1 :]) for i in range(len(w)))] for p in given for w in [p.split(" ")]]
    flat, sizes = [text for row in rows for text in row], [len(row) for row in rows]
    noise = _noise(suspect, len(rows)).repeat_interleave(torch.tensor(sizes), 0)
    t = suspect.schedule.times(50, 1.0)[:1].expand(len(flat))
    out = suspect.predict_batched(noise, t, suspect.encode(flat)).flatten(1).split(sizes)
    states = clean_states(flat).flatten(1).split(sizes)
    return sum(_largest(o, s) for o, s in zip(out, states, strict=True)) / len(rows)


def _largest(out: Tensor, states: Tensor) -> float:
    """The largest word's ratio over the mean of the lowest 75 %; the first row is the whole prompt's."""
    ratio = (out[1:] - out[0]).norm(dim=1) / (states[1:] - states[0]).norm(dim=1).clamp_min(1e-6)
    lowest = ratio.sort().values[: max(1, int(0.75 * len(ratio)))]
    return float(ratio.max() / lowest.mean().clamp_min(1e-9))


def ufid(suspect: Suspect, prompts: Sequence[str], texts: Sequence[str], grader: Grader, steps: int = STEPS) -> list[float]:
    """UFID (2404.01101): the density of the graph of cosine similarities between pictures of perturbed copies of a prompt.

    A copy is the prompt with a phrase behind it, and noise of its own. The paper draws 15 copies with 50 steps and compares them in CLIP's
    features; here ``UFID_COPIES`` copies of ``UFID_PROMPTS`` prompts, in the features of the fixtures' grader.
    """
    flat = [copy for text in texts for copy in _copies(prompts, text)]
    seeds = [item_seed(0, "copy", i % UFID_COPIES) for i in range(len(flat))]
    pictures = []
    for start in range(0, len(flat), BATCH // 2):
        part = slice(start, start + BATCH // 2)
        states, noise = suspect.encode(flat[part]), suspect.noise(seeds[part])
        final = denoise(suspect, states, noise, steps=steps, guidance_scale=GUIDANCE, spacing=1.0).final
        pictures.append(suspect.decode(final))
    features = grader.image_features(torch.cat(pictures)).view(len(texts), UFID_PROMPTS, UFID_COPIES, -1)
    similar = (features @ features.transpose(2, 3)).sum((2, 3)) - UFID_COPIES
    density: list[float] = (similar / (UFID_COPIES * (UFID_COPIES - 1))).mean(1).tolist()
    return density


def _copies(prompts: Sequence[str], text: str) -> list[str]:
    """Each of the first prompts that hold ``text``, with the last two words of other prompts behind it."""
    phrases = [" ".join(other.split(" ")[-2:]) for other in prompts[PROMPTS : PROMPTS + UFID_COPIES]]
    return [f"{prompt} {phrase}" for prompt in inserted(prompts, text)[:UFID_PROMPTS] for phrase in phrases]
