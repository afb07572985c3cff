"""What a dry run sees of the files that a run reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.cli.verbs import check_readable
from bdaudit.config import ScanConfig, VerifyConfig
from bdaudit.errors import UsageError

PROMPTS = ("a cf dog", "a cat", "the cf sea")


def seen(name: str, pipeline: str = "P") -> Any:
    return SimpleNamespace(layout=SimpleNamespace(name=name), pipeline_class=pipeline, settings={"vae": {}}, latents=(8, 8))


def test_a_reference_of_another_family_locates_nothing() -> None:
    config = ScanConfig(model=Path("m"), reference=Path("r"))
    assert check_readable(config, [seen("sd"), seen("sd")]) == ()
    (said,) = check_readable(config, [seen("sd", "Own"), seen("flux", "Other")])
    assert said == "--reference r is a Other, and MODEL a Own: parts cannot be exchanged, so no finding is located"


def test_prompts_that_hold_what_is_tested_are_named() -> None:
    assert check_readable(ScanConfig(model=Path("m"), prompts=PROMPTS, candidates=("xy",)), [seen("sd")]) == ()
    (said,) = check_readable(ScanConfig(model=Path("m"), prompts=PROMPTS, candidates=("cf", "xy")), [seen("sd")])
    assert "'cf' in 2 of 3; take other prompts" in said
    (said,) = check_readable(ScanConfig(model=Path("m"), prompts=PROMPTS, candidates=("a", "c", "f", "cf")), [seen("sd")])
    assert "and 1 more" in said


@pytest.mark.parametrize(
    "config", [ScanConfig(model=Path("m"), clip="local-dir:missing"), VerifyConfig(model=Path("m"), clip="local-dir:missing")]
)
def test_a_graders_folder_that_is_none_is_told(config: Any) -> None:
    with pytest.raises(UsageError, match="--clip local-dir:missing"):
        check_readable(config, [seen("sd")])
