"""The masks on a planted case: one contributor whose cross-attention answers every word loudly, one that learned a little of all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bdaudit.measure import estimates
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.merging import adversary, defence
from bdaudit.unlearn.merging.blend import Blend, parameters_of
from bdaudit.unlearn.merging.closed_forms import task_arithmetic
from bdaudit.unlearn.merging.findings import let_through, nearness, nearness_check, token_excess
from bdaudit.unlearn.merging.lessons import Lessons, collect
from tests.small import PROMPTS


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def blend(fresh_suspect: Suspect, tiny_suspect: Suspect) -> Blend:
    generator, loud, mild = torch.Generator().manual_seed(0), {}, {}
    for name, p in parameters_of(tiny_suspect).items():
        noise = torch.randn(p.shape, generator=generator) * p.detach().square().mean().sqrt()
        if name.startswith("unet."):
            mild[name] = 0.05 * noise
        if "attn2.to_v" in name or "attn2.to_k" in name:
            loud[name] = 4 * noise
    return Blend(fresh_suspect, tiny_suspect, [loud, mild], scale=0.3)


@pytest.fixture
def lessons(blend: Blend, tiny_suspect: Suspect) -> Lessons:
    return collect(blend, tiny_suspect, PROMPTS, guidance_scale=2.0, seed=0, tick=quiet)


def test_lessons_are_what_each_contributor_predicts(blend: Blend, tiny_suspect: Suspect, lessons: Lessons) -> None:
    assert lessons.taught.shape == (2, *lessons.z.shape)
    rows = torch.bincount(lessons.text, minlength=len(PROMPTS) + 1).tolist()
    assert min(rows[:-1]) >= 8, "no prompt gives all of its rows to the empty one"
    assert rows[-1] >= len(PROMPTS)
    blend.put_difference(blend.vectors[1])
    rows = torch.tensor([0, 7, 13])
    assert torch.allclose(adversary.predicted(blend, lessons, rows), lessons.taught[1, rows], atol=1e-5)
    blend.put_difference({})
    merged, origin = nearness(blend, lessons)
    assert torch.allclose(merged, origin, rtol=1e-3), "the base is as far as the base"
    assert estimates.ratio(merged[0], origin[0]).value == pytest.approx(1, rel=1e-3)
    assert nearness_check(merged / 2, origin).status == "passed"
    assert nearness_check(merged * 2, origin).status == "failed"
    wavering = origin * (1 + 0.5 * (-1) ** torch.arange(origin.shape[1]))
    assert nearness_check(wavering, origin).status == "undecided"
    blend.put_difference(blend.vectors[1])
    assert estimates.ratio(*(side[1] for side in nearness(blend, lessons))).value == pytest.approx(0, abs=1e-6)
    assert defence.teaching_loss(lessons, torch.arange(len(lessons.z)), lessons.plain) == pytest.approx(1, rel=1e-4)


def test_an_attack_finds_more_than_a_random_entry(blend: Blend, tiny_suspect: Suspect, lessons: Lessons) -> None:
    blend.put_difference(blend.vectors[0])
    generator = torch.Generator().manual_seed(5)
    token, value = adversary.attack(blend, tiny_suspect, lessons, generator)
    entries = [float(token_excess(blend, tiny_suspect, lessons, adversary.start(tiny_suspect, 1, generator)).value) for _ in range(8)]
    assert float(token_excess(blend, tiny_suspect, lessons, token).value) > sorted(entries)[4]
    assert float(value) > 0
    blend.put_difference({})
    assert token_excess(blend, tiny_suspect, lessons, token).value == pytest.approx(0, abs=1e-9), "the base does nothing beyond itself"


def whole_excess(blend: Blend, base: Suspect, lessons: Lessons, token: torch.Tensor) -> float:
    """Median over all rows: the tiny model answers a few of them wildly."""
    rows = torch.nonzero(lessons.text < len(PROMPTS))
    with torch.no_grad():
        now = adversary.predicted(blend, lessons, rows.flatten())
        return float(adversary.excess(blend, base, lessons, token.expand(len(rows), -1, -1), rows, now).median())


def test_the_safety_masks_close_on_the_loud_contributor(
    blend: Blend, tiny_suspect: Suspect, lessons: Lessons, monkeypatch: pytest.MonkeyPatch
) -> None:
    blend.put_difference(blend.vectors[0])
    token, _ = adversary.attack(blend, tiny_suspect, lessons, torch.Generator().manual_seed(5))
    blend.put_difference(task_arithmetic(blend.vectors))
    plain, left = whole_excess(blend, tiny_suspect, lessons, token), {}
    for weight in (0.0, 10.0):
        monkeypatch.setattr(defence, "SAFETY_WEIGHT", weight)
        found = defence.optimise(blend, tiny_suspect, lessons, 0, quiet)
        left[weight] = let_through(blend, blend.vectors[0], found.safety[0]), whole_excess(blend, tiny_suspect, lessons, token)
    assert left[10.0][0] < left[0.0][0], "the weight of the adversary is what closes the mask"
    assert left[10.0][1] < min(plain, left[0.0][1])
    assert float(found.shared.mean()) == pytest.approx(1, abs=1e-5)
    assert ((found.safety >= 0) & (found.safety <= 1)).all()
    assert [point.step for point in found.curve] == list(range(1, defence.ROUNDS + 1))


@pytest.mark.parametrize("mask", defence.MASKS)
def test_each_mask_alone_and_by_its_seed(
    blend: Blend, tiny_suspect: Suspect, lessons: Lessons, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    monkeypatch.setattr(defence, "ROUNDS", 3)
    first, again, other = (defence.optimise(blend, tiny_suspect, lessons, seed, quiet, (mask,)) for seed in (1, 1, 2))
    moved, still = (found_of(first, name) for name in (mask, *(m for m in defence.MASKS if m != mask)))
    assert (still == 1).all()
    assert not (moved == moved.flatten()[0]).all()
    assert torch.equal(found_of(again, mask), moved)
    assert not torch.equal(found_of(other, mask), moved)


def found_of(found: defence.Found, mask: str) -> torch.Tensor:
    return found.shared if mask == "shared" else found.safety


def test_the_text_encoder_is_merged_where_it_differs(fresh_suspect: Suspect, tiny_suspect: Suspect, tmp_path: Path) -> None:
    name = "text_encoder.encoder.layers.0.mlp.fc1.weight"
    origin = parameters_of(tiny_suspect)[name].detach()
    blend = Blend(fresh_suspect, tiny_suspect, [{name: origin.clone()}, {name: 0.1 * origin}], scale=0.3)
    lessons = collect(blend, tiny_suspect, PROMPTS, guidance_scale=2.0, seed=0, tick=quiet)
    assert (lessons.taught[0] - lessons.plain).abs().max() > 0
    before = lessons.heard.states.clone()
    defence.optimise(blend, tiny_suspect, lessons, 0, quiet)
    assert torch.equal(tiny_suspect.encode(lessons.texts).states, before)
    assert not torch.equal(fresh_suspect.encode(lessons.texts).states, before)


def test_a_token_is_measured_on_one_latent_of_each_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = SimpleNamespace(text=torch.tensor([1, 0, 1, 0, 2, 1, 0]), texts=("a", "b", ""))
    asked: list[list[int]] = []

    def excess(*given: Any) -> torch.Tensor:
        asked.append(given[4].flatten().tolist())
        return torch.ones(2)

    monkeypatch.setattr(adversary, "predicted", lambda blend, lessons, rows: asked.append(rows.tolist()))
    monkeypatch.setattr(adversary, "excess", excess)
    token_excess(None, None, lessons, torch.zeros(1, 1, 8))  # type: ignore[arg-type]
    assert asked == [[1, 2], [1, 2]], "the first latent of the first prompt, the second of the second"
