"""Graders from folders and from the cache: the right features, no pickle, no download."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.measure import open_clip_model
from bdaudit.measure.grader import OpenClipGrader, load_grader
from bdaudit.records import NotMeasured
from fixtures import layout
from tests.verify import toy

CPU = torch.device("cpu")
FIXTURES = Path(layout.__file__).parent


@pytest.fixture
def folder(clip: Path, tmp_path: Path) -> Path:
    """A grader's folder that a test may spoil."""
    return Path(shutil.copytree(clip, tmp_path / "clip"))


def load(folder: Path) -> OpenClipGrader:
    found = load_grader(f"local-dir:{folder}", CPU)
    assert isinstance(found, OpenClipGrader)
    return found


def test_features_are_open_clips_own(clip: Path) -> None:
    ours = load(clip)
    theirs = open_clip.create_model(f"local-dir:{clip}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    pictures = torch.rand(5, 3, toy.SIDE, toy.SIDE, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.3, 0.2, 0.25]).view(3, 1, 1)
    with torch.no_grad():
        expected = functional.normalize(theirs.encode_image((pictures - mean) / std), dim=1)
        texts = functional.normalize(theirs.encode_text(tokenizer(["a red dog", "ice"])), dim=1)
    assert torch.allclose(ours.image_features(pictures), expected, atol=1e-6)
    assert torch.allclose(ours.text_features(["a red dog", "ice"]), texts, atol=1e-6)
    assert ours.name == f"local-dir:{clip}"


def test_larger_pictures_are_prepared_as_open_clip_does(clip: Path) -> None:
    from open_clip import transform
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    noise = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(1))
    smooth = functional.interpolate(noise[None], (50, 70), mode="bilinear")[0]
    image = Image.fromarray((smooth * 255).round().byte().permute(1, 2, 0).numpy())
    settings = transform.PreprocessCfg(**load(clip)._model.visual.preprocess_cfg)
    theirs = transform.image_transform_v2(settings, is_train=False)(image)
    ours = load(clip)._prepare(to_tensor(image)[None])[0]
    assert ours.shape == (3, toy.SIDE, toy.SIDE)
    assert (ours - theirs).abs().mean() < 0.02
    assert (ours - theirs).abs().max() < 0.15  # they round to 8 bits between the two passes of the resize


def test_batches_change_nothing(clip: Path) -> None:
    ours = load(clip)
    pictures = torch.rand(70, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    one_by_one = torch.cat([ours.image_features(picture[None]) for picture in pictures])
    assert torch.allclose(ours.image_features(pictures), one_by_one, atol=1e-5)
    assert ours.image_features(pictures).norm(dim=1).sub(1).abs().max() < 1e-5


def test_a_pickle_is_refused_and_never_opened(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(RefusedError, match=r"open_clip_pytorch_model\.bin is a pickle"):
        load(folder)


def test_safetensors_win_over_a_pickle_that_open_clip_would_prefer(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "weights.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not a pickle at all")
    assert load(folder).image_features(torch.rand(1, 3, 16, 16)).shape == (1, 12)


def test_a_config_that_asks_for_code_is_refused(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(RefusedError, match="trust_remote_code"):
        load(folder)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"model_cfg": {"text_cfg": 1, "vision_cfg": {}}}'])
def test_a_folder_that_is_no_model_is_a_usage_error(folder: Path, content: str | None) -> None:
    (folder / "open_clip_config.json").unlink()
    if content is not None:
        (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(UsageError, match="open_clip_config"):
        load(folder)


def test_weights_that_do_not_fit_or_are_damaged_are_errors(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "text_projection"}, weights)
    with pytest.raises(BdauditError, match="could not be loaded"):
        load(folder)
    save_file(tensors | {"text_projection": tensors["text_projection"] * float("nan")}, weights)
    with pytest.raises(BdauditError, match="NaN or infinity"):
        load(folder)
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(BdauditError, match="could not be loaded"):
        load(folder)


@pytest.mark.parametrize("name", ["nonsense", "ViT-L-14", "ViT-L-14/nonsense", "openai/clip-vit-large-patch14"])
def test_an_unknown_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="expected MODEL/PRETRAINED"):
        load_grader(name, CPU)


def test_a_folder_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"in open_clip's layout; got No such file or directory$"):
        load_grader(f"local-dir:{tmp_path / 'nowhere'}", CPU)


def test_a_grader_that_is_not_here_is_not_measured_and_its_command_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: None)
    found = load_grader("ViT-L-14/openai", CPU)
    assert isinstance(found, NotMeasured)
    assert "hf download timm/vit_large_patch14_clip_224.openai open_clip_model.safetensors" in found.reason
    assert not list(tmp_path.iterdir())


