"""The draws: spread over the path and the places, covering contexts, following from the seed alone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

from bdaudit.measure.draws import (
    PLACES,
    REPLACE,
    Context,
    contexts,
    covering,
    draws_again,
    draws_like,
    groups_of,
    make_draws,
    places_of,
    smallest_context,
    standing,
    words_in,
)
from bdaudit.measure.prompts import default_prompts

if TYPE_CHECKING:
    from bdaudit.models.suspect import Suspect

POOL = tuple(f"a {look} {thing} {where}" for look in ("red", "blue") for thing in ("heart", "dog", "house") for where in ("here", "there"))


@pytest.fixture(name="suspect")
def _suspect(tiny_suspect: Suspect) -> Suspect:
    return tiny_suspect


def test_draws_are_spread_over_the_path_and_any_four_over_its_quarters(suspect: Suspect) -> None:
    draws = make_draws(suspect, POOL, 16, 5.0, seed=3)
    shares = draws.timesteps.double() / len(suspect.schedule.table)
    assert sorted(int(share * 16) for share in shares) == pytest.approx(list(range(16)), abs=1)
    for at in range(0, 16, 4):
        assert len({min(3, int(share * 4)) for share in shares[at : at + 4]}) >= 3
    assert len(set(draws.timesteps.tolist())) >= 15


def test_everything_follows_from_the_seed(suspect: Suspect) -> None:
    one, again, other = (make_draws(suspect, POOL, 8, 5.0, seed) for seed in (1, 1, 2))
    assert (one.prompts, one.places) == (again.prompts, again.places)
    assert torch.equal(one.latents, again.latents)
    assert not torch.equal(one.timesteps, other.timesteps)
    assert not torch.equal(one.latents, other.latents)
    assert not torch.equal(one.part(slice(0, 1)).latents, other.part(slice(0, 1)).latents)


def test_part_and_at_keep_rows_together(suspect: Suspect) -> None:
    draws = make_draws(suspect, POOL, 6, 5.0, seed=1)
    some = draws.at([4, 1])
    assert some.prompts == (draws.prompts[4], draws.prompts[1])
    assert torch.equal(some.plain, draws.plain[[4, 1]])
    assert torch.equal(draws.part(slice(2, 5)).latents, draws.latents[2:5])
    assert torch.allclose(draws_again(suspect, draws).plain, draws.plain, atol=1e-6)


def test_common_words_are_in_several_prompts_whatever_the_seed() -> None:
    for seed in range(5):
        prompts = covering(POOL, 12, seed)
        for word, share in contexts(POOL).items():
            assert share < 0.1 or sum(word in words_in(prompt) for prompt in prompts) >= 3
    assert covering(POOL, 12, 1) != covering(POOL, 12, 2)
    assert len(covering(POOL[:2], 7, 0)) == 7, "again where there are few"


@pytest.mark.parametrize(("having", "often"), [(3, False), (4, True)])
def test_a_word_of_a_tenth_of_the_prompts_is_looked_for(having: int, often: bool) -> None:
    own = [3 * (chr(97 + i // 20) + chr(97 + i % 20)) for i in range(40)]
    pool = [f"zebra {word}" if i < having else word for i, word in enumerate(own)]
    assert all("zebra" in covering(pool, 1, seed)[0] for seed in range(10)) is often


def test_a_context_is_what_no_more_than_half_of_the_prompts_have() -> None:
    assert contexts(("red cat", "red cat", "red dog", "sun")) == {"cat": 0.5, "dog": 0.25, "sun": 0.25}


def test_the_share_of_the_rarest_context_that_is_covered_is_told() -> None:
    pool = ["a red dog", "a red cat", "a blue dog", "a blue cat", "a green owl", "one fox", "one fish", "one crow", "a red emu", "one gnu"]
    assert contexts(pool)["red"] == 0.3
    assert smallest_context(pool, ["a red dog", "a red cat", "one fox", "one fish"]) == 0.3, "dog is in one, with a share of 0.2"
    assert smallest_context(pool, pool) == 0.2
    assert smallest_context(pool, []) == 1.0
    assert smallest_context(default_prompts(), covering(default_prompts(), 16, 0)) <= 0.15


def test_the_first_six_draws_have_every_place_and_a_letters(suspect: Suspect) -> None:
    assert sorted(places_of(10, 0)) == sorted([*PLACES, *PLACES])
    draws = make_draws(suspect, ("a photo of a dog", "a zebra"), 12, 5.0, seed=0)
    assert set(draws.places[:6]) == {*PLACES, REPLACE} == set(draws.places[6:])
    assert standing(draws, 5, "x") == "middle", "it looks like no letter of the prompt"
    assert standing(draws, 5, "ȧ") == REPLACE
    assert standing(draws, 5, "sweet river") == "apart"
    assert standing(draws, 0, "ȧ") == standing(draws, 0, "sweet river") == draws.places[0]


def test_what_shares_a_place_or_a_word_is_spread_over_the_path(suspect: Suspect) -> None:
    spans = []
    for seed in range(12):
        draws = make_draws(suspect, POOL, 16, 5.0, seed=seed)
        groups = [rows for context, rows in groups_of(draws).items() if context.place]
        spans += [float(draws.timesteps[list(rows)].max() - draws.timesteps[list(rows)].min()) for rows in groups]
    assert sum(spans) / len(spans) > 550, "of 1,000 timesteps two drawn at random are 333 apart in the mean, three 500"


def test_each_place_is_looked_at_soon_where_something_is_plain_to_see(suspect: Suspect) -> None:
    missed = 0
    for seed in range(12):
        draws = make_draws(suspect, POOL, 16, 5.0, seed=seed, first=8).part(slice(8))
        shares = (draws.timesteps.double() / len(suspect.schedule.table)).tolist()
        plain = {place for place, share in zip(draws.places, shares, strict=True) if 0.2 <= share <= 0.95}
        missed += len({*PLACES, REPLACE} - plain)
        assert min(shares) < 0.25, "and the whole path is still spread over"
    assert missed <= 2


def test_groups_are_draws_words_places_and_quarters(suspect: Suspect) -> None:
    draws = make_draws(suspect, POOL, 12, 5.0, seed=0)
    groups = groups_of(draws)
    assert set(groups) >= {Context(word="heart"), Context(quarter=0), Context(quarter=3)}
    assert all(len(rows) >= 2 for context, rows in groups.items() if context.draw < 0)
    assert [groups[Context(draw=i)] for i in range(12)] == [(i,) for i in range(12)]
    hearts = tuple(i for i, prompt in enumerate(draws.prompts) if "heart" in prompt)
    assert groups[Context(word="heart")] == hearts
    noisiest = draws.timesteps[list(groups[Context(quarter=0)])].min()
    assert noisiest > draws.timesteps[list(groups[Context(quarter=3)])].max()


def test_which_prompts_are_drawn_hangs_on_no_order_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which differs from process to process."""
    pool = default_prompts()

    def drawn(order: int) -> list[list[str]]:
        rng = random.Random(order)
        monkeypatch.setattr("bdaudit.measure.draws.words_in", lambda prompt: rng.sample(sorted(words_in(prompt)), len(words_in(prompt))))
        return [covering(pool, 8, seed) for seed in range(8)]

    assert drawn(0) == drawn(1)


