"""The cheap look: the same prompts and the same signals as the full measurement, in any order and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdaudit.measure.insertion import insert
from bdaudit.measure.probe import Stage, build_stage
from bdaudit.measure.splicing import PLACES, halves
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids, token_ids
from bdaudit.scan.sweep.screen import Round, screened
from bdaudit.scan.sweep.swept_texts import Probe
from tests.small import PROMPTS

TEXTS = ("cf", "\u200b", "wonderful island", "🎃", "today", "ȏ")


@pytest.fixture(scope="module")
def stage(tiny_suspect: Suspect) -> Stage:
    return build_stage(tiny_suspect, PROMPTS, (1.0, 0.5), 5.0, 0)


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


def test_the_signals_by_hand(tiny_suspect: Suspect, stage: Stage) -> None:
    part = Round(prompts=2, timesteps=2).stage(stage)
    found = screened(tiny_suspect, part, [Probe("cf", content_ids(tiny_suspect.tokenizer, "cf"))])[0]
    texts = [insert(PROMPTS[0], "cf", "prefix"), insert(PROMPTS[1], "cf", "suffix")]
    states, plain = tiny_suspect.encode(texts), tiny_suspect.encode(PROMPTS[:2])
    empty = tiny_suspect.encode(["", ""])
    noise, common = [], []
    for t in range(2):
        out = [tiny_suspect.predict_batched(stage.latents[t, :2], stage.timesteps[[t, t]], s).flatten(1) for s in (states, plain, empty)]
        scale, delta = (out[1] - out[2]).square().mean(), out[0] - out[1]
        noise.append([float(row.square().mean() / scale) for row in delta])
        common.append(float(delta.mean(0).square().mean() / scale))
    ends = [float((states.states[i, -1] - plain.states[i, -1]).norm() / plain.states[i, -1].norm()) for i in range(2)]
    assert found == pytest.approx([np.log(np.mean(noise, axis=0)).mean(), np.log(np.mean(common)), np.log(np.mean(ends))], abs=1e-4)


def test_order_and_batch_change_nothing(tiny_suspect: Suspect, stage: Stage) -> None:
    part, asked = Round(prompts=4, timesteps=2).stage(stage), probes(tiny_suspect)
    together = screened(tiny_suspect, part, asked)
    before, tiny_suspect.batch_size = tiny_suspect.batch_size, 3
    try:
        apart = np.concatenate([screened(tiny_suspect, part, [probe]) for probe in reversed(asked)])[::-1]
    finally:
        tiny_suspect.batch_size = before
    assert apart == pytest.approx(together, abs=3e-4)


def test_a_look_alike_takes_its_letters_place_in_every_other_prompt(tiny_suspect: Suspect, stage: Stage) -> None:
    part = Round(prompts=2, timesteps=1).stage(stage)
    ids = content_ids(tiny_suspect.tokenizer, "ȏ")
    replaced = screened(tiny_suspect, part, [Probe("ȏ", ids)])
    as_word = screened(tiny_suspect, part, [Probe("", ids)])
    assert abs(float((replaced - as_word)[0, 0])) > 1e-3


def test_a_round_takes_no_more_than_there_is(stage: Stage) -> None:
    part = Round(prompts=99, timesteps=99).stage(stage)
    assert part.latents.shape == stage.latents.shape
    assert torch.equal(Round(prompts=2, timesteps=1).stage(stage).plain, stage.plain[:1, :2])
