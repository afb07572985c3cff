"""Which job of `unlearn` is asked for, and that each takes its own settings and no other's."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import JOBS, ApplyConfig, CleanConfig, MergeConfig, RepairConfig, UnlearnConfig, unlearn_config
from bdaudit.errors import UsageError

COMMON = {"model": Path("model"), "out": Path("out")}
OTHER = ((Path("other"), 1.0),)
ASKED: dict[type[UnlearnConfig], dict[str, Any]] = {
    RepairConfig: {"triggers": ("x",)},
    ApplyConfig: {"from_patch": Path("p.safetensors")},
    MergeConfig: {"merge_with": OTHER, "base": Path("base")},
    CleanConfig: {"method": "cleanclip", "pairs": Path("pairs.tsv")},
}
VALUES: dict[str, Any] = {
    "triggers": ("x",), "from_report": Path("scan.json"), "patch": Path("p.safetensors"), "state": Path("state"), "keep_failed": True,
    "adapters": ((Path("a.safetensors"), 1.0),), "component": "text-encoder", "trainable": "closed-form", "steps": 7, "n_prompts": 7,
    "learning_rate": 0.5, "attention_weight": 0.25, "method": "auto", "base": Path("base"), "pairs": Path("pairs.tsv"), "vision": "v",
    "pretrain_objective": "contrastive", "contexts": ("in the snow",), "force": True, "workers": "2",
}  # fmt: skip
"""A value that is not the default's of every setting that some job lacks, but for those that ask for a job; of --method the default, which
both jobs that have it take."""


@pytest.mark.parametrize("job", ASKED, ids=lambda job: job.__name__)
def test_each_job_is_told_by_what_is_given(job: type[UnlearnConfig]) -> None:
    given = {name: value for name, value in ASKED[job].items() if name != "method"}
    assert unlearn_config(COMMON | ASKED[job]) == job(**COMMON, **given)


@pytest.mark.parametrize("job", ASKED, ids=lambda job: job.__name__)
@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_taken_by_the_jobs_that_have_it_and_refused_by_the_others(job: type[UnlearnConfig], name: str) -> None:
    settings = COMMON | ASKED[job] | ({} if name in ASKED[job] else {name: VALUES[name]})
    if name in {field.name for field in fields(job)} or name in ASKED[job]:
        assert isinstance(unlearn_config(settings), job)
        return
    flag = {"triggers": "--trigger", "adapters": "--lora", "contexts": "--context"}.get(name, f"--{name.replace('_', '-')}")
    with pytest.raises(UsageError) as raised:
        unlearn_config(settings)
    message = str(raised.value)
    assert message.startswith(f"{flag} goes with ")
    assert f"and has no part in {JOBS[job]}; drop one of the two" in message
    assert all((said in message.split(", and has no part")[0]) is (name in {f.name for f in fields(kind)}) for kind, said in JOBS.items())


def test_every_setting_that_some_job_lacks_was_tried() -> None:
    of = [{field.name for field in fields(job)} for job in JOBS]
    assert set.union(*of) - set.intersection(*of) == VALUES.keys() | {"from_patch", "merge_with"}
    assert ASKED.keys() == JOBS.keys()


def test_two_jobs_at_once_are_refused() -> None:
    for first in (ApplyConfig, MergeConfig):
        with pytest.raises(UsageError, match="has no part in"):
            unlearn_config(COMMON | ASKED[ApplyConfig] | ASKED[first] | ASKED[MergeConfig])
    with pytest.raises(UsageError, match=r"--merge-with goes with --method dam, .*; got cleanclip"):
        unlearn_config(COMMON | ASKED[MergeConfig] | {"method": "cleanclip"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no trigger given; say --trigger TEXT, or --from-report"),
        ({"method": "cleanclip"}, "--pairs FILE"),
        ({"merge_with": OTHER}, "--merge-with needs --base BASE"),
        ({"base": Path("base")}, r"--base goes with a merge \(--merge-with\), and nothing asks for that; say --merge-with OTHER too"),
        ({"method": "dam"}, "--method dam removes no named trigger; say auto or skd-cag, or --merge-with OTHER for a merge"),
        ({"triggers": ("x",), "method": "ties"}, "--method ties removes no named trigger; say auto or skd-cag"),
        ({"method": "skd-cag"}, "no trigger given"),
        (ASKED[MergeConfig] | {"method": "skd-cag"}, r"--merge-with goes with --method dam, .*; got skd-cag"),
        (
            ASKED[ApplyConfig] | {"method": "skd-cag"},
            "--method goes with the removal .* and a merge .*, and has no part in a finished patch",
        ),
        ({"triggers": ("x",), "method": "skd-cag", "pairs": Path("p.tsv")}, "--pairs goes with a cleaning .* no part in the removal"),
        (
            {"triggers": ("x",), "method": "skd-cag", "trainable": "closed-form"},
            "--method skd-cag is training alone, --trainable closed-form trains nothing; drop one of the two",
        ),
        ({"pairs": Path("p.tsv")}, "--pairs goes with a cleaning .*; say --method cleanclip too"),
        ({"vision": "v"}, "--vision goes with a cleaning .*; say --method cleanclip too"),
        (ASKED[ApplyConfig] | {"method": "cleanclip"}, "^--method cleanclip goes with a cleaning"),
        (ASKED[ApplyConfig] | {"steps": 400}, "--steps goes with .* no part in a finished patch"),
        (ASKED[ApplyConfig] | {"method": "auto"}, "--method goes with .* no part in a finished patch"),
        (
            ASKED[MergeConfig] | {"from_report": Path("r")},
            "^--from-report goes with the removal of named triggers, and has no part in a merge",
        ),
        (ASKED[CleanConfig] | {"component": "unet"}, "--component says unet"),
    ],
)
def test_what_is_missing_or_wrong_is_said(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        unlearn_config(COMMON | settings)


@pytest.mark.parametrize("job", ASKED, ids=lambda job: job.__name__)
def test_a_place_for_the_state_goes_to_the_jobs_that_keep_one(job: type[UnlearnConfig]) -> None:
    config = unlearn_config(COMMON | ASKED[job], state=Path("beside"))
    keeps = job in (RepairConfig, CleanConfig)
    assert dict(config.written).get("--state") == (Path("beside") if keeps else None)
    if keeps:
        assert unlearn_config(COMMON | ASKED[job] | {"state": Path("here")}, state=Path("beside")) == replace(config, state=Path("here"))


def test_what_is_merged_is_among_the_models_and_a_lora_is_not(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"")
    others = ((tmp_path / "other", 1.0), (tmp_path / "style.safetensors", 0.5))
    config = MergeConfig(model=tmp_path / "model", base=tmp_path / "base", merge_with=others, out=tmp_path / "out")
    assert config.models == (tmp_path / "model", tmp_path / "base", tmp_path / "other")


@pytest.mark.parametrize("other", ["state", "patch"])
def test_nothing_else_is_written_to_the_place_of_the_result(tmp_path: Path, other: str) -> None:
    with pytest.raises(UsageError, match=f"--{other} .* lies in --out"):
        RepairConfig(model=tmp_path / "m", triggers=("cf",), out=tmp_path / "q", **{other: tmp_path / "q"})
    RepairConfig(model=tmp_path / "m", triggers=("cf",), out=tmp_path / "q", **{other: tmp_path / "r"})


@pytest.mark.parametrize("more", [{}, {"trainable": "cross-attention"}, {"trainable": "transformer"}, {"component": "text-encoder"}])
def test_training_alone_is_a_removal_of_any_part(more: dict[str, Any]) -> None:
    asked = {"triggers": ("x",), "method": "skd-cag", **more}
    assert unlearn_config(COMMON | asked) == RepairConfig(**COMMON, **asked)


def test_a_default_that_is_typed_is_taken_where_it_has_a_part() -> None:
    assert unlearn_config(COMMON | {"triggers": ("x",), "method": "auto", "steps": 400}) == RepairConfig(**COMMON, triggers=("x",))
    merged = {"merge_with": OTHER, "base": Path("base")}
    assert unlearn_config(COMMON | merged | {"method": "auto", "triggers": ("x",)}) == MergeConfig(**COMMON, **merged, triggers=("x",))
