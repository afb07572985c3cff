"""What a text changes draw by draw: true to the model's own predictions, and the same however it is batched, ordered or accompanied."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import pytest
import torch
from torch import Tensor

from bdaudit.measure.draws import REPLACE, Draws, bare, make_draws, standing
from bdaudit.measure.insertion import insert, slips
from bdaudit.measure.text_effects import TextEffect, assimilation, joined, log_common, shifts, text_effects
from bdaudit.models.attention import recorded, token_share
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from tests.models.test_suspect import crowded
from tests.small import LONG_TRIGGER, PROMPTS

TEXTS = ("time", "\u200b", "ȏ", "wonderful island", "😀")
LOOK_ALIKE = "ȏ"
BY_DRAW = ("shift", "override", "states", "level", "share", "assimilation")


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return make_draws(tiny_suspect, PROMPTS, 12, 3.0, 0)


@pytest.fixture(scope="module")
def effects(tiny_suspect: Suspect, draws: Draws) -> dict[str, TextEffect]:
    return dict(zip(TEXTS, text_effects(tiny_suspect, draws, TEXTS, attention=True), strict=True))


def assert_same(a: TextEffect, b: TextEffect) -> None:
    assert a.truncated == b.truncated
    for name in (*BY_DRAW, "common"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=2e-3), name


def predicted(suspect: Suspect, draws: Draws, prompt: str, d: int) -> Tensor:
    """(C·H·W,): what the model predicts in draw ``d`` under a prompt, by itself."""
    return suspect.predict_batched(draws.latents[d : d + 1], draws.timesteps[d : d + 1], suspect.encode([prompt])).flatten()


def replaced_in(draws: Draws) -> list[int]:
    return [d for d in range(len(draws)) if standing(draws, d, LOOK_ALIKE) == REPLACE]


def test_one_figure_a_draw_and_every_one_finite(draws: Draws, effects: dict[str, TextEffect]) -> None:
    for effect in effects.values():
        assert {len(getattr(effect, name)) for name in BY_DRAW} == {len(draws)}
        assert all(math.isfinite(value) and abs(value) < 50 for name in BY_DRAW for value in getattr(effect, name))
        assert math.isfinite(effect.common)
        assert not effect.truncated


@pytest.mark.parametrize("text", ["wonderful island", "time"])
def test_shift_and_override_are_those_of_the_models_own_predictions(
    tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect], text: str
) -> None:
    for d, prompt in enumerate(draws.prompts):
        plain, empty = predicted(tiny_suspect, draws, bare(draws, d), d), predicted(tiny_suspect, draws, "", d)
        with_text = predicted(tiny_suspect, draws, insert(prompt, text, standing(draws, d, text)), d)
        whole = (plain - empty).square().sum()
        assert effects[text].shift[d] == pytest.approx(float(((with_text - plain).square().sum() / whole).log()), abs=4e-3)
        left = float((with_text - empty) @ (plain - empty) / whole)
        assert effects[text].override[d] == pytest.approx(1 - left, abs=4e-3)


def test_the_level_is_how_far_what_has_heard_every_word_moves(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    for d, prompt in enumerate(draws.prompts):
        changed = insert(prompt, "time", standing(draws, d, "time"))
        was, now = (tiny_suspect.text.summary(tiny_suspect.encode([p]))[0] for p in (bare(draws, d), changed))
        assert effects["time"].level[d] == pytest.approx(float(((now - was).norm() / was.norm()).log()), abs=4e-3)


def test_states_are_those_of_the_prompts_own_words_and_of_the_end(
    tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]
) -> None:
    suffixes = [d for d, place in enumerate(draws.places) if place == "suffix"]
    assert suffixes
    for d in suffixes:  # each word before the text has not heard it: the end alone has moved
        before, after = (tiny_suspect.encode([p]).states[0] for p in (draws.prompts[d], f"{draws.prompts[d]} time"))
        length = next(i for i in range(len(before)) if not torch.allclose(before[i], after[i], atol=1e-5))
        added = len(tiny_suspect.text.own_positions(draws.prompts[d], f"{draws.prompts[d]} time"))
        kept = torch.cat([after[:length], after[length + added :]])
        moved = (kept - before[: len(kept)]).norm() / before[: len(kept)].norm()
        assert effects["time"].states[d] == pytest.approx(float(moved.log()), abs=4e-3)


def test_a_look_alike_stands_for_its_letter_where_the_draw_says_so_and_is_counted_from_a_slip_there(
    tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]
) -> None:
    replaced = replaced_in(draws)
    assert 0 < len(replaced) < len(draws) // 2 + 1
    for d, prompt in enumerate(draws.prompts):
        base = slips(prompt, LOOK_ALIKE)[0] if d in replaced else bare(draws, d)
        changed = insert(prompt, LOOK_ALIKE, standing(draws, d, LOOK_ALIKE))
        delta = predicted(tiny_suspect, draws, changed, d) - predicted(tiny_suspect, draws, base, d)
        wanted = float((delta.square().mean() / draws.scale[d]).log())
        assert effects[LOOK_ALIKE].shift[d] == pytest.approx(wanted, abs=4e-3)
    d = replaced[0]
    from_prompt = predicted(tiny_suspect, draws, insert(draws.prompts[d], LOOK_ALIKE, "replace"), d) - draws.plain[d]
    assert effects[LOOK_ALIKE].shift[d] != pytest.approx(float((from_prompt.square().mean() / draws.scale[d]).log()), abs=4e-3)


def test_each_text_takes_a_pass_a_draw_and_look_alikes_of_a_letter_share_its_slips(tiny_suspect: Suspect, draws: Draws) -> None:
    thrifty = replace(tiny_suspect, forward_passes=0)
    text_effects(thrifty, draws, ["time", "house"], attention=True)
    assert thrifty.forward_passes == 2 * len(draws)
    text_effects(thrifty, draws, [LOOK_ALIKE], attention=False)
    assert thrifty.forward_passes == 3 * len(draws) + len(replaced_in(draws))
    thrifty.forward_passes = 0
    text_effects(thrifty, draws, [LOOK_ALIKE, "о"], attention=False)
    shared = {slips(draws.prompts[d], text)[0] for d in replaced_in(draws)[:1] for text in (LOOK_ALIKE, "о")}
    assert len(shared) == 1
    assert thrifty.forward_passes == 2 * len(draws) + len(replaced_in(draws))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_neither_batch_nor_order_nor_company_matters(
    tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect], size: int
) -> None:
    texts = (LOOK_ALIKE, "time") if size == 1 else TEXTS[::-1]
    found = text_effects(replace(tiny_suspect, batch_size=size), draws, texts, attention=True)
    for text, effect in zip(texts, found, strict=True):
        assert_same(effects[text], effect)


def test_memory_that_runs_out_on_the_way_changes_nothing(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    suspect = crowded(tiny_suspect, room=5, batch_size=16)
    (found,) = text_effects(suspect, draws, ["time"], attention=True)
    assert_same(effects["time"], found)
    assert suspect.batch_size == 4


def test_without_attention_all_else_is_the_same(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    for text, effect in zip(TEXTS, text_effects(tiny_suspect, draws, TEXTS, attention=False), strict=True):
        assert (effect.share, effect.assimilation) == ((), ())
        assert_same(effects[text], replace(effect, share=effects[text].share, assimilation=effects[text].assimilation))


def test_attention_is_that_of_the_texts_own_tokens(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    for d in (0, 3):
        prompt = insert(draws.prompts[d], "wonderful island", standing(draws, d, "wonderful island"))
        own = tiny_suspect.text.own_positions(bare(draws, d), prompt)
        words = tiny_suspect.text.words(tiny_suspect.text.ids([prompt]))
        with recorded(tiny_suspect.denoiser.sites()) as recording:
            predicted(tiny_suspect, draws, prompt, d)
            maps = list(recording.latest().values())
        share = torch.stack([token_share(m, [own]) for m in maps]).mean()
        spread = torch.stack([assimilation(m, words) for m in maps]).mean()
        assert effects["wonderful island"].share[d] == pytest.approx(float(share.log()), abs=4e-3)
        assert effects["wonderful island"].assimilation[d] == pytest.approx(-float(spread.log()), abs=4e-3)


def test_truncation_is_said_only_where_something_is_cut(tiny_suspect: Suspect, draws: Draws) -> None:
    room = 75 - max(len(insert(p, "", standing(draws, d, "~")).replace(" ", "")) for d, p in enumerate(draws.prompts))
    fits, cut = text_effects(tiny_suspect, draws, ["~" * room, "~" * (room + 1)], attention=False)
    assert (fits.truncated, cut.truncated) == (False, True)


def test_a_long_text_is_the_strongest_in_every_draw(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    (strong,) = text_effects(tiny_suspect, draws, [LONG_TRIGGER], attention=False)
    for effect in effects.values():
        assert sum(strong.shift) > sum(effect.shift)
        assert strong.common > effect.common


def test_what_is_measured_in_two_parts_is_the_whole(tiny_suspect: Suspect, draws: Draws, effects: dict[str, TextEffect]) -> None:
    first = text_effects(tiny_suspect, draws.part(slice(4)), ["time"], attention=False)[0]
    further = text_effects(tiny_suspect, draws.part(slice(4, None)), ["time"], attention=True)[0]
    both = joined(first, further)
    for name in ("shift", "override", "states", "level"):
        assert getattr(both, name) == pytest.approx(getattr(effects["time"], name), abs=2e-3), name
    assert (both.common, both.share, both.assimilation) == (further.common, further.share, further.assimilation)
    assert joined(replace(first, truncated=True), further).truncated
    assert not both.truncated
    assert astuple(both)[0] == (*first.shift, *further.shift)


D, N = 6, 32


def made_draws() -> Draws:
    plain = torch.randn(D, N, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(1)
    return Draws(("p",) * D, ("prefix",) * D, nothing, nothing, nothing, Conditioning(nothing), plain, torch.zeros(D, N))


def noise(scale: float) -> Tensor:
    return scale * torch.randn(1, D, N, generator=torch.Generator().manual_seed(1))


def test_the_shift_is_nought_where_the_text_does_what_the_prompt_does() -> None:
    draws = made_draws()
    assert shifts(draws.plain[None], draws)[0].item() == pytest.approx(0, abs=1e-5)


def test_the_shift_grows_by_the_logarithm_of_the_square() -> None:
    small, large = (shifts(noise(scale), made_draws()) for scale in (0.1, 1.0))
    for before, after in zip(small, large, strict=True):
        assert (after - before).item() == pytest.approx(math.log(100), abs=1e-3)


def test_one_draw_that_tips_over_is_no_trigger() -> None:
    draws, alike, tipped = made_draws(), noise(0.1), noise(0.1)
    tipped[:, 0] *= 30
    before, everywhere, once = (shifts(delta, draws)[0].item() for delta in (alike, 30 * alike, tipped))
    assert once - before == pytest.approx((everywhere - before) / D, abs=1e-3)


def test_what_all_draws_share_is_common_and_what_cancels_is_not() -> None:
    same, signs = torch.ones(1, D, N), torch.tensor([1.0, -1.0]).repeat(D // 2)[None, :, None]
    assert log_common(0.1 * same).item() == pytest.approx(2 * math.log(0.1), abs=1e-4)
    assert log_common(0.1 * same * signs).item() < -15


def test_no_draw_speaks_for_all_of_what_they_share() -> None:
    alike = torch.ones(1, D, N)
    tipped = alike.clone()
    tipped[:, 0] *= 1000
    assert log_common(tipped).item() == pytest.approx(log_common(alike).item(), abs=1e-4)
    assert log_common(10 * alike).item() == pytest.approx(2 * math.log(10), abs=1e-4), "all of them may"


def test_the_order_of_draws_does_not_matter() -> None:
    draws, delta, order = made_draws(), noise(0.3), [3, 1, 5, 0, 4, 2]
    moved = replace(draws, plain=draws.plain[order], empty=draws.empty[order])
    for one, other in zip(shifts(delta, draws), shifts(delta[:, order], moved), strict=True):
        assert one.item() == pytest.approx(other.item(), abs=1e-4)


def test_a_text_that_does_nothing_at_all_has_finite_figures() -> None:
    assert all(value.isfinite().all() for value in shifts(torch.zeros(1, D, N), made_draws()))


def test_assimilation_by_hand() -> None:
    maps = torch.tensor([[[9.0, 2.0, 1.0, 9.0], [9.0, 1.0, 2.0, 9.0]]])
    words = torch.tensor([[False, True, True, False]])
    # over their own maxima: (1, ½) and (½, 1); their mean is (¾, ¾); each is √(2·¼²)/√2 = ¼ away
    assert assimilation(maps, words).tolist() == pytest.approx([0.25])


def test_assimilation_of_like_maps_and_of_flat_ones_is_nothing() -> None:
    words = torch.tensor([[False, True, True]])
    assert assimilation(torch.tensor([[[0.0, 1, 2], [0, 3, 6]]]), words).item() == pytest.approx(0, abs=1e-6)
    assert assimilation(torch.full((1, 4, 3), 1 / 3), words).item() == 0
    assert assimilation(torch.zeros(1, 4, 3), words).item() == 0
