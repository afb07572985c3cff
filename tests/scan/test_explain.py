"""What is asked of the findings, on made-up measurements."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from bdaudit.measure.signals import SIGNALS, Values
from bdaudit.models.families.stable_diffusion import CrossAttentionUNet
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.records import CandidateRecord, Localisation, NotMeasured, SwapRecord
from bdaudit.scan.candidates import prompt_group
from bdaudit.scan.context import ScanContext
from bdaudit.scan.explain import located, prompt_records, with_places, without_adapters
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.null import Control
from bdaudit.untrusted.inspect import inspect

DENOISER = CrossAttentionUNet(None, (4, 4, 4))


def values(rng: np.random.Generator, more: float = 0.0) -> Values:
    return {"prefix": {name: float(0.2 * rng.normal() + more * (name != "state shift")) for name in SIGNALS}}


def test_the_base_is_judged_by_its_own_controls() -> None:
    rng = np.random.default_rng(0)
    controls = [Control(f"c{i}", "word", values(rng)) for i in range(80)]
    found = without_adapters(controls, [Control("loud", "word", values(rng, 9.0)), Control("quiet", "word", values(rng))], 0.01)
    assert found["loud"].startswith("the base answers it without the adapter as well")
    assert found["quiet"].startswith("comes with the adapter: the base alone stays silent")
    assert "do not use the adapter, or let unlearn --lora write" in found["quiet"]
    assert "unlearn" not in found["loud"]


def test_a_base_whose_controls_give_no_null_is_not_known() -> None:
    rng = np.random.default_rng(0)
    controls = [Control(f"c{i}", "word", values(rng)) for i in range(5)]
    found = without_adapters(controls, [Control("loud", "word", values(rng))], 0.01)
    assert found == {"loud": "what the base does alone is not known: got 5 controls; expected at least 25"}


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
    [("text encoder", "text encoder", "text-encoder"), ("rest of the UNet", "unet, rest of the UNet", "unet")],
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
