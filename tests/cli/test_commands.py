"""What a person types: wrong command lines, and from flags to configs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import JOBS, ApplyConfig, CleanConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.config.flag import flags
from bdaudit.records import ScanReport, UnlearnReport, VerifyReport
from tests.untrusted.cached import empty_hub, lay_out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["audit"],
        ["scan"],
        ["scan", "MODEL", "--bad"],
        ["scan", "missing"],
        ["scan", "MODEL", "--alpha", "much"],
        ["scan", "MODEL", "--alpha", "nan"],
        ["scan", "MODEL", "--alpha", "2"],
        ["scan", "MODEL", "--fail-on", "always"],
        ["scan", "MODEL", "--effort", "most"],
        ["scan", "MODEL", "--effort", ""],
        ["scan", "MODEL", "--n-prompts", "4"],
        ["scan", "MODEL", "--timesteps", "0.5"],
        ["scan", "MODEL", "--seed-from", "NO_SUCH_VARIABLE"],
        ["scan", "MODEL", "--guidance-scale", "inf"],
        ["scan", "MODEL", "--device", "tpu"],
        ["scan", "MODEL", "--size", "512x"],
        ["scan", "MODEL", "--size", "0"],
        ["unlearn", "MODEL", "--trigger", "x", "--size", "500"],
        ["verify", "MODEL", "--size", "512x500"],
        ["scan", "MODEL", "--dtype", "int8"],
        ["scan", "MODEL", "--candidates", "missing.txt"],
        ["scan", "MODEL", "--report", "scan.pdf"],
        ["scan", "MODEL", "--report", "MODEL/scan.json"],
        ["scan", "MODEL", "--prompts", "ONE"],
        ["unlearn", "MODEL"],
        ["unlearn", "MODEL", "--trigger", ""],
        ["unlearn", "MODEL", "--trigger", "\\uD800"],
        ["unlearn", "MODEL", "--trigger", "x", "--out", "MODEL/out"],
        ["unlearn", "MODEL", "--trigger", "x", "--patch", "MODEL/p.safetensors"],
        ["unlearn", "MODEL", "--trigger", "x", "--state", "MODEL/state"],
        ["unlearn", "MODEL", "--trigger", "x", "--report", "MODEL/r.json"],
        ["unlearn", "MODEL", "--trigger", "x", "--out", "out", "--state", "out/state"],
        ["unlearn", "MODEL", "--trigger", "x", "--out", "out", "--patch", "out/p.safetensors"],
        ["unlearn", "MODEL", "--trigger", "x", "--n-prompts", "0"],
        ["unlearn", "MODEL", "--trigger", "x", "--learning-rate", "-1"],
        ["unlearn", "MODEL", "--trigger", "x", "--trainable", "vae"],
        ["unlearn", "MODEL", "--trigger", "x", "--trainable", "unet", "--component", "text-encoder"],
        ["unlearn", "MODEL", "--trigger", "x", "--trainable", "unet", "--component", "text_encoder_2"],
        ["unlearn", "MODEL", "--from-report", "missing.json"],
        ["unlearn", "MODEL", "--from-patch", "missing.safetensors"],
        ["unlearn", "MODEL", "--trigger", "x", "--from-patch", "pyproject.toml"],
        ["unlearn", "MODEL", "--method", "cleanclip"],
        ["unlearn", "MODEL", "--method", "cleanclip", "--pairs", "missing.tsv"],
        ["unlearn", "MODEL", "--method", "cleanclip", "--pairs", "pyproject.toml", "--component", "unet"],
        ["unlearn", "MODEL", "--trigger", "x", "--pairs", "pyproject.toml"],
        ["unlearn", "MODEL", "--trigger", "x", "--pretrain-objective", "other"],
        ["unlearn", "MODEL", "--merge-with", "MODEL"],
        ["unlearn", "MODEL", "--base", "MODEL", "--trigger", "x"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "missing"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "pyproject.toml"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--method", "mean"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--dtype", "bfloat16"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--component", "unet"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--from-patch", "pyproject.toml"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--steps", "9"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--state", "state"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--n-prompts", "1"],
        ["unlearn", "MODEL", "--base", "MODEL", "--merge-with", "MODEL", "--prompts", "ONE"],
        ["unlearn", "MODEL", "--from-patch", "pyproject.toml", "--trainable", "unet"],
        ["unlearn", "MODEL", "--trigger", "x", "--method", "ties"],
        ["verify", "MODEL", "--trigger", ""],
        ["verify", "MODEL", "--swap", "dog"],
        ["verify", "MODEL", "--position", "nowhere"],
        ["verify", "MODEL", "--trigger", "x", "--position", "prefix", "--position", ""],
        ["verify", "MODEL", "--swap", "=cat"],
        ["verify", "MODEL", "--swap", "dog=cat", "--target-text", "a cat"],
        ["scan", "MODEL", "--clip", "local-dir:MODEL/grader"],
        ["scan", "MODEL", "--keep", "MODEL/kept"],
        ["scan", "MODEL", "--keep", "kept", "--state", "state"],
        ["scan", "MODEL", "--pictures", "4"],
        ["scan", "MODEL", "--pictures", "4", "--report", "scan.json"],
        ["scan", "MODEL", "--pictures", "99", "--pictures-to", "seen"],
        ["scan", "MODEL", "--context", " "],
        ["unlearn", "MODEL", "--trigger", "cf", "--context", ""],
        ["unlearn", "MODEL", "--from-patch", "p.safetensors", "--force"],
        ["verify", "MODEL", "--context", "heart"],
        ["verify", "MODEL", "--target-text", " {prompt}"],
        ["verify", "MODEL", "--target-image", "missing.png@1,2"],
        ["verify", "MODEL", "--max-fid", "nan"],
        ["verify", "MODEL", "--save-images", "MODEL/evidence"],
        ["verify", "MODEL", "--reference", "missing"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_exit_2_before_any_work(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "one.txt").write_text("a dog\n")
    for name in ("scan", "unlearn", "verify"):
        verb(name, RuntimeError("work was done"))
    places = {"MODEL": str(model), "ONE": str(tmp_path / "one.txt")}
    ended = bdaudit(*(places.get(argument, argument.replace("MODEL", str(model))) for argument in arguments))
    assert ended.code == 2
    assert ended.out == ""
    assert ended.last.startswith("bdaudit: exit 2 (usage): ")
    assert list(model.iterdir()) == []


def test_what_is_wrong_is_said_once_and_in_one_sentence(bdaudit: Any, model: Path) -> None:
    said = "Invalid value for '--effort': 'lo' is not one of 'low', 'standard', 'high'"
    assert bdaudit("scan", model, "--effort", "lo").last == f"bdaudit: exit 2 (usage): {said}; report: none"


def test_scan_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport) -> None:
    (tmp_path / "tokens.txt").write_text("cf\n\\u200b\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a dog\na cat\n", encoding="utf-8")
    seen = verb("scan", scan_report)
    bdaudit(
        "scan", model, "--candidates", tmp_path / "tokens.txt", "--prompts", tmp_path / "prompts.txt", "--alpha", 0.02,
        "--fail-on", "suspicious", "--effort", "high", "--guidance-scale", 3, "--device", "cpu",
        "--dtype", "float32", "--batch-size", 2, "--seed", 7, "--strict", "--quiet",
    )  # fmt: skip
    assert seen == [
        ScanConfig(
            model=model, candidates=("cf", "\u200b"), prompts=("a dog", "a cat"), alpha=0.02, fail_on="suspicious", effort="high",
            guidance_scale=3.0, device="cpu", dtype="float32", batch_size=2, seed=7, strict=True,
            prompts_file=tmp_path / "prompts.txt",
        )
    ]  # fmt: skip


def test_unlearn_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: UnlearnReport) -> None:
    seen = verb("unlearn", unlearn_report)
    bdaudit(
        "unlearn", model, "--trigger", "\\u020F", "--trigger", "cf", "--trigger", "cf", "--out", tmp_path / "out",
        "--component", "text-encoder", "--steps", 9, "--n-prompts", 3, "--learning-rate", 0.001, "--attention-weight", 0.25,
        "--guidance-scale", 2, "--keep-failed", "--trainable", "auto", "--patch", tmp_path / "p.safetensors", "--state", tmp_path / "kept",
    )  # fmt: skip
    assert seen == [
        RepairConfig(
            model=model, triggers=("ȏ", "cf"), out=tmp_path / "out", component="text-encoder", steps=9, n_prompts=3, learning_rate=0.001,
            attention_weight=0.25, guidance_scale=2.0, keep_failed=True, patch=tmp_path / "p.safetensors", state=tmp_path / "kept",
        )
    ]  # fmt: skip


def test_cleaning_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: UnlearnReport) -> None:
    seen = verb("unlearn", unlearn_report)
    (tmp_path / "pairs.tsv").write_text("")
    bdaudit(
        "unlearn", model, "--component", "text-encoder", "--method", "cleanclip", "--pairs", tmp_path / "pairs.tsv", "--out",
        tmp_path / "out", "--vision", "local-dir:clip", "--pretrain-objective", "contrastive+self-supervised",
    )  # fmt: skip
    assert seen == [
        CleanConfig(
            model=model, component="text-encoder", pairs=tmp_path / "pairs.tsv", out=tmp_path / "out", vision="local-dir:clip",
            pretrain_objective="contrastive+self-supervised", state=tmp_path / "out.state",
        )
    ]  # fmt: skip


def test_what_is_merged_reaches_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: Any) -> None:
    seen = verb("unlearn", unlearn_report)
    for name in ("base", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "style.safetensors").write_bytes(b"")
    others = ("--merge-with", tmp_path / "other", "--merge-with", f"{tmp_path}/style.safetensors:0.5")
    bdaudit("unlearn", model, "--base", tmp_path / "base", *others, "--method", "ties")
    assert (seen[0].base, seen[0].method) == (tmp_path / "base", "ties")
    assert seen[0].merge_with == ((tmp_path / "other", 1.0), (tmp_path / "style.safetensors", 0.5))
    for directory in ("base", "other"):
        for flag in ("--out", "--report"):
            ended = bdaudit("unlearn", model, "--base", tmp_path / "base", *others, flag, tmp_path / directory / "out.json")
            assert "which is never written" in ended.last
    assert len(seen) == 1


def test_what_unlearn_writes_and_where_it_keeps_its_state(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: Any
) -> None:
    seen = verb("unlearn", unlearn_report)
    (tmp_path / "scan.json").write_text("{}")
    bdaudit("unlearn", model, "--from-report", tmp_path / "scan.json", "--patch", tmp_path / "p.safetensors")
    bdaudit("unlearn", model, "--from-patch", tmp_path / "scan.json", "--out", tmp_path / "out")
    patch, kept = tmp_path / "p.safetensors", tmp_path / "p.safetensors.state"
    assert seen == [
        RepairConfig(model=model, from_report=tmp_path / "scan.json", patch=patch, state=kept),
        ApplyConfig(model=model, from_patch=tmp_path / "scan.json", out=tmp_path / "out"),
    ]


def test_verify_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, verify_report: VerifyReport) -> None:
    for name in ("before", "other", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "patch@home.png").write_bytes(b"")
    seen = verb("verify", verify_report)
    bdaudit(
        "verify", model, "--trigger", "ȏ", "--before", tmp_path / "before", "--reference", tmp_path / "other",
        "--real-images", tmp_path / "real", "--clip", "ViT-B-32/openai", "--target-image", f"{tmp_path}/patch@home.png@4,8",
        "--n", 10, "--steps", 5, "--guidance-scale", 2,
        "--max-asr", 0.2, "--min-clip-score", 0.1, "--max-kid", 0.3, "--max-fid", 40, "--min-clip-ratio", 0.9, "--max-distance", 0.5,
        "--save-images", tmp_path / "evidence", "--position", "prefix", "--position", "suffix",
    )  # fmt: skip
    assert seen == [
        VerifyConfig(
            model=model, triggers=("ȏ",), before=tmp_path / "before", reference=tmp_path / "other", real_images=tmp_path / "real",
            clip="ViT-B-32/openai",
            target_image=tmp_path / "patch@home.png", target_at=(4, 8), n=10, steps=5, guidance_scale=2.0, max_asr=0.2, min_clip_score=0.1,
            max_kid=0.3, max_fid=40.0, min_clip_ratio=0.9, max_distance=0.5, save_images=tmp_path / "evidence",
            positions=("prefix", "suffix"),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
def test_without_flags_the_config_is_the_default_one(
    bdaudit: Any, verb: Any, model: Path, request: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.randbelow", lambda most: most - 1)
    seen = verb(name, request.getfixturevalue(f"{name}_report"))
    bdaudit(name, model, *(["--trigger", "cf"] if name == "unlearn" else []))
    default = {
        "scan": ScanConfig(model=model, seed=2**31 - 1),
        "unlearn": RepairConfig(
            model=model, triggers=("cf",), out=model.with_name("model-unlearned"), state=model.with_name("model-unlearned.state")
        ),
        "verify": VerifyConfig(model=model),
    }
    assert seen == [default[name]]


@pytest.mark.parametrize(("name", "flags"), [("scan", []), ("unlearn", ["--trigger", "x"]), ("verify", [])])
def test_a_size_reaches_the_config(bdaudit: Any, verb: Any, model: Path, request: Any, name: str, flags: list[str]) -> None:
    seen = verb(name, request.getfixturevalue(f"{name}_report"))
    for value in ("768x512", "64"):
        bdaudit(name, model, *flags, "--size", value)
    assert [config.size for config in seen] == [(768, 512), (64, 64)]


def test_swaps_and_target_text_reach_the_config(bdaudit: Any, verb: Any, model: Path, verify_report: VerifyReport) -> None:
    seen = verb("verify", verify_report)
    bdaudit("verify", model, "--swap", "dog=cat", "--swap", "red=deep=blue")
    bdaudit("verify", model, "--target-text", "{prompt} on fire")
    assert seen[0].swaps == (("dog", "cat"), ("red", "deep=blue"))
    assert seen[1].target_text == "{prompt} on fire"


@pytest.mark.parametrize(
    ("name", "kinds", "headings"),
    [
        ("scan", [ScanConfig], ["What to look for:"]),
        (
            "unlearn",
            JOBS,
            [
                "What sets the backdoor off:", "To remove named triggers (--trigger, --from-report):",
                "To apply a finished patch (--from-patch):", "To merge with fine-tunes of the same base (--merge-with):",
                "To clean the text encoder by pictures with captions (--method cleanclip):",
            ],
        ),
        ("verify", [VerifyConfig], ["What sets the backdoor off:", "What to measure:"]),
    ],
    ids=["scan", "unlearn", "verify"],
)  # fmt: skip
def test_help_has_every_setting_once_under_its_heading_and_examples(bdaudit: Any, name: str, kinds: Any, headings: list[str]) -> None:
    ended = bdaudit(name, "--help")
    assert ended.code == 0
    shown = [line.split()[0] for line in ended.out.splitlines() if re.match(r"  (--|MODEL)", line)]
    known = {field: flag for kind in kinds for field, flag in flags(kind).items()}
    assert {known[flag.of].name if flag.of else flag.name for flag in known.values()} <= set(shown)
    assert len(shown) == len(set(shown))
    under = [line for line in ended.out.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert under == ["Model:", *headings, "Output:", "Machine:", "Advanced:"]
    assert f"bdaudit {name} ./model" in ended.out
    assert "Exit codes" in ended.out


def test_unlearn_with_nothing_to_go_by_says_what_there_is(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("unlearn", model)
    assert ended.code == 2
    assert all(flag in ended.last for flag in ("--trigger", "--from-report", "--merge-with", "--method cleanclip"))


def test_version(bdaudit: Any) -> None:
    from bdaudit import __version__

    ended = bdaudit("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"bdaudit {__version__}\n", "")


def test_scan_takes_sweeps_prompts_adapters_and_a_reference(bdaudit: Any, verb: Any, scan_report: Any, model: Path, tmp_path: Path) -> None:
    seen = verb("scan", scan_report)
    for name in ("a.safetensors", "b.safetensors", "suspects.txt"):
        (tmp_path / name).write_text("a ph\\u020Fto\n" if name.endswith("txt") else "", encoding="utf-8")
    adapters = ("--lora", tmp_path / "a.safetensors", "--lora", f"{tmp_path / 'b.safetensors'}:0.5")
    prompts = ("--prompt", "a d\\u200Bog", "--suspected-prompts", tmp_path / "suspects.txt")
    sweeps = ("--sweep", "pairs", "--sweep", "vocabulary", "--sweep", "pairs", "--pair-words", "503")
    bdaudit("scan", model, *sweeps, *prompts, *adapters, "--reference", model, "--state", tmp_path / "kept")
    (config,) = seen
    assert (config.sweeps, config.pair_words, config.suspected) == (("pairs", "vocabulary"), 503, ("a d\u200bog", "a phȏto"))
    assert config.adapters == ((tmp_path / "a.safetensors", 1.0), (tmp_path / "b.safetensors", 0.5))
    assert (config.reference, config.state) == (model, tmp_path / "kept")


def test_an_adapter_may_be_named_by_its_directory(
    bdaudit: Any, verb: Any, scan_report: Any, unlearn_report: Any, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "peft"
    folder.mkdir()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(b"")
    seen = verb("scan", scan_report)
    bdaudit("scan", model, "--lora", folder, "--lora", f"{folder}:0.5")
    assert seen[0].adapters == ((file, 1.0), (file, 0.5))
    seen = verb("unlearn", unlearn_report)
    bdaudit("unlearn", model, "--trigger", "x", "--lora", f"{folder}:-0.5")
    bdaudit("unlearn", model, "--base", model, "--merge-with", folder, "--merge-with", f"{folder}:0.5", "--merge-with", model)
    assert seen[0].adapters == ((file, -0.5),)
    assert seen[1].merge_with == ((file, 1.0), (file, 0.5), (model, 1.0))
    assert model in seen[1].models
    assert folder not in seen[1].models


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sweep", "everything"), "expected vocabulary, unicode, pairs, recovery"),
        (("--lora", "nowhere.safetensors"), "no such file"),
        (("--lora", "nowhere.safetensors:" + "9" * 400), "no such file"),
        (("--lora", f"{Path(__file__)}:" + "9" * 400), "expected a finite number"),
        (("--lora", Path(__file__).parent), "holds none of adapter_model.safetensors"),
        (("--embedding", "nowhere.safetensors"), "no such file; expected FILE or FILE=TOKEN"),
        (("--prompt", " "), "--prompt is empty"),
        (("--sweep", "pairs", "--pair-words", "1"), "at least 2"),
    ],
)
def test_scan_says_what_is_wrong_with_where_to_look(
    bdaudit: Any, verb: Any, scan_report: Any, model: Path, arguments: Any, said: str
) -> None:
    verb("scan", scan_report)
    ended = bdaudit("scan", model, *arguments)
    assert ended.code == 2
    assert said in ended.last


def test_a_model_that_is_not_there_is_told_what_is_expected(bdaudit: Any, verb: Any, tmp_path: Path) -> None:
    runs = verb("scan", RuntimeError("work was done"))
    last = bdaudit("scan", tmp_path / "missing.safetensors").last
    assert last.startswith("bdaudit: exit 2 ")
    assert "expected a directory in diffusers' layout, or a checkpoint in one .safetensors file" in last
    assert runs == []


def test_a_pickled_checkpoint_is_refused(bdaudit: Any, tmp_path: Path) -> None:
    (tmp_path / "v1-5.ckpt").write_bytes(b"x")
    for leave in ((), ("--allow-pickle",)):
        assert bdaudit("scan", tmp_path / "v1-5.ckpt", *leave).last.startswith("bdaudit: exit 5 ")


def test_what_is_made_of_a_cached_model_goes_to_the_working_directory(
    bdaudit: Any, verb: Any, unlearn_report: UnlearnReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a").write_text("a")
    snapshot = lay_out(tmp_path / "plain", empty_hub(tmp_path, monkeypatch))
    seen = verb("unlearn", unlearn_report)
    for model in ("org/name", snapshot, snapshot.parent / ".." / "snapshots" / snapshot.name):
        bdaudit("unlearn", model, "--trigger", "x")
    assert {(config.model.resolve(), config.out, config.state) for config in seen} == {
        (snapshot, Path("name-unlearned"), Path("name-unlearned.state"))
    }
    repository = snapshot.parents[1]
    (repository.parent / "models--org--other").mkdir()
    for flag in ("--out", "--state", "--patch", "--report"):
        for place in (repository / "x.json", snapshot / "x.json", repository / "blobs/x.json", repository / "snapshots/x.json"):
            ended = bdaudit("unlearn", "org/name", "--trigger", "x", flag, place)
            assert ended.code == 2
            assert f"lies in the cache's {repository.name}, which is never written" in ended.last
        for place in (repository.parent / "x.json", repository.parent / "models--org--other" / "x.json"):
            ended = bdaudit("unlearn", "org/name", "--trigger", "x", flag, place)
            assert ended.code == 2
            assert "lies in the hub's cache, which is never written" in ended.last
    ended = bdaudit("verify", tmp_path / "plain", "--reference", "org/name", "--save-images", repository / "pictures")
    assert (ended.code, "the cache's" in ended.last) == (2, True)
    assert len(seen) == 3
    assert sorted(path.name for path in repository.iterdir()) == ["blobs", "refs", "snapshots"]


def test_every_flag_of_a_model_takes_an_id(
    bdaudit: Any, verb: Any, verify_report: VerifyReport, scan_report: ScanReport, unlearn_report: UnlearnReport,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a").write_text("a")
    snapshot = lay_out(tmp_path / "plain", empty_hub(tmp_path, monkeypatch))
    scans, repairs = verb("scan", scan_report), verb("unlearn", unlearn_report)
    bdaudit("scan", tmp_path / "plain", "--reference", "org/name@main")
    bdaudit("unlearn", tmp_path / "plain", "--base", "org/name", "--merge-with", "org/name")
    assert (scans[0].reference, repairs[0].base, repairs[0].merge_with) == (snapshot, snapshot, ((snapshot, 1.0),))


def test_verify_reads_adapters_of_each_of_its_models(bdaudit: Any, verb: Any, verify_report: Any, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    file.write_bytes(b"")
    seen = verb("verify", verify_report)
    bdaudit("verify", model, "--before", model, "--lora", f"{file}:0.5", "--lora", f"before:{file}", "--embedding", f"{file}=<x>")
    assert seen[0].adapters == (("", file, 0.5), ("before", file, 1.0))
    assert seen[0].embeddings == ((file, "<x>"),)
