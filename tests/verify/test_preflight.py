"""What is told before a run draws: that there is no grader, what that costs, and how the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.errors import UsageError
from bdaudit.measure import open_clip_model
from bdaudit.records import NotMeasured
from bdaudit.verify import inception, preflight
from tests.verify import toy

NO_GRADER = "no grader: the weights of ViT-L-14/openai are not on this machine; fetch them with: hf download "


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: None)
    monkeypatch.setattr(inception, "find_spec", lambda name: None)


def told(**settings: Any) -> str:
    first, second = preflight.lacking(VerifyConfig(model=Path("m"), evidence="none", **settings))
    assert first.startswith(NO_GRADER)
    return second


def test_what_is_not_measured_is_named() -> None:
    quality = "prompt_following, clip_score, diversity"
    assert told().startswith(f"not measured without a grader: {quality};")
    assert f"{quality}, clip_ratio, diversity_ratio, distance, kid, fid;" in told(reference=Path("r"))
    assert f": attack success, {quality};" in told(triggers=("x",), target_text="a dog")
    assert f": {quality};" in told(triggers=("x",))


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({}, False),
        ({"triggers": ("x",), "swaps": (("dog", "cat"),)}, False),
        ({"real_images": Path("photos")}, False),
        ({"triggers": ("x",)}, True),
        ({"triggers": ("x",), "target_image": Path("patch.png")}, True),
        ({"reference": Path("r")}, True),
    ],
)
def test_how_the_run_ends(settings: dict[str, Any], drawn: bool) -> None:
    assert ("nothing is drawn" in told(**settings)) != drawn
    assert ("the rest is measured" in told(**settings)) == drawn


def test_with_inception_real_pictures_are_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "find_inception", lambda: Path("weights"))
    assert "kid" not in told(real_images=Path("photos"))
    assert "the rest is measured" in told(real_images=Path("photos"))


def test_a_grader_that_is_here_needs_no_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    assert preflight.lacking(VerifyConfig(model=Path("m"))) == ()
    assert preflight.lacking(VerifyConfig(model=Path("m"), clip="local-dir:grader")) == ()


def test_an_unknown_grader_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="expected MODEL/PRETRAINED"):
        preflight.lacking(VerifyConfig(model=Path("m"), clip="nonsense"))


def test_what_was_told_is_what_the_run_does(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bdaudit.verify import run

    monkeypatch.setattr(run, "load_grader", lambda name, device: NotMeasured(reason="not here"))
    trigger = {"triggers": (toy.TRIGGER,)}
    cases: list[dict[str, Any]] = [{}, {**trigger, "target_text": "a dog"}, trigger, {"reference": models / "dead"}]
    for settings in cases:
        config = VerifyConfig(model=models / "clean", prompts=toy.PROMPTS, n=8, reach=0, **settings)
        report = run.run_verify(config)
        assert any("nothing is drawn" in line for line in preflight.lacking(config)) == (report.pictures["drawn"] == 0)
