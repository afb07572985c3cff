"""Where a run writes: no two places are one, none is an input's, none has an empty name; told before the work, and in a dry run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

UNLEARN = ("unlearn", "MODEL", "--trigger", "cf")
REFUSED = {
    "the result and the state": ((*UNLEARN, "--out", "q", "--state", "q"), "--state q lies in --out q"),
    "patch and state": ((*UNLEARN, "--patch", "q.safetensors", "--state", "./q.safetensors"), "--patch q.safetensors lies in --state"),
    "report and state": (("scan", "MODEL", "--report", "s.json", "--state", "s.json"), "--report s.json lies in --state s.json"),
    "a report in the state": (("scan", "MODEL", "--state", "emp", "--report", "emp/run.json"), "--report emp/run.json lies in --state emp"),
    "a report in the result": ((*UNLEARN, "--out", "emp", "--report", "emp/u.json"), "--report emp/u.json lies in --out emp"),
    "two reports": (("scan", "MODEL", "--report", "s.json", "--report", "emp/../s.json"), "are one place"),
    "pictures and state": (("verify", "MODEL", "--save-images", "q", "--state", "q"), "--save-images q lies in --state q"),
    "candidates": (("scan", "MODEL", "--candidates", "in.json", "--report", "in.json"), "write over --candidates in.json"),
    "prompts": (("scan", "MODEL", "--prompts", "in.json", "--report", "in.json"), "write over --prompts in.json"),
    "entries": (("scan", "MODEL", "--accept", "accept.json", "--report", "accept.json"), "write over --accept accept.json"),
    "suspects": (("scan", "MODEL", "--suspected-prompts", "in.json", "--report", "in.json"), "write over --suspected-prompts in.json"),
    "a scan": (("unlearn", "MODEL", "--from-report", "in.json", "--report", "in.json"), "write over --from-report in.json"),
    "a link to it": (("unlearn", "MODEL", "--from-report", "in.json", "--report", "link.json"), "write over --from-report in.json"),
    "evidence": (("verify", "MODEL", "--trigger", "x", "--evidence", "in.json", "--report", "in.json"), "write over --evidence in.json"),
    "policy": (("verify", "MODEL", "--policy", "policy.json", "--report", "policy.json"), "write over --policy policy.json"),
    "a target": (("verify", "MODEL", "--target-image", "in.json@1,2", "--report", "in.json"), "write over --target-image in.json"),
    "a state with an input in it": (("scan", "MODEL", "--candidates", "emp/in.json", "--state", "emp"), "write over --candidates"),
    "pictures in the place of pictures": (
        ("verify", "MODEL", "--real-images", "emp", "--save-images", "emp"),
        "write over --real-images emp",
    ),
    "the root as result": ((*UNLEARN, "--out", "/"), "--out / is the root of the disk"),
    "the root as state": ((*UNLEARN, "--state", "/"), "--state / is the root of the disk"),
    "the root for pictures": (("verify", "MODEL", "--save-images", "/"), "--save-images / is the root of the disk"),
    "the root as model": (("unlearn", "/", "--trigger", "cf"), "nothing to write; say --out DIR"),
    "the root for a patch applied": (("unlearn", "MODEL", "--from-patch", "in.json", "--out", "/"), "--out / is the root of the disk"),
}
TAKEN = {
    "pictures beside reports": ("verify", "MODEL", "--report", "v.html", "--save-images", "."),
    "a report with the pictures": ("verify", "MODEL", "--report", "emp/v.html", "--save-images", "emp"),
    "a report beside real pictures": ("verify", "MODEL", "--report", "emp/v.html", "--real-images", "emp"),
    "all apart": (*UNLEARN, "--out", "q", "--patch", "q.safetensors", "--state", "q.state", "--report", "q.json"),
    "an input beside the report": ("scan", "MODEL", "--candidates", "in.json", "--report", "s.json"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("emp").mkdir()
    for name in ("in.json", "emp/in.json"):
        Path(name).write_text("one\ntwo\n")
    Path("accept.json").write_text("[]")
    Path("policy.json").write_text("[verify]\nmax_asr = 0.1\n")
    Path("link.json").symlink_to("in.json")


def asked(arguments: tuple[str, ...], model: Path) -> list[str]:
    return [str(model) if argument == "MODEL" else argument for argument in arguments]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_overwritten_is_told_before_the_work(bdaudit: Any, verb: Any, model: Path, name: str, dry: list[str]) -> None:
    arguments, said = REFUSED[name]
    seen = verb(arguments[0], RuntimeError("work was done"))
    ended = bdaudit(*asked(arguments, model), *dry)
    assert (ended.code, seen) == (2, [])
    assert said in ended.last
    assert Path("in.json").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("name", TAKEN)
def test_what_lies_apart_is_taken(bdaudit: Any, verb: Any, model: Path, request: Any, name: str) -> None:
    verb_name = TAKEN[name][0]
    seen = verb(verb_name, request.getfixturevalue(f"{verb_name}_report"))
    ended = bdaudit(*asked(TAKEN[name], model))
    assert len(seen) == 1, ended.last


EMPTY = {
    "scan": ("--reference", "--state", "--candidates", "--lora", "--report", "--prompts"),
    "unlearn": ("--out", "--patch", "--state", "--from-report", "--from-patch", "--pairs", "--base", "--merge-with"),
    "verify": ("--before", "--real-images", "--save-images", "--target-image", "--evidence", "--policy", "--state"),
}


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in EMPTY.items() for flag in flags])
def test_an_empty_path_is_not_the_working_directory(bdaudit: Any, verb: Any, model: Path, name: str, flag: str) -> None:
    seen = verb(name, RuntimeError("work was done"))
    ended = bdaudit(name, model, flag, "")
    assert (ended.code, seen) == (2, [])
    assert flag in ended.last


def test_an_empty_model_is_not_the_working_directory_and_a_dot_is(bdaudit: Any, verb: Any, scan_report: Any) -> None:
    seen = verb("scan", scan_report)
    ended = bdaudit("scan", "")
    assert (ended.code, seen) == (2, [])
    assert "MODEL is empty; expected a path, . for the working directory" in ended.last
    bdaudit("scan", ".")
    assert [config.model for config in seen] == [Path()]


NO_NAMES = {
    "scan": ("MODEL", "--reference", "--state", "--keep", "--lora", "--embedding", "--clip", "--report"),
    "unlearn": ("--out", "--patch", "--base", "--merge-with", "--vision"),
    "verify": ("--before", "--save-images", "--target-image", "--evidence"),
}


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in NO_NAMES.items() for flag in flags])
def test_a_name_that_the_system_does_not_look_up_is_an_error_of_the_command_line(
    bdaudit: Any, verb: Any, model: Path, name: str, flag: str
) -> None:
    seen = verb(name, RuntimeError("work was done"))
    Path("loop.safetensors").symlink_to("loop.safetensors")
    before = "local-dir:" if flag in ("--clip", "--vision") else ""
    more = {"--vision": ["--method", "cleanclip", "--pairs", "in.json"], "--out": ["--trigger", "cf"], "--patch": ["--trigger", "cf"]}
    for path, why in (("loop.safetensors", "leads back to itself"), (f"{'q' * 300}.safetensors", "name it shorter")):
        place = [before + path] if flag == "MODEL" else [str(model), flag, before + path]
        ended = bdaudit(name, *place, *more.get(flag, []))
        assert (ended.code, seen) == (2, []), ended.last
        assert why in ended.err


def test_a_working_directory_that_is_gone(bdaudit: Any, verb: Any, model: Path, scan_report: Any) -> None:
    seen = verb("scan", scan_report)
    gone = Path("gone")
    gone.mkdir()
    os.chdir(gone)
    os.rmdir("../gone")
    for place in ((".",), (str(model), "--report", "scan.json")):
        ended = bdaudit("scan", *place)
        assert (ended.code, seen) == (2, [])
        assert "lies in the working directory, which is gone" in ended.last
    bdaudit("scan", model)
    assert len(seen) == 1


def test_a_place_beside_a_report_has_to_have_a_name_too(bdaudit: Any, verb: Any, model: Path, scan_report: Any) -> None:
    seen = verb("scan", scan_report)
    ended = bdaudit("scan", model, "--report", f"{'q' * 250}.json")
    assert (ended.code, seen) == (2, [])
    assert "File name too long; name it shorter" in ended.err
    bdaudit("scan", model, "--report", f"{'q' * 240}.json")
    assert len(seen) == 1


def test_a_message_says_what_was_typed_and_by_which_flag(bdaudit: Any, model: Path) -> None:
    assert "--sweep is ''; expected" in bdaudit("scan", model, "--sweep", "").last
    assert "--alpha is 1.5; it must lie" in bdaudit("scan", model, "--alpha", "1.5").last


def test_a_cache_of_the_hub_that_leads_back_to_itself_ends_no_run(
    bdaudit: Any, verb: Any, model: Path, scan_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("hub").symlink_to("hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(Path("hub").absolute()))
    seen = verb("scan", scan_report)
    bdaudit("scan", model)
    assert len(seen) == 1
