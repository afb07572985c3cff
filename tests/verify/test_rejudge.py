"""A second run under other bounds: the same figures, other checks, and nothing loaded; whatever else differs is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.records import VerifyReport
from bdaudit.verify import rejudge
from tests.verify import toy

Run = Callable[..., tuple[VerifyReport, bool]]


@pytest.fixture
def verify(models: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The report, and whether anything was measured for it."""
    from bdaudit.verify import run

    measured: list[VerifyConfig] = []
    genuine = run.run_verify
    monkeypatch.setattr(run, "run_verify", lambda config, progress: (measured.append(config), genuine(config, progress))[1])
    grader = tmp_path / "grader"
    grader.mkdir()
    (grader / "weights").write_text("one")
    plain = VerifyConfig(
        model=models / "clean", triggers=(toy.TRIGGER,), prompts=toy.PROMPTS, clip=f"local-dir:{grader}", state=tmp_path / "state",
        target_image=patch, target_at=(0, 0), n=40, reach=0, evidence="none",
    )  # fmt: skip

    def verify(**settings: Any) -> tuple[VerifyReport, bool]:
        measured.clear()
        return rejudge.run_verify(replace(plain, **settings)), bool(measured)

    return verify


def test_other_bounds_give_other_checks_on_the_same_figures(verify: Run) -> None:
    first, measured = verify(max_asr=0.2)
    assert (first.exit.code, measured) == (0, True)
    second, measured = verify(max_asr=0.001)
    assert (second.exit.code, measured) == (4, False)
    assert (second.attacks, second.metrics, second.environment) == (first.attacks, first.metrics, first.environment)
    assert (second.config["max_asr"], second.timings.keys()) == (0.001, {"recall"})
    assert second.pictures == {"drawn": 0, "reused": first.pictures["drawn"], "damaged": 0}


@pytest.mark.parametrize("other", [{"seed": 1}, {"n": 41}, {"target_at": (1, 0)}, {"steps": 3}, {"triggers": ("x",)}])
def test_another_measurement_is_made(verify: Run, other: dict[str, Any]) -> None:
    verify()
    assert verify(**other)[1]
    assert not verify(**other)[1]


def test_another_model_reference_grader_or_target_is_measured(verify: Run, models: Path, patch: Path, tmp_path: Path) -> None:
    verify()
    assert verify(model=models / "patched")[0].exit.code == 1
    assert verify(reference=models / "patched")[1]
    assert not verify(model=models / "patched")[1]
    assert verify(before=models / "patched")[1], "the same model in another part: it is the evidence now"
    (tmp_path / "grader" / "weights").write_text("two")
    assert verify()[1]
    patch.write_bytes((tmp_path / "patch.png").read_bytes() + b" ")
    assert verify()[1]


def test_the_model_from_before_is_no_reference_and_the_other_way_round(verify: Run, models: Path) -> None:
    assert verify(before=models / "patched")[1]
    assert verify(reference=models / "patched")[1]
    assert not verify(before=models / "patched")[1]


def test_what_cannot_be_told_apart_in_seconds_is_measured(verify: Run, tmp_path: Path) -> None:
    verify()
    assert verify(save_images=tmp_path / "pictures")[1]
    assert verify(state=None)[1]


def test_damaged_figures_are_measured_anew(verify: Run, tmp_path: Path) -> None:
    first, _ = verify()
    (kept,) = (tmp_path / "state").glob("figures-*.json")
    kept.write_text(kept.read_text()[:-40])
    second, measured = verify()
    assert measured
    assert second.attacks == first.attacks
    assert not verify()[1]


def test_a_model_exchanged_while_it_is_measured_does_not_take_over_the_figures(
    verify: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bdaudit.verify import run

    measured = run.run_verify

    def exchanging(config: VerifyConfig, progress: Any) -> VerifyReport:
        report = measured(config, progress)
        with (models / "clean" / "model_index.json").open("a") as index:
            index.write("   ")
        return report

    monkeypatch.setattr(run, "run_verify", exchanging)
    verify()
    monkeypatch.setattr(run, "run_verify", measured)
    assert verify()[1], "the figures are those of the model that was there before"


def test_a_link_in_the_figures_place_is_not_followed(verify: Run, tmp_path: Path) -> None:
    verify()
    (kept,) = (tmp_path / "state").glob("figures-*.json")
    kept.rename(tmp_path / "elsewhere.json")
    kept.symlink_to(tmp_path / "elsewhere.json")
    assert verify()[1]
