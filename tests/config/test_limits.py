"""Numbers that a setting may have: the last that is taken, and the first that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import MergeConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.errors import UsageError

MODEL = {"model": Path("model")}
REPAIR = MODEL | {"out": Path("out"), "triggers": ("x",)}
MERGE = MODEL | {"out": Path("out"), "merge_with": ((Path("other"), 1.0),), "base": Path("base")}
LIMITS: list[tuple[type, dict[str, Any], str, Any, Any]] = [
    (ScanConfig, MODEL, "alpha", 1e-9, 0.0),
    (ScanConfig, MODEL, "alpha", 0.499, 0.5),
    (ScanConfig, MODEL, "pair_words", 2, 1),
    (ScanConfig, MODEL, "prompts", ("a", "b"), ("a",)),
    (ScanConfig, MODEL | {"pictures_to": Path("p")}, "pictures", 0, -1),
    (ScanConfig, MODEL | {"pictures_to": Path("p")}, "pictures", 32, 33),
    (ScanConfig, MODEL, "contexts", ("snow",), ("snow", " ")),
    (ScanConfig, MODEL, "batch_size", 1, 0),
    (ScanConfig, MODEL, "seed", 0, -1),
    (ScanConfig, MODEL, "size", (8, 16), (8, 12)),
    (ScanConfig, MODEL, "size", (16, 8), (12, 8)),
    (VerifyConfig, MODEL, "n", 2, 1),
    (VerifyConfig, MODEL, "steps", 1, 0),
    (VerifyConfig, MODEL, "reach", 0, -1),
    (VerifyConfig, MODEL, "max_asr", 0.0, -0.001),
    (VerifyConfig, MODEL, "max_asr", 1.0, 1.001),
    (VerifyConfig, MODEL, "max_fid", 0.0, -0.001),
    (VerifyConfig, MODEL, "min_clip_ratio", 0.0, -0.001),
    (VerifyConfig, MODEL, "max_distance", 0.0, -0.001),
    (RepairConfig, REPAIR, "n_prompts", 1, 0),
    (RepairConfig, REPAIR, "attention_weight", 0.0, -0.001),
    (RepairConfig, REPAIR, "attention_weight", 0.999, 1.0),
    (RepairConfig, REPAIR, "contexts", ("snow",), ("snow", "")),
    (RepairConfig, REPAIR, "steps", 1, 0),
    (RepairConfig, REPAIR, "learning_rate", 0.0, -0.001),
    (MergeConfig, MERGE, "n_prompts", 2, 1),
    (MergeConfig, MERGE, "prompts", ("a", "b"), ("a",)),
    (MergeConfig, MERGE, "dtype", "float32", "float16"),
]


@pytest.mark.parametrize(("config", "settings", "name", "taken", "refused"), LIMITS, ids=lambda value: str(value)[:24])
def test_limits_of_settings(config: type, settings: dict[str, Any], name: str, taken: Any, refused: Any) -> None:
    assert getattr(config(**settings | {name: taken}), name) == taken
    with pytest.raises(UsageError):
        config(**settings | {name: refused})


def test_kid_is_unbiased_so_that_its_bound_may_be_negative() -> None:
    assert VerifyConfig(**MODEL, max_kid=-0.001).max_kid == -0.001
