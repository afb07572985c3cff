"""A grader's folder: known settings within ranges, a tokenizer that runs nothing, weights that are tensors."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted import clip_folder
from bdaudit.untrusted.clip_folder import CONFIG, TOKENIZERS, WEIGHTS, inspect_clip
from fixtures import layout

GRADER = Path(layout.__file__).parent / "grader"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A grader with a tokenizer of its own, which a test may spoil."""
    return Path(shutil.copytree(GRADER, tmp_path / "clip"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_checked_is_what_is_handed_on(folder: Path) -> None:
    found = inspect_clip(folder, "--clip")
    assert json.loads(found.config) == json.loads((folder / CONFIG).read_text())
    assert found.weights == folder / WEIGHTS
    assert set(found.tokenizer) == {"merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"}
    assert all(
        json.loads(found.tokenizer[name]) == json.loads((folder / name).read_text()) for name in ("vocab.json", "tokenizer_config.json")
    )


def test_weights_of_another_name_are_taken_where_they_are_alone_in_the_folder(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    (folder / "below").mkdir()
    shutil.copy(folder / "other.safetensors", folder / "below" / WEIGHTS)
    assert inspect_clip(folder, "--clip").weights == folder / "other.safetensors"
    shutil.copy(folder / "other.safetensors", folder / "second.safetensors")
    with pytest.raises(UsageError, match=f"2 safetensors files; name the one to use {WEIGHTS}"):
        inspect_clip(folder, "--clip")
    (folder / "second.safetensors").unlink()
    (folder / "other.safetensors").unlink()
    with pytest.raises(UsageError, match="no safetensors file in it"):
        inspect_clip(folder, "--clip")
    (folder / "below" / "x.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="no safetensors file in it"):
        inspect_clip(folder, "--clip")
    (folder / "x.bin").write_bytes(b"x")
    with pytest.raises(RefusedError, match=r"x\.bin is a pickle"):
        inspect_clip(folder, "--clip")
    (folder / "x.safetensors").symlink_to("/nowhere")
    with pytest.raises(RefusedError, match=r"x\.safetensors is a link"):
        inspect_clip(folder, "--clip")


def test_a_setting_that_nobody_knows_is_not_handed_on_to_the_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(some_new_thing="x"))
    assert "some_new_thing" not in json.loads(inspect_clip(folder, "--clip").tokenizer["tokenizer_config.json"])


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "processor_config.json", "special_tokens_map.json", CONFIG])
def test_code_is_refused_wherever_it_is_asked_for(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    edit(folder / name, lambda config: config.update(auto_map={"AutoTokenizer": ["evil.Evil", None]}))
    with pytest.raises(RefusedError, match=f"--clip: {name}: auto_map asks for code"):
        inspect_clip(folder, "--clip")


WRONG_SETTINGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a width out of range": (
        lambda c: c["model_cfg"]["text_cfg"].update(width=1 << 30),
        "width is 1073741824; expected a number",
    ),
    "endless layers": (lambda c: c["model_cfg"]["vision_cfg"].update(layers=10**6), "layers is 1000000"),
    "a list of layers": (lambda c: c["model_cfg"]["vision_cfg"].update(layers=[1, 1, 10**6, 1]), "layers is"),
    "a large picture": (lambda c: c["preprocess_cfg"].update(size=[2049, 1]), "size is"),
    "a number that is text": (lambda c: c["model_cfg"]["text_cfg"].update(heads="4"), "heads is 4; expected a number"),
    "true for a number": (lambda c: c["model_cfg"]["text_cfg"].update(heads=True), "heads is True"),
    "a model of timm from elsewhere": (lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="hf-hub:a/b"), "expected a word"),
    "a text tower from elsewhere": (lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="a/b"), "another repository"),
    "an unknown setting": (lambda c: c["model_cfg"]["vision_cfg"].update(later=1), "sets later, which is not known"),
    "an unknown argument": (lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"cache_dir": "/x"}), "sets cache_dir, which"),
    "a deviation of 0": (lambda c: c["preprocess_cfg"].update(std=[0.5, 0, 0.5]), "std is"),
    "two means": (lambda c: c["preprocess_cfg"].update(mean=[0.5, 0.5]), "mean is"),
}


