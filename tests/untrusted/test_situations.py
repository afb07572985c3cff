"""What people's downloads and training folders hold besides a model: opened with a note, or one line that names it and what helps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bdaudit.errors import BdauditError
from bdaudit.untrusted.inspect import inspect
from tests.untrusted.edits import UNET, VAE, put
from tests.untrusted.ordinary import add_variant, both, files, named, old_config, only_variant, settings, shard, store
from tests.untrusted.tiny import VOCABULARY, write_json, write_model

Edit = Callable[[Path], object]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 3438167540\n"
TOKENIZER, SPECIAL = "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"
INDEX, TOWER, NET = "model_index.json", "text_encoder/config.json", "unet/config.json"
DOWNLOAD = "`hf download ID --local-dir DIR`"
HOME = "/content/drive/My Drive/out"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SERIALISED = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": VOCABULARY, "merges": ["a b", "a b</w>"]}}


def special(text: str) -> dict[str, object]:
    return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def linked(*pairs: tuple[str, str]) -> Edit:
    def edit(model: Path) -> None:
        for path, target in pairs:
            (model / path).parent.mkdir(parents=True, exist_ok=True)
            (model / path).symlink_to(target)

    return edit


def renamed(path: str, prefix: str) -> Edit:
    return lambda model: store(model / path, {prefix + name: tensor for name, tensor in load_file(model / path).items()})


def instead(path: str, new: str, content: bytes) -> Edit:
    return lambda model: [(model / path).unlink(), put(model / new, content)]


def link_out(model: Path) -> None:
    for i, path in enumerate((UNET, VAE)):
        shutil.move(model / path, model.parent / f"blob{i}")
        os.symlink(model.parent / f"blob{i}", model / path)


def lowered(model: Path) -> None:
    model.rename(model.parent / "v1")
    model.mkdir()
    shutil.move(model.parent / "v1", model / "v1")


OPENED: dict[str, tuple[Edit, str]] = {
    "wandb's links": (
        both(
            files(**{"wandb/run-1/files/config.yaml": b"lr: 1"}),
            linked(("wandb/latest-run", "run-1"), ("wandb/debug.log", "run-1/gone.log")),
        ),
        "links that are not followed: wandb/",
    ),
    "a dangling link of a trainer's": (linked(("logs/latest", "/scratch/gone")), "links that are not followed: logs/latest"),
    "linked samples": (linked(("samples", "/scratch/samples")), "links that are not followed: samples"),
    "a link to the last checkpoint": (
        both(files(**{"checkpoint-500/optimizer.bin": b"PK"}), linked(("latest", "checkpoint-500"))),
        "latest",
    ),
    "an endpoint's handler.py": (files(**{"handler.py": b"x = 1"}), "code that neither diffusers nor transformers runs: handler.py"),
    "a trainer's script": (
        files(**{"train_text_to_image.py": b"x = 1", "scripts/convert.py": b""}),
        "code that neither diffusers nor transformers runs: ",
    ),
    "a folder of compiled Python": (
        files(**{"unet/__pycache__/a.cpython-311.pyc": b"x"}),
        "code that neither diffusers nor transformers runs: unet/__pycache__",
    ),
    "what peft leaves beside a UNet": (files(**{"unet/adapter_config.json": b"{}"}), "unet/adapter_config.json is an adapter's settings"),
    "the path of a vocabulary elsewhere": (
        settings(TOKENIZER, vocab_file=f"{HOME}/tokenizer/vocab.json", merges_file=f"{HOME}/tokenizer/merges.txt"),
        "another machine's files under vocab_file and merges_file",
    ),
    "the path of a vocabulary on Windows": (
        settings(TOKENIZER, vocab_file="C:\\My Models\\vocab.json"),
        "another machine's files under vocab_file",
    ),
    "training arguments and an optimizer": (
        files(**{"training_args.bin": b"PK\x03\x04", "optimizer.pt": b"\x80\x04.", "rng_state.pth": b"\x80\x04."}),
        "pickles that nothing opens: optimizer.pt, rng_state.pth, training_args.bin",
    ),
    "an optimizer in a part": (files(**{"unet/optimizer.bin": b"PK\x03\x04"}), "pickles that nothing opens: unet/optimizer.bin"),
    "a trainer's checkpoint": (
        files(**{"checkpoint-500/optimizer.bin": b"PK\x03\x04", "checkpoint-500/random_states_0.pkl": b"\x80\x04."}),
        "pickles that nothing opens: checkpoint-500/",
    ),
    "logs, runs and samples": (
        files(**{"logs/a/events.out.tfevents.1": b"\0", "runs/b/events.out.tfevents.2": b"\0", "samples/0.png": b"\x89PNG"}),
        "",
    ),
    "what hf download leaves": (
        files(**{".cache/huggingface/download/unet/config.json.metadata": b"ab"}),
        "hidden folders, not entered: .cache",
    ),
    "what file managers leave": (
        files(**{".DS_Store": b"\0", "unet/._diffusion_pytorch_model.safetensors": b"\0\5\x16\7", "unet/._config.json": b"\0\5\x16\7"}),
        "files left alone, in no digest: unet/._diff",
    ),
    "what notebooks leave": (files(**{"unet/.ipynb_checkpoints/config-checkpoint.json": b"{}"}), ""),
    "a model card": (files(**{"README.md": b"---\n---\n", ".gitattributes": b"*.safetensors filter=lfs", "LICENSE": b"x"}), ""),
    "a safety checker without weights": (
        both(
            settings(INDEX, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]),
            files(**{"safety_checker/config.json": b"{}"}),
        ),
        "components listed and not loaded: safety_checker",
    ),
    "a feature extractor of odd keys": (
        both(
            settings(INDEX, feature_extractor=["transformers", "CLIPFeatureExtractor"]),
            files(**{"feature_extractor/preprocessor_config.json": b'{"crop_size": {"height": 224}, "_processor": [1], "x": null}'}),
        ),
        "components listed and not loaded: feature_extractor",
    ),
    "a scheduler's config of an unknown class": (
        settings("scheduler/scheduler_config.json", _class_name="MyScheduler", own=5),
        "settings in scheduler/scheduler_config.json that are not known, and that nothing was built with: own",
    ),
    "paths of a trainer's machine": (
        both(
            *(settings(path, _name_or_path=f"{HOME}/base", _commit_hash=None) for path in (INDEX, NET, TOWER)),
            settings(TOKENIZER, name_or_path=HOME),
        ),
        "",
    ),
    "of an old diffusers": (
        both(settings(INDEX, _diffusers_version="0.6.0"), settings(NET, _diffusers_version="0.10.2"), old_config(INDEX, "image_encoder")),
        "",
    ),
    "a text encoder of transformers 4": (
        settings(
            TOWER,
            transformers_version="4.21.0",
            torch_dtype="float16",
            max_length=20,
            use_bfloat16=False,
            pruned_heads={},
            id2label={"0": "a"},
        ),
        "that nothing was built with: max_length, use_bfloat16, pruned_heads",
    ),
    "a text encoder of transformers 5": (
        both(settings(TOWER, dtype="float16", transformers_version="5.1.0"), old_config(TOWER, "architectures")),
        "",
    ),
    "no quantisation, in so many words": (settings(NET, quantization_config=None), "that nothing was built with: quantization_config"),
    "a tokenizer in one file beside the others": (lambda model: write_json(model / "tokenizer/tokenizer.json", SERIALISED), ""),
    "a tokenizer in one file": (
        lambda model: [
            write_json(model / "tokenizer/tokenizer.json", SERIALISED),
            *((model / f"tokenizer/{n}").unlink() for n in ("vocab.json", "merges.txt")),
        ],
        "",
    ),
    "special tokens as texts": (lambda model: write_json(model / SPECIAL, {"bos_token": BEGIN, "eos_token": END, "pad_token": END}), ""),
    "special tokens as maps": (lambda model: write_json(model / SPECIAL, {"bos_token": special(BEGIN), "unk_token": special(END)}), ""),
    "a token that was added": (lambda model: write_json(model / "tokenizer/added_tokens.json", {"<toy>": 7}), ""),
    "full and fp16 weights": (lambda model: add_variant(model, "fp16"), "weights that are the audited ones, or their cast"),
    "mixed variants": (
        lambda model: only_variant(model, parts=("unet", "text_encoder")),
        "weights of a variant were taken: text_encoder fp16",
    ),
    "shards": (lambda model: shard(model, "unet"), ""),
    "a variant that was not fetched": (files(**{named(UNET, "fp16"): POINTER}), "weights that are not whole"),
    "a distilled pipeline's name": (
        settings(INDEX, _class_name="LatentConsistencyModelPipeline"),
        "the directory names a LatentConsistencyModelPipeline",
    ),
    "somebody's tags": (settings(INDEX, tags=["anime", "style"]), "settings in model_index.json that are not known"),
}
"""Situation → what makes a plain model into it, and what a note says; empty where nothing is worth one."""

REFUSED: dict[str, tuple[Edit, int, str, str]] = {
    "weights that git-lfs did not fetch": (files(**{UNET: POINTER}), 3, "is a Git LFS pointer", "`git lfs pull`"),
    "a tokenizer that git-lfs did not fetch": (files(**{"tokenizer/vocab.json": POINTER}), 3, "is a Git LFS pointer", "`git lfs pull`"),
    "pickles alone": (
        instead(UNET, "unet/diffusion_pytorch_model.bin", b"PK\x03\x04"),
        5,
        "could only be loaded by unpickling",
        "--allow-pickle",
    ),
    "links to a cache": (link_out, 5, "2 links lead out of the directory", DOWNLOAD),
    "GGUF alone": (instead(UNET, "unet/diffusion_pytorch_model-Q4_0.gguf", b"GGUF"), 4, "is GGUF, quantised weights", DOWNLOAD),
    "ONNX alone": (instead(UNET, "unet/model.onnx", b"\x08"), 4, "unet/model.onnx is of another framework", DOWNLOAD),
    "no weights": (lambda model: (model / UNET).unlink(), 3, "unet: no weights, expected unet/diffusion_pytorch_model", DOWNLOAD),
    "saved while compiled": (
        renamed(UNET, "_orig_mod."),
        3,
        "_orig_mod.…, as those of a compiled model",
        "`unet._orig_mod.save_pretrained(DIR)`",
    ),
    "saved from several devices": (
        renamed(UNET, "module."),
        3,
        "module.…, as those of a model on several",
        "`unet.module.save_pretrained(DIR)`",
    ),
    "quantised": (settings(NET, quantization_config={"quant_method": "torchao"}), 4, "quantised weights are not supported", "in float16"),
    "a pipeline beside diffusers": (files(**{"pipeline.py": b"x"}), 5, "pipeline.py is code that a loader could import", "move it out"),
    "a module of a library's name": (files(**{"unet/diffusers.py": b"x"}), 5, "unet/diffusers.py is code", "move it out"),
    "what peft leaves beside a text encoder": (
        files(**{"text_encoder/adapter_config.json": b"{}"}),
        5,
        "text_encoder/adapter_config.json would be opened by a loader",
        "move it out",
    ),
    "the path of another tokenizer's vocabulary": (
        settings(TOKENIZER, vocab_file="../other/vocab.json"),
        5,
        "vocab_file leads to files",
        "remove it",
    ),
    "another autoencoder": (settings(INDEX, vae=["diffusers", "AutoencoderTiny"]), 4, "vae is diffusers.AutoencoderTiny; expected", ""),
    "a folder above the model": (
        lowered,
        2,
        "has no model_index.json",
        "/v1 is one, name that",
    ),
}
"""Situation → what makes a plain model into it, the exit code, what its one line says, and what helps."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.mark.parametrize("name", OPENED)
def test_is_opened_with_a_note(name: str, model: Path) -> None:
    edit, note = OPENED[name]
    edit(model)
    found = inspect(model)
    assert found.unaudited == ()
    if note:
        assert any(note in each for each in found.notes), found.notes
    else:
        assert found.notes == ()


@pytest.mark.parametrize("name", REFUSED)
def test_is_one_line_and_what_helps(name: str, model: Path) -> None:
    edit, code, line, helps = REFUSED[name]
    edit(model)
    with pytest.raises(BdauditError) as caught:
        inspect(model)
    said = str(caught.value)
    assert (caught.value.code, "\n" in said) == (code, False), said
    assert line in said
    assert helps in said
    assert len(said.replace(str(model), "MODEL")) < 250


def test_there_are_many() -> None:
    assert len(OPENED) + len(REFUSED) >= 24
