"""The cheap look: the same prompts and the same signals as the full measurement, in any order and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdaudit.measure.draws import PLACES, REPLACE, Draws, bare, make_draws
from bdaudit.measure.insertion import insert
from bdaudit.measure.splicing import halves
from bdaudit.measure.text_effects import text_effects
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids, token_ids
from bdaudit.scan.sweep.screen import Round, screened
from bdaudit.scan.sweep.swept_texts import Probe
from tests.small import PROMPTS

TEXTS = ("cf", "\u200b", "wonderful island", "🎃", "today", "ȏ")


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return make_draws(tiny_suspect, PROMPTS, 6, 5.0, 0)


def probes(suspect: Suspect) -> list[Probe]:
    return [Probe(text, content_ids(suspect.tokenizer, text)) for text in TEXTS]


@pytest.mark.parametrize("place", PLACES)
def test_entries_are_put_where_the_text_would_go(tiny_suspect: Suspect, place: str) -> None:
    for probe in probes(tiny_suspect):
        for prompt in PROMPTS:
            expected = token_ids(tiny_suspect.tokenizer, [insert(prompt, probe.text, place)])[0]
            before, after = halves(tiny_suspect.tokenizer, prompt, place)
            (found,) = tiny_suspect.text.spliced(before, probe.ids, after).by_reader
            assert found[0].tolist() == expected.tolist()


def test_a_row_too_long_is_cut_like_any_prompt(tiny_suspect: Suspect) -> None:
    before, after = halves(tiny_suspect.tokenizer, "a red cat", "prefix")
    row = tiny_suspect.text.spliced(before, content_ids(tiny_suspect.tokenizer, "~" * 99), after).by_reader[0][0]
    assert len(row) == tiny_suspect.tokenizer.model_max_length
    assert row[-1] == tiny_suspect.tokenizer.eos_token_id


def test_the_signals_by_hand(tiny_suspect: Suspect, draws: Draws) -> None:
    part = Round(draws=3).of(draws)
    found = screened(tiny_suspect, part, [Probe("cf", content_ids(tiny_suspect.tokenizer, "cf"))])[0]
    texts = [insert(prompt, "cf", place) for prompt, place in zip(part.prompts, part.places, strict=True)]
    states, plain, empty = (tiny_suspect.encode(of) for of in (texts, [bare(part, i) for i in range(3)], [""] * 3))
    out = [tiny_suspect.predict_batched(part.latents, part.timesteps, heard).flatten(1) for heard in (states, plain, empty)]
    own = [(a - b) / (b - c).square().mean().sqrt() for a, b, c in zip(*out, strict=True)]
    noise = [float(delta.square().mean()) for delta in own]
    ends = [float((states.states[i, -1] - plain.states[i, -1]).norm() / plain.states[i, -1].norm()) for i in range(3)]
    alike = torch.stack([delta * min(1.0, float(np.sqrt(np.median(noise) / size))) for delta, size in zip(own, noise, strict=True)])
    common = float(alike.mean(0).square().mean())
    assert found == pytest.approx([np.log(noise).mean(), np.log(common), np.log(np.mean(ends))], abs=1e-3)


def test_the_signals_are_those_of_the_full_measurement(tiny_suspect: Suspect, draws: Draws) -> None:
    found = screened(tiny_suspect, draws, probes(tiny_suspect))
    alone = [i for i, text in enumerate(TEXTS) if text != "ȏ"]  # whose effect is counted from a slip there
    effects = text_effects(tiny_suspect, draws, [TEXTS[i] for i in alone], attention=False)
    for row, effect in zip(found[alone], effects, strict=True):
        assert row[:2] == pytest.approx([np.mean(effect.shift), effect.common], abs=3e-4)


def test_order_and_batch_change_nothing(tiny_suspect: Suspect, draws: Draws) -> None:
    asked = probes(tiny_suspect)
    together = screened(tiny_suspect, draws, asked)
    before, tiny_suspect.batch_size = tiny_suspect.batch_size, 3
    try:
        apart = np.concatenate([screened(tiny_suspect, draws, [probe]) for probe in reversed(asked)])[::-1]
    finally:
        tiny_suspect.batch_size = before
    assert apart == pytest.approx(together, abs=1e-3), "single precision, in a logarithm"


def test_a_look_alike_takes_its_letters_place_where_the_draw_says_so(tiny_suspect: Suspect, draws: Draws) -> None:
    ids = content_ids(tiny_suspect.tokenizer, "ȏ")
    for row in range(len(draws)):
        replaced, as_word = (screened(tiny_suspect, draws.at([row]), [Probe(text, ids)]) for text in ("ȏ", ""))
        differs = draws.places[row] == REPLACE and "o" in draws.prompts[row]
        assert (abs(float((replaced - as_word)[0, 0])) > 1e-3) == differs, row


def test_a_round_takes_no_more_than_there_is(draws: Draws) -> None:
    part = Round(draws=99).of(draws)
    assert part.latents.shape == draws.latents.shape
    assert torch.equal(Round(draws=2).of(draws).plain, draws.plain[:2])
    assert Round(draws=2).of(draws).places == draws.places[:2]