@pytest.mark.parametrize(("change", "said"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_settings_out_of_range_or_unknown_are_told(folder: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(folder / CONFIG, change)
    with pytest.raises(UsageError, match=said):
        inspect_clip(folder, "--clip")


def test_settings_at_their_limits_are_taken(folder: Path) -> None:
    edit(folder / CONFIG, lambda c: c["model_cfg"]["text_cfg"].update(width=16_384, norm_kwargs={"eps": 1e-6}, hf_tokenizer_name=None))
    edit(folder / CONFIG, lambda c: c["preprocess_cfg"].update(size=2048))
    assert inspect_clip(folder, "--clip").tokenizer == {}


def test_a_tokenizer_of_an_unknown_class_or_without_its_files_is_told(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="EvilTokenizer"))
    with pytest.raises(UsageError, match="its tokenizer is a EvilTokenizer; expected one of BertTokenizer"):
        inspect_clip(folder, "--clip")
    for kind in TOKENIZERS:
        edit(folder / "tokenizer_config.json", lambda config, kind=kind: config.update(tokenizer_class=kind))
        inspect_clip(folder, "--clip")
    for name in ("tokenizer.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(UsageError, match=r"expected tokenizer\.json, or vocab\.json and merges\.txt"):
        inspect_clip(folder, "--clip")


@pytest.mark.parametrize("where", ["additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"])
def test_tokens_are_counted_over_every_list(folder: Path, where: str) -> None:
    def listed(n: int) -> Any:
        return {str(i): {"content": f"<{i}>"} for i in range(n)} if where == "added_tokens_decoder" else [f"<{i}>" for i in range(n)]

    held = len(json.loads((folder / "tokenizer.json").read_text())["added_tokens"])
    edit(folder / "tokenizer_config.json", lambda config: config.update({where: listed(4096 - held)}))
    inspect_clip(folder, "--clip")
    (folder / "added_tokens.json").write_text('{"<one more>": 9}')
    with pytest.raises(UsageError, match="lists 4,097 tokens beside its vocabulary"):
        inspect_clip(folder, "--clip")
    edit(folder / "tokenizer_config.json", lambda config: config.update({where: listed(200_000)}))
    started = time.process_time()
    with pytest.raises(UsageError, match="tokens beside its vocabulary"):
        inspect_clip(folder, "--clip")
    assert time.process_time() - started < 5


def test_a_token_or_a_pattern_that_takes_for_ever_is_told(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(additional_special_tokens=["x" * 1001]))
    with pytest.raises(UsageError, match="at most 1,000 characters"):
        inspect_clip(folder, "--clip")
    edit(folder / "tokenizer_config.json", lambda config: config.pop("additional_special_tokens"))
    edit(
        folder / "tokenizer.json",
        lambda content: content.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""}),
    )
    with pytest.raises(UsageError, match="could run for ever"):
        inspect_clip(folder, "--clip")


def link_out(path: Path) -> None:
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    link_out(folder / name)
    with pytest.raises(RefusedError, match=f"{name} is a link"):
        inspect_clip(folder, "--clip")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    for path in {folder / name, folder / "merges.txt"}:
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(BdauditError, match=r"expected|no safetensors"):
        inspect_clip(folder, "--clip")


@pytest.mark.parametrize("content", ["[" * 3000 + "]" * 3000, '{"model_max_length": ' + "1" * 5000 + "}", "[1]", "{", '{"a": 1, "a": 2}'])
def test_damaged_json_is_a_declared_error(folder: Path, content: str) -> None:
    for name in (CONFIG, "tokenizer_config.json", "tokenizer.json"):
        kept = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(BdauditError):
            inspect_clip(folder, "--clip")
        (folder / name).write_text(kept)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 65}), "65 times as long"),
        (lambda c: c.update(normalizer={"type": "Evil"}), "a step of the kind Evil"),
        (lambda c: c["model"].update(dropout=0.5), "draws its tokens by chance"),
        (lambda c: c.update(model=None), "has no model"),
    ],
)
def test_steps_without_bounds_are_told(folder: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    edit(folder / "tokenizer.json", change)
    with pytest.raises(UsageError, match=f"{said}.*; choose another CLIP"):
        inspect_clip(folder, "--clip")


def test_steps_of_other_text_towers_are_taken(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda c: c["model"].update(dropout=0))
    edit(folder / "tokenizer.json", lambda c: c.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}))
    assert inspect_clip(folder, "--clip").tokenizer


RANGES = {
    "embed_dim": 16_384, "width": 16_384, "layers": 128, "heads": 256, "head_width": 1_024, "mlp_ratio": 64, "patch_size": 512,
    "image_size": 2_048, "context_length": 4_096, "vocab_size": 1_000_000, "pad_id": 1_000_000, "eos_id": 1_000_000,
    "attn_pooler_queries": 4_096, "attn_pooler_heads": 256, "ls_init_value": 1_000, "patch_dropout": 1, "timm_drop": 1, "timm_drop_path": 1,
    "init_logit_scale": 1_000, "init_logit_bias": 1_000, "size": 2_048, "fill_color": 255, "eps": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", RANGES)
def test_each_number_ends_where_it_says(key: str) -> None:
    most = RANGES[key]
    for value in (most, -most, [most] * 4, 0, None):
        clip_folder._check_settings({key: value}, "--clip")
    for value in (most + 1, -most - 1, [most + 1], [most] * 5, float("nan"), True, "1"):
        with pytest.raises(UsageError, match=f"{key} is .*; expected a number of at most {most:,}"):
            clip_folder._check_settings({key: value}, "--clip")


@pytest.mark.parametrize("key", ["mean", "std"])
def test_three_numbers_of_a_preparation_end_where_they_say(key: str) -> None:
    clip_folder._check_preparation({key: [1e-3, 1, 1_000]}, "--clip")
    for value in ([1, 1, 1_001], [1, 1], [1] * 4, [1, 1, "1"], 1, [1, 1, float("inf")]):
        with pytest.raises(UsageError, match=f"{key} is .*; expected three numbers"):
            clip_folder._check_preparation({key: value}, "--clip")
    if key == "mean":
        clip_folder._check_preparation({key: [0, -1_000, 0]}, "--clip")
        return
    with pytest.raises(UsageError, match="expected three numbers above 0"):
        clip_folder._check_preparation({key: [1, 1, 0]}, "--clip")


@pytest.mark.parametrize(("characters", "right"), [(1_000, True), (1_001, False)])
def test_a_token_ends_where_it_says(folder: Path, characters: int, right: bool) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(additional_special_tokens=["x" * characters]))
    if right:
        inspect_clip(folder, "--clip")
        return
    with pytest.raises(UsageError, match="at most 1,000 characters"):
        inspect_clip(folder, "--clip")


@pytest.mark.parametrize(("word", "right"), [("a" * 100, True), ("a" * 101, False), ("a/b", False), ("", True)])
def test_a_word_ends_where_it_says(word: str, right: bool) -> None:
    if right:
        clip_folder._check_settings({"pool_type": word}, "--clip")
        return
    with pytest.raises(UsageError, match="expected a word"):
        clip_folder._check_settings({"pool_type": word}, "--clip")
