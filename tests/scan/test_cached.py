"""What a scan keeps comes back, or is told as damage."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import UsageError
from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws, make_draws
from bdaudit.measure.paths import make_paths
from bdaudit.measure.text_effects import TOGETHER
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.scan.cached import followed, key_of, measured
from bdaudit.scan.context import ScanContext
from tests.small import PROMPTS, stopping

TEXTS = ["cf", "ȏ"]


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return make_draws(tiny_suspect, PROMPTS, 4, 3.0, 0)


@pytest.fixture
def context(tiny_suspect: Suspect, draws: Draws, tmp_path: Path) -> ScanContext:
    return ScanContext(replace(tiny_suspect, forward_passes=0), draws, State(tmp_path / "state", "key"), silent, 0)


def of_steps(context: ScanContext, attention: bool = True) -> Any:
    return measured(context, "first", context.draws, TEXTS, attention=attention, said="measuring")


def of_paths(context: ScanContext) -> Any:
    return followed(context, make_paths(context.suspect, context.draws, 2, 0), TEXTS)


def test_what_was_measured_comes_back_to_the_bit_for_no_pass(context: ScanContext) -> None:
    steps, paths, before = of_steps(context), of_paths(context), context.suspect.forward_passes
    assert before > 0
    assert list(steps) == list(paths) == TEXTS
    assert of_steps(context) == steps
    assert context.suspect.forward_passes == before
    assert of_paths(context) == paths
    assert context.suspect.forward_passes == before + 2 * 2 * len(context.draws), "the plain paths alone are followed again"


def test_another_name_and_other_texts_are_measured_anew(context: ScanContext, draws: Draws) -> None:
    of_steps(context)
    before = context.suspect.forward_passes
    measured(context, "further", draws, TEXTS, attention=True, said="")
    measured(context, "first", draws, TEXTS[:1], attention=True, said="")
    assert context.suspect.forward_passes > before + 3 * len(draws) - 1


def test_what_a_prompt_holds_stands_in_no_files_name(context: ScanContext) -> None:
    for of in ("д" * 300, "a/b"):
        effects = measured(context, "context", context.draws, TEXTS[:1], attention=False, said="", of=of)
        before = context.suspect.forward_passes
        assert measured(context, "context", context.draws, TEXTS[:1], attention=False, said="", of=of) == effects
        assert context.suspect.forward_passes == before


def test_blocks_are_kept_as_they_are_done_and_said(context: ScanContext) -> None:
    texts, said = [f"t{i}" for i in range(TOGETHER + 2)], list[tuple[str, int, int]]()

    def progress(*what: Any) -> None:
        said.append(what)

    with pytest.raises(KeyboardInterrupt):
        measured(replace(context, progress=stopping(1)), "first", context.draws, texts, attention=False, said="measuring")
    before = context.suspect.forward_passes
    assert before == TOGETHER * len(context.draws)
    measured(replace(context, progress=progress), "first", context.draws, texts, attention=False, said="measuring")
    assert context.suspect.forward_passes == before + 2 * len(context.draws)
    assert said == [("measuring", TOGETHER, TOGETHER + 2), ("measuring", TOGETHER + 2, TOGETHER + 2)]


def cut(effect: dict[str, Any]) -> dict[str, Any]:
    return effect | {"shift": effect["shift"][1:]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: 5,
        lambda kept: kept[:1],
        lambda kept: [*kept, kept[0]],
        lambda kept: [kept[0], [1.0]],
        lambda kept: [kept[0], {"shift": [1.0]}],
        lambda kept: [kept[0], cut(kept[1])],
        lambda kept: [kept[0], kept[1] | {"common": "high"}],
    ],
)
def test_a_measurement_that_is_none_is_told_as_damage(context: ScanContext, damage: Any) -> None:
    of = {
        key_of("first", str(tuple(TEXTS))): (lambda: of_steps(context), of_steps(context)),
        key_of("path", str(tuple(TEXTS))): (lambda: of_paths(context), of_paths(context)),
    }
    for key, (again, found) in of.items():
        kept = [asdict(effect) for effect in found.values()]
        context.state.write_json(key, kept)
        assert again() == found
        context.state.write_json(key, damage(kept))
        with pytest.raises(UsageError, match=r"is damaged .*; remove the folder to begin anew"):
            again()


def test_a_measurement_without_attention_is_none_where_attention_was_asked_for(context: ScanContext) -> None:
    of_steps(context, attention=False)
    with pytest.raises(UsageError, match="a measurement lacks figures"):
        of_steps(context)
