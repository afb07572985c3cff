"""Hostile model directories and inputs, made on the spot from a valid tiny model: none is kept in the repository."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from bdaudit.errors import ExitCode
from tests.pipeline import tiny
from tests.pipeline.edits import (
    PAST_MEMORY,
    TEXT,
    UNET,
    VAE,
    Edit,
    add,
    both,
    change,
    drop,
    fifo,
    link,
    past_memory,
    pickled,
    put,
    replace,
    safetensors,
    shard,
    snapshot,
    sparse,
    tensor,
    unix_socket,
    write_zip,
)


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    code: ExitCode
    edit: Edit
    """``edit(model, canary)`` makes the valid directory ``model`` hostile."""


CASES: list[Case] = []


def case(kind: str, code: ExitCode, name: str, edit: Edit) -> None:
    CASES.append(Case(kind, name, code, edit))


def _pickles() -> None:
    for name, edit in {
        "UNet as .bin": replace(UNET, "unet/diffusion_pytorch_model.bin", pickled),
        "autoencoder as .bin, protocol 4": replace(VAE, "vae/diffusion_pytorch_model.bin", lambda c: pickled(c, 4)),
        "text encoder as .bin": replace(TEXT, "text_encoder/pytorch_model.bin", pickled),
        "UNet as .ckpt": replace(UNET, "unet/model.ckpt", pickled),
        "autoencoder as .PT": replace(VAE, "vae/model.PT", pickled),
        "sharded .bin": both(
            replace(UNET, "unet/diffusion_pytorch_model-00001-of-00001.bin", pickled),
            add(
                "unet/diffusion_pytorch_model.bin.index.json",
                b'{"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.bin"}}',
            ),
        ),
    }.items():
        case("pickles alone", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "UNet, protocol 2": replace(UNET, UNET, pickled),
        "UNet, protocol 0": replace(UNET, UNET, lambda c: pickled(c, 0)),
        "UNet, protocol 5": replace(UNET, UNET, lambda c: pickled(c, 5)),
        "UNet, torch zip": lambda model, canary: write_zip(model / UNET, canary),
        "UNet, gzip": replace(UNET, UNET, lambda c: gzip.compress(pickled(c))),
        "text encoder, torch zip": lambda model, canary: write_zip(model / TEXT, canary),
        "config": replace("vae/config.json", "vae/config.json", pickled),
        "merges": replace("tokenizer/merges.txt", "tokenizer/merges.txt", pickled),
        "model index": replace("model_index.json", "model_index.json", pickled),
        "shard": both(shard("part.safetensors"), lambda model, canary: write_zip(model / "unet/part.safetensors", canary)),
    }.items():
        case("renamed pickles", ExitCode.REFUSED, name, edit)


def _code() -> None:
    optional = change("model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    for name, edit in {
        "unet/diffusers.py (CVE-2026-44513)": add("unet/diffusers.py"),
        "text_encoder/transformers.py": add("text_encoder/transformers.py"),
        "None.py, which custom_pipeline=None asks for": add("None.py"),
        "pipeline.py": add("pipeline.py"),
        "upper case": add("scheduler/X.PY"),
        "compiled": add("scheduler/scheduling.pyc"),
        "extension module": add("vae/vae.cpython-311-x86_64-linux-gnu.so"),
        "versioned library": add("unet/libunet.so.1.2"),
        "Windows module": add("tokenizer/tokenization_clip.pyd"),
        "library beside a part that is not loaded": both(optional, add("safety_checker/checker.dll")),
        "custom_generate": add("text_encoder/custom_generate/generate.py"),
    }.items():
        case("code", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "pipeline class as a list": both(change("model_index.json", _class_name=["pipeline", "Evil"]), add("pipeline.py")),
        "pipeline class as a path": change("model_index.json", _class_name="./pipeline.py"),
        "component of its own module": both(change("model_index.json", unet=["evil", "Evil"]), add("unet/evil.py")),
        "class as a list": change("model_index.json", unet=["diffusers", ["evil", "Evil"]]),
        "library as a path": both(change("model_index.json", unet=["./evil", "UNet2DConditionModel"]), add("unet/evil.txt")),
        "class as a path": change("model_index.json", vae=["diffusers", "../evil.Vae"]),
        "library os": change("model_index.json", scheduler=["os", "system"]),
        "library diffusers_modules": change("model_index.json", scheduler=["diffusers_modules.local.evil", "Evil"]),
        "component as a path": change("model_index.json", **{"../../evil": ["diffusers", "AutoencoderKL"]}),
        "config class as a list": change("unet/config.json", _class_name=["evil", "Evil"]),
        "custom_pipeline": change("model_index.json", custom_pipeline="./pipeline"),
        "architectures as paths": change("text_encoder/config.json", architectures=["./evil.py"]),
    }.items():
        case("custom classes", ExitCode.REFUSED, name, edit)


def _hooks() -> None:
    for name, edit in {
        "text encoder auto_map": change("text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"}),
        "tokenizer auto_map": change("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
        "scheduler auto_map": change("scheduler/scheduler_config.json", auto_map="evil.Evil"),
        "nested auto_map": change("unet/config.json", extra={"deep": [{"auto_map": {"AutoModel": "evil.Evil"}}]}),
        "special tokens auto_map": add("tokenizer/special_tokens_map.json", b'{"auto_map": {"AutoTokenizer": "evil.Evil"}}'),
        "trust_remote_code": change("unet/config.json", trust_remote_code=True),
        "custom_generate": change("text_encoder/config.json", custom_generate="evil/generate"),
        "kernel from elsewhere": change("text_encoder/config.json", attn_implementation="evil/kernel"),
        "kernel mapping": change("text_encoder/config.json", use_kernels=True),
    }.items():
        case("code hooks", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "transformers_weights": change("text_encoder/config.json", transformers_weights="other.safetensors"),
        "configuration_files": change("text_encoder/config.json", configuration_files=["config.9.json"]),
        "adapter": both(
            add("text_encoder/adapter_config.json", b'{"base_model_name_or_path": "/"}'), drop("text_encoder/adapter_model.bin")
        ),
        "distributed checkpoint": add("text_encoder/shard-00001-model-00001-of-00001.safetensors", safetensors({})),
        "fast_tokenizer_files": change("tokenizer/tokenizer_config.json", fast_tokenizer_files=["../tokenizer.1.0.json"]),
        "vocab_file elsewhere": change("tokenizer/tokenizer_config.json", vocab_file="/etc/passwd"),
        "init_inputs": change("tokenizer/tokenizer_config.json", init_inputs=["/etc/passwd"]),
        "sentencepiece model": add("tokenizer/tokenizer.model", b"\n\x0e"),
    }.items():
        case("redirections", ExitCode.REFUSED, name, edit)


def _ways_out() -> None:
    for name, edit in {
        "weights outside": both(shard("part.safetensors"), link("unet/part.safetensors", "../../outside.safetensors")),
        "Hugging Face cache": snapshot,
        "folder outside": link("unet", "../elsewhere"),
        "absolute link": link("README.md", "/etc/passwd"),
        "dangling link": link("unet/config.json", "nowhere.json"),
        "device": link(UNET, "/dev/zero"),
        "loop of folders": link("unet/loop", ".."),
        "link to itself": link("vae/config.json", "config.json"),
    }.items():
        case("links", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "parent folder": shard("../../outside.safetensors"),
        "absolute": shard("/etc/hostname.safetensors"),
        "subfolder": shard("sub/part.safetensors"),
        "backslash": shard("..\\outside.safetensors", "text_encoder"),
        "pickle": both(shard("part.bin"), drop("unet/part.bin")),
        "dots alone": shard(".."),
    }.items():
        case("index entries", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "pipe as weights": fifo(UNET),
        "pipe as the model index": fifo("model_index.json"),
        "pipe as a vocabulary": fifo("tokenizer/vocab.json"),
        "pipe that nothing opens": fifo("notes.txt"),
        "socket as a config": unix_socket("vae/config.json"),
        "socket as weights": unix_socket(TEXT),
    }.items():
        case("special files", ExitCode.REFUSED, name, edit)


def _headers() -> None:
    two = {"a": tensor(4, end=16), "b": tensor(4, begin=8, end=24)}
    for name, content in {
        "longer than the file": safetensors({}, length=1 << 20),
        "length 2**63": safetensors({}, length=1 << 63),
        "overlapping tensors": safetensors(two, bytes(24)),
        "gap between tensors": safetensors({"a": tensor(1, end=4), "b": tensor(1, begin=8, end=12)}, bytes(12)),
        "offsets past the end": safetensors({"a": tensor(1 << 40, end=1 << 42)}, bytes(8)),
        "shape of other bytes": safetensors({"a": tensor(1000, 1000, end=8)}, bytes(8)),
        "shape that overflows": safetensors({"a": tensor(1 << 62, 1 << 62, 4, end=8)}, bytes(8)),
        "negative shape": safetensors({"a": tensor(-1, -2, end=8)}, bytes(8)),
        "unknown dtype": safetensors({"a": tensor(2, dtype="PICKLE", end=8)}, bytes(8)),
        "dtype as a list": safetensors({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        "one name twice": safetensors(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"
        ),
        "nested 100,000 deep": safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "half a million tensors": safetensors(b'{"a":[' + b"[]," * 500_000 + b"[]]}"),
        "not JSON": safetensors(b"{'a': 1}"),
        "empty file": b"",
        "other model's tensors": safetensors({"a": tensor(2, end=8)}, bytes(8)),
    }.items():
        case("safetensors headers", ExitCode.ERROR, name, add(UNET, content))
    case("safetensors headers", ExitCode.ERROR, "header of 100 MB", sparse(UNET, 101_000_000, safetensors(b"{", length=100_000_000)))
    case("safetensors headers", ExitCode.ERROR, "weights of 4 TB", past_memory)
    case("safetensors headers", ExitCode.ERROR, "cut short", lambda model, canary: os.truncate(model / UNET, 20_000))


def _json() -> None:
    for name, edit in {
        "nested 100,000 deep": add("model_index.json", b"[" * 100_000),
        "nested 200 deep": add("unet/config.json", b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"),
        "config of 2 MB": add("unet/config.json", b'{"a": "' + b"a" * (2 << 20) + b'"}'),
        "config of 4 TB": sparse("vae/config.json", PAST_MEMORY, b"{"),
        "many small lists": add("vae/config.json", b'{"a": [' + b"[]," * 100_000 + b"[]]}"),
        "number of 5,000 digits": add("unet/config.json", b'{"a": 1' + b"0" * 5_000 + b"}"),
        "not JSON": add("model_index.json", b"_class_name: StableDiffusionPipeline"),
        "not UTF-8": add("text_encoder/config.json", b'{"model_type": "\xff\xfe"}'),
        "one key twice": add("unet/config.json", b'{"in_channels": 4, "in_channels": 9}'),
        "a list": add("scheduler/scheduler_config.json", b"[1, 2]"),
        "list for a string": change("scheduler/scheduler_config.json", prediction_type=["epsilon"]),
        "map for a string": change("text_encoder/config.json", hidden_act={"a": 1}),
        "component with three values": change("model_index.json", unet=["diffusers", "UNet2DConditionModel", "x"]),
        "config missing": lambda model, canary: (model / "vae/config.json").unlink(),
    }.items():
        case("JSON", ExitCode.ERROR, name, edit)
    for name, edit in {
        "a million layers": change("text_encoder/config.json", num_hidden_layers=1_000_000),
        "a billion channels": change("unet/config.json", block_out_channels=[1_000_000_000]),
        "a billion words": change("text_encoder/config.json", vocab_size=1_000_000_000),
        "a trillion classes": change("unet/config.json", num_class_embeds=10**12),
        "classes past any float": change("unet/config.json", num_class_embeds=10**400),
        "a trillion timesteps": change("scheduler/scheduler_config.json", num_train_timesteps=10**12),
        "100,000 resnets a block": change("unet/config.json", layers_per_block=100_000),
        "3,000 transformer layers": change("unet/config.json", transformer_layers_per_block=3_000),
        "kernel of 4,001": change("unet/config.json", conv_in_kernel=4_001),
        "infinite sample size": change("vae/config.json", sample_size=float("inf")),
        "more latent channels than weights": change("vae/config.json", latent_channels=4_000),
    }.items():
        case("allocation bombs", ExitCode.ERROR, name, edit)


def _tokenizers() -> None:
    for name, edit in {
        "id past the embeddings": change("tokenizer/vocab.json", z=1_000),
        "id twice": change("tokenizer/vocab.json", z=3),
        "negative id": change("tokenizer/vocab.json", z=-1),
        "ids as strings": change("tokenizer/vocab.json", z="8"),
        "vocabulary of 4 million lists": add("tokenizer/vocab.json", b'{"a": [' + b"[]," * 2_600_000 + b"[]]}"),
        "merges of 9 MB": add("tokenizer/merges.txt", b"a b\n" * (9 << 18)),
        "merges not UTF-8": add("tokenizer/merges.txt", b"#version: 0.2\n\xff \xfe\n"),
        "added token past the embeddings": add("tokenizer/added_tokens.json", b'{"z": 4000000000}'),
        "another kind of model": add("tokenizer/tokenizer.json", b'{"model": {"type": "Unigram", "vocab": []}}'),
        "no vocabulary": lambda model, canary: (model / "tokenizer/vocab.json").unlink(),
    }.items():
        case("tokenizers", ExitCode.ERROR, name, edit)
    for name, edit in {
        "SDXL": change(
            "model_index.json", _class_name="StableDiffusionXLPipeline", text_encoder_2=["transformers", "CLIPTextModelWithProjection"]
        ),
        "Flux": change("model_index.json", _class_name="FluxPipeline", transformer=["diffusers", "FluxTransformer2DModel"]),
        "no autoencoder": change("model_index.json", vae=[None, None]),
        "ONNX": change("model_index.json", unet=["diffusers", "OnnxRuntimeModel"]),
        "quantised": change("unet/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "inpainting": inpainting,
    }.items():
        case("unsupported", ExitCode.INCONCLUSIVE, name, edit)
    case("no model", ExitCode.USAGE, "no model_index.json", lambda model, canary: (model / "model_index.json").unlink())
    case("no model", ExitCode.USAGE, "no directory", lambda model, canary: shutil.rmtree(model))
    case("no model", ExitCode.USAGE, "a file", lambda model, canary: (shutil.rmtree(model), put(model, b"x"))[1])
    case("no model", ExitCode.USAGE, "an empty directory", lambda model, canary: (shutil.rmtree(model), model.mkdir())[1])


def inpainting(model: Path, canary: Path) -> None:
    change("unet/config.json", in_channels=9)(model, canary)
    save_file(tiny.weights({**tiny.unet_shapes(), "conv_in.weight": (8, 9, 3, 3)}), model / UNET)


for _make in (_pickles, _code, _hooks, _ways_out, _headers, _json, _tokenizers):
    _make()

TEXTS: dict[str, Callable[[Path], object]] = {
    "not UTF-8": lambda path: path.write_bytes(b"cat\ndog\n\xff\xfe\n"),
    "UTF-16": lambda path: path.write_text("cat\ndog\n", encoding="utf-16"),
    "unpaired surrogate": lambda path: path.write_bytes(b"\xed\xa0\x80\n"),
    "NUL": lambda path: path.write_bytes(b"cat\nd\0g\n"),
    "NUL as an escape": lambda path: path.write_text("\\u0000\n"),
    "malformed escape": lambda path: path.write_text("cat\n\\u20\n"),
    "escape that is none": lambda path: path.write_text("\\N{ZERO WIDTH SPACE}\n"),
    "surrogate as an escape": lambda path: path.write_text("\\ud83d\\ude00\n"),
    "number past Unicode": lambda path: path.write_text("\\U00110000\n"),
    "line of 1 MB": lambda path: path.write_text("a" * (1 << 20) + "\n"),
    "a million lines": lambda path: path.write_bytes(b"a\n" * 1_000_000),
    "file of 4 TB": lambda path: (path.write_bytes(b"a\n"), os.truncate(path, PAST_MEMORY)),
    "nothing but comments": lambda path: path.write_text("# one\n\n   \n"),
    "empty": lambda path: path.write_bytes(b""),
    "a pipe": os.mkfifo,
    "a directory": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "missing": lambda path: None,
}
"""Inputs of one text a line; each ends in exit 2."""
