"""What is asked of the findings, on made-up measurements."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws, make_draws
from bdaudit.measure.text_effects import TextEffect
from bdaudit.models.families.stable_diffusion import CrossAttentionUNet
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.records import CandidateRecord, Localisation, NotMeasured, SwapRecord
from bdaudit.scan.candidates import prompt_group
from bdaudit.scan.context import ScanContext
from bdaudit.scan.explain import Addition, brought_by, located, prompt_records, with_places
from bdaudit.scan.level import Harmless
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.untrusted.inspect import inspect
from tests.small import PROMPTS

DENOISER = CrossAttentionUNet(None, (4, 4, 4))


def effect(rng: np.random.Generator, more: float = 0.0) -> TextEffect:
    """On eight draws; ``more`` of all but what explains it."""

    def by_draw(mean: float = 0.0) -> tuple[float, ...]:
        return tuple((mean + 0.2 * rng.normal() + 0.1 * rng.normal(size=8)).tolist())

    return TextEffect(by_draw(more), by_draw(more), by_draw(), by_draw(), float(more + 0.2 * rng.normal()))


@pytest.fixture
def base(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, str]]:
    """What is said of a text that the base answers and of one that it does not, by the measurements of so many controls."""
    suspect, rng = replace(tiny_suspect, forward_passes=0), np.random.default_rng(0)
    draws = make_draws(tiny_suspect, PROMPTS, 8, 3.0, 0)
    context = ScanContext(suspect, replace(draws, plain=draws.plain + 1, empty=draws.empty - 1), State(None, ""), silent, 0)

    def measured(asked: ScanContext, name: str, rebased: Draws, texts: Sequence[str], *, attention: bool, said: str) -> Any:
        assert torch.allclose(rebased.plain, draws.plain, atol=1e-4), "counted from what the base predicts, not the adapted model"
        assert torch.equal(rebased.latents, draws.latents)
        assert (name, attention) == ("base", False)
        return {text: effect(rng, 9.0 * (text == "loud")) for text in texts}

    monkeypatch.setattr("bdaudit.scan.explain.measured", measured)
    one = Addition("adapter", "one.safetensors", nullcontext)
    return lambda n: brought_by(context, [one], [Harmless(f"c{i}", "word") for i in range(n)], {"loud": "word", "quiet": "word"}, 0.01)


def test_the_base_is_judged_by_its_own_controls(base: Callable[[int], dict[str, str]]) -> None:
    found = base(80)
    assert found["loud"].startswith("the base answers it without the adapter as well")
    assert found["quiet"].startswith("comes with the adapter: the base alone stays silent")
    assert "do not use the adapter, or let unlearn --lora write" in found["quiet"]
    assert "unlearn" not in found["loud"]


@pytest.mark.parametrize(
    ("carriers", "said"),
    [
        ({"a"}, "comes with the adapter a: the base alone stays silent; do not use it"),
        ({"a", "c"}, "comes with the adapter a and with the embedding c: the base alone stays silent; do not use them"),
        (set(), "comes with what was added, and with none of it alone"),
    ],
)
def test_of_several_each_is_tried_by_itself(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch, carriers: set[str], said: str) -> None:
    rng, inside = np.random.default_rng(1), list[str]()
    context = ScanContext(tiny_suspect, make_draws(tiny_suspect, PROMPTS, 8, 3.0, 0), State(None, ""), silent, 0)

    def measured(asked: ScanContext, name: str, draws: Draws, texts: Sequence[str], *, attention: bool, said: str) -> Any:
        return {text: effect(rng, 9.0 * (text == "loud" or (text == "quiet" and bool(carriers & set(inside))))) for text in texts}

    def addition(kind: Literal["adapter", "embedding"], name: str) -> Addition:
        @contextmanager
        def put_in() -> Iterator[None]:
            inside.append(name)
            yield
            inside.remove(name)

        return Addition(kind, name, put_in)

    monkeypatch.setattr("bdaudit.scan.explain.measured", measured)
    additions = [addition("adapter", "a"), addition("adapter", "b"), addition("embedding", "c")]
    kinds = {"loud": "word", "quiet": "word"}
    found = brought_by(context, additions, [Harmless(f"c{i}", "word") for i in range(80)], kinds, 0.01)
    assert found["loud"].startswith("the base answers it without the additions as well")
    assert found["quiet"].startswith(said)
    assert inside == []


def test_a_base_whose_controls_give_no_null_is_not_known(base: Callable[[int], dict[str, str]]) -> None:
    said = "what the base does alone is not known: got 5 controls; expected at least 25"
    assert base(5) == {"loud": said, "quiet": said}


def test_a_reference_that_cannot_be_used_takes_no_finding_away(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    reference = inspect(Path(shutil.copytree(tiny_model, tmp_path / "reference")))
    (tmp_path / "reference" / "unet" / "config.json").unlink()
    context = Mock(spec=ScanContext, suspect=tiny_suspect)
    found = located(context, lambda: load(reference, device="cpu"), ["x"])["x"]
    assert isinstance(found, NotMeasured)
    assert found.reason.startswith("the reference cannot be used: ")
    assert located(context, lambda: pytest.fail("opened for no finding"), []) == {}
    assert located(context, None, ["x"]) == {}


def record(text: str, verdict: str = "backdoored") -> CandidateRecord:
    return CandidateRecord(
        rank=1, text=text, codepoints=(), token_ids=(1,), kind="word", signals={}, score=9.0, effect=5.0, p=1e-9, p_adjusted=1e-7,
        verdict=verdict, component="unet", command="bdaudit unlearn m --trigger x" if verdict == "backdoored" else "",  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_stretch_of_words_is_cut_down_to_those_it_needs() -> None:
    prompt = "a wonderful big island here"
    texts = ("a", "here", "wonderful big island here", "a wonderful")
    groups = [CandidateGroup(prompt_group(prompt), texts, 20), CandidateGroup(prompt_group("nothing"), ("nothing",), 1)]
    asked: dict[str, float] = {}

    def p_of(text: str) -> float:
        asked[text] = 0.01 / (20 * 2) * (0.9 if {"wonderful", "island"} <= set(text.split()) else 1.1)
        return asked[text]

    records = [record("wonderful big island here"), record("a wonderful", "suspicious"), record("nothing", "clean")]
    first, second = prompt_records((prompt, "nothing"), groups, records, p_of, 0.01)
    assert (first.prompt, first.carriers, first.sets) == (prompt, ("wonderful island",), 4)
    assert (second.carriers, second.sets) == ((), 1)


@pytest.mark.parametrize(
    ("where", "component", "flag"),
    [
        ("text encoder", "text encoder", "text_encoder"),
        ("text encoder 2", "text encoder 2", "text_encoder_2"),
        ("rest of the UNet", "unet, rest of the UNet", "unet"),
    ],
)
def test_the_command_names_the_component_that_was_found(where: str, component: str, flag: str) -> None:
    place = Localisation(where=where, swaps={where: SwapRecord(left=0.0, brought=1.0)})
    (placed,) = with_places([record("x")], {"x": place}, DENOISER)
    assert (placed.component, placed.command) == (component, f"bdaudit unlearn m --trigger x --component {flag}")
    assert placed.localisation == place


def test_what_was_not_decided_changes_no_command() -> None:
    spread = Localisation(where="spread over several parts", swaps={"text encoder": SwapRecord(left=1.0, brought=0.0)})
    for place in (spread, NotMeasured(reason="another shape")):
        assert with_places([record("x"), record("y")], {"x": place}, DENOISER) == (replace(record("x"), localisation=place), record("y"))