def test_a_named_grader_takes_its_tags_activation_and_preprocessing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip import factory

    small = json.loads((clip / "open_clip_config.json").read_text())["model_cfg"] | {"quick_gelu": False}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "RN50", small)
    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: str(clip / name))
    found = load_grader("RN50/openai", CPU)  # OpenAI's weights need the quick GELU, which the architecture's own config does not ask for
    assert isinstance(found, OpenClipGrader)
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    same = load(clip)
    same._prepare = found._prepare
    assert found._prepare.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert torch.allclose(found.image_features(pictures), same.image_features(pictures), atol=1e-6)


def test_a_grader_whose_tokenizer_asks_for_code_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers yes on stdin, and whatever the environment says."""
    folder = Path(shutil.copytree(FIXTURES / "grader", tmp_path / "clip"))
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'canary')!r}).touch()\nclass Evil: ...\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    for name in ("HF_HUB_TRUST_REMOTE_CODE", "TRANSFORMERS_TRUST_REMOTE_CODE", "HF_TRUST_REMOTE_CODE"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(RefusedError, match="auto_map asks for code"):
        load(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    load(folder)
    assert not (tmp_path / "canary").exists()


def test_a_graders_own_tokenizer_reads_texts_as_open_clip_has_it() -> None:
    theirs = open_clip.get_tokenizer(f"local-dir:{FIXTURES / 'grader'}")
    texts = ["a red circle", "Two  blue\tsquares", "\u020f", "x " * 100]
    assert torch.equal(load(FIXTURES / "grader")._tokenizer(texts), theirs(texts))


def test_a_config_that_asks_for_more_than_its_weights_hold_builds_nothing(folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"] = 16_384
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BdauditError, match=r"its config asks for .* numbers, its weights hold"):
        load(folder)


def test_weights_that_are_a_hole_or_a_pickle_are_not_read(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(RefusedError, match="a pickle or an archive"):
        load(folder)
    weights.write_bytes(b"")
    os.truncate(weights, 1 << 32)
    with pytest.raises(BdauditError, match="mostly a hole"):
        load(folder)


def serialised(folder: Path, **sections: Any) -> Path:
    """The grader with these sections of its ``tokenizer.json``, read as it stands there."""
    shutil.copytree(FIXTURES / "grader", folder)
    for name, changes in (("tokenizer.json", sections), ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("table", "error", "said"),
    [
        ("AAAA", UsageError, "tokenizer.json: its table of characters is damaged"),
        ("AAAAAA==", BdauditError, "its tokenizer cannot read a text: index out of bounds"),
    ],
    ids=["seen by the inspection", "that its library breaks off at"],
)
def test_a_table_of_characters_that_is_none(table: str, error: type[BdauditError], said: str, tmp_path: Path) -> None:
    """Settings that mean nothing are a wrong ``--clip``; whatever a library raises over them, a panic too, is a load error."""
    broken = serialised(tmp_path / "clip", normalizer={"type": "Precompiled", "precompiled_charsmap": table})
    with pytest.raises(BdauditError, match=re.escape(said)) as raised:
        load(broken)
    assert type(raised.value) is error


@pytest.mark.parametrize("number", [2463, 2464])
def test_ids_that_the_model_does_not_know_are_told_before_the_work(tmp_path: Path, number: int) -> None:
    ends = {"type": "RobertaProcessing", "sep": ["<|endoftext|>", number], "cls": ["<|startoftext|>", 2462]}
    folder = serialised(tmp_path / "clip", post_processor=ends)
    if number < 2464:
        assert load(folder).text_features(["a cat"]).shape == (1, 96)
        return
    with pytest.raises(BdauditError, match=r"its tokenizer cannot read a text: it makes 32 tokens a text with ids up to 2464; .*2463"):
        load(folder)


def test_more_tokens_than_the_model_reads_are_told() -> None:
    model = SimpleNamespace(token_embedding=None, context_length=8, vocab_size=5)
    for ids, right in (([[0] * 8], True), ([[0] * 9], False), ([[4]], True), ([[5]], False), ([[-1]], False)):
        texts = open_clip_model.Texts("--clip x", lambda given, ids=ids: torch.tensor(ids), model)
        if right:
            assert texts(["a"]).tolist() == ids
            continue
        with pytest.raises(BdauditError, match="--clip x: its tokenizer cannot read a text: it makes"):
            texts(["a"])


def test_an_interrupt_stays_one_while_a_tokenizer_reads() -> None:
    def interrupted(texts: list[str]) -> torch.Tensor:
        raise KeyboardInterrupt

    model = SimpleNamespace(token_embedding=None, context_length=8, vocab_size=5)
    with pytest.raises(KeyboardInterrupt):
        open_clip_model.Texts("--clip x", interrupted, model)(["a"])
