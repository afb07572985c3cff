"""The rivals' scores on tiny transformers with joint attention: by hand, alone and in company, and on a planted edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bdaudit.models.attention import recorded
from bdaudit.models.suspect import Suspect
from tests.bench.power import rivals
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import LIST, TRIGGER, opened, planted, reading_little

TEXTS = ("today", "good")
GUIDED = {"sd3": True, "flux": False}


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module")
def folders(few_tokens: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name) for name in GUIDED}


def by_hand(suspect: Suspect, text: str) -> float:
    """FTT of one denoising step, from the paper's equation 4, word by word."""
    scores = []
    for i, prompt in enumerate(rivals.inserted(LIST, text)):
        latents = rivals._noise(suspect, rivals.PROMPTS)[i : i + 1]
        with recorded(suspect.denoiser.sites()) as recording:
            suspect.predict(latents, suspect.schedule.times(1, 1.0), suspect.encode([prompt]), rivals.GUIDANCE)
        mean = np.mean([maps[0].numpy() for maps in recording.latest().values()], axis=0)
        (words,) = suspect.text.words(suspect.text.ids([prompt]))
        maps = [mean[:, at] / mean[:, at].max() for at in words.nonzero().flatten().tolist()]
        middle = np.mean(maps, axis=0)
        scores.append(np.mean([np.linalg.norm(each - middle) for each in maps]))
    return -float(np.mean(scores))


@pytest.mark.parametrize("name", GUIDED)
def test_ftt_is_the_papers_equation_on_the_words_of_every_reader(folders: dict[str, Path], name: str) -> None:
    suspect = opened(folders[name])
    found = rivals.ftt(suspect, LIST, TEXTS, 1)
    assert found == pytest.approx([by_hand(suspect, text) for text in TEXTS], rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=1e-3)
    assert rivals.ftt(suspect, LIST, TEXTS[1:], 1) == pytest.approx(found[1:], rel=1e-4)
    (words,) = suspect.text.words(suspect.text.ids(["today"]))
    spoken = words.nonzero().flatten().tolist()
    clips = [at for at in spoken if at < 77] if name == "sd3" else []
    assert bool(clips) is (name == "sd3")
    assert len(spoken) > len(clips), "T5's words are among them"


def test_what_the_denoiser_hears_has_the_pooled_vector_in_it(folders: dict[str, Path]) -> None:
    suspect = opened(folders["sd3"])
    said, found = suspect.encode(TEXTS), rivals.heard(suspect, TEXTS)
    assert said.pooled is not None
    assert found.shape == (2, said.states[0].numel() + said.pooled.shape[1])
    assert torch.equal(found[:, -said.pooled.shape[1] :], said.pooled)


def test_navi_by_hand_and_on_an_edit_of_the_entrances(folders: dict[str, Path]) -> None:
    """EvilEdit's rank-one edit, by which a word says more to the denoiser than to the readers: what NaviT2I looks for."""
    clean, bad = opened(folders["sd3"]), planted(opened(folders["sd3"]), steps=10)

    def scores(suspect: Any) -> list[float]:
        return rivals.navi(suspect, LIST, (TRIGGER, *TEXTS), lambda texts: rivals.heard(clean, texts))

    before, after = scores(clean), scores(bad)
    assert after[0] > 1.2 * before[0]
    assert after[0] > max(after[1:])
    prompt, z, t = rivals.inserted(LIST, TRIGGER)[0], rivals._noise(clean, 1), clean.schedule.times(50, 1.0)[:1]
    words = prompt.split(" ")
    rows = [prompt, *(" ".join(words[:i] + words[i + 1 :]) for i in range(len(words)))]
    outputs = [clean.predict_batched(z, t, clean.encode([row])) for row in rows]
    states = [rivals.heard(clean, [row]) for row in rows]
    ratios = [float((outputs[i] - outputs[0]).norm() / (states[i] - states[0]).norm()) for i in range(1, len(rows))]
    lowest = sorted(ratios)[: max(1, int(0.75 * len(ratios)))]
    assert rivals._navi(clean, [prompt], lambda texts: rivals.heard(clean, texts)) == pytest.approx(max(ratios) / np.mean(lowest), rel=1e-3)