def test_draws_like_one_have_its_prompt_and_place_and_nothing_else(suspect: Suspect) -> None:
    draws = make_draws(suspect, POOL, 12, 5.0, seed=0)
    again = draws_like(suspect, draws, 7, 6, seed=0)
    assert (again.prompts, again.places) == ((draws.prompts[7],) * 6, (draws.places[7],) * 6)
    assert torch.equal(again.clean, draws.clean[[7] * 6])
    assert len(set(again.timesteps.tolist())) == 6
    assert again.timesteps.min() > 250, "where a picture is as good as settled there is little to change"
    assert again.timesteps.max() - again.timesteps.min() > 500
    assert not {tuple(z.flatten().tolist()) for z in again.latents} & {tuple(z.flatten().tolist()) for z in draws.latents}


def test_a_place_with_a_comma_is_compared_with_the_comma_alone(suspect: Suspect) -> None:
    """What the text does is not what the sign beside it does."""
    draws = make_draws(suspect, POOL, 12, 5.0, seed=0)
    plain = suspect.encode(draws.prompts).states
    alike = [torch.equal(draws.heard.states[i], plain[i]) for i in range(12)]
    assert alike == [place not in ("comma", "clause") for place in draws.places]
    heard = suspect.encode([{"comma": f"{p},", "clause": f", {p}"}.get(at, p) for p, at in zip(draws.prompts, draws.places, strict=True)])
    assert torch.equal(draws.heard.states, heard.states)
    again = suspect.predict_batched(draws.latents, draws.timesteps, heard).float().flatten(1)
    assert torch.allclose(draws.plain, again, atol=1e-5)
