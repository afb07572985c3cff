"""Hostile model directories and inputs, made on the spot from a valid tiny model: none is kept in the repository."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bdaudit.errors import ExitCode
from tests.untrusted import tiny
from tests.untrusted.edits import (
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
    allow_pickle: bool = False


CASES: list[Case] = []


def case(kind: str, code: ExitCode, name: str, edit: Edit, allow_pickle: bool = False) -> None:
    CASES.append(Case(kind, name, code, edit, allow_pickle))


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


CONFIG, SPECIAL = "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"
MANY = [f"<{i}>" for i in range(200_000)]
BIN = "unet/diffusion_pytorch_model.bin"
ENTRY = b"X\x01\x00\x00\x00a"
"""The name ``a`` in a pickle."""


def torch_archive(pickle: bytes, *, storage: bytes = bytes(16), compression: int = zipfile.ZIP_STORED) -> Edit:
    """The UNet as one ``torch.save`` archive with this pickle in it."""

    def edit(model: Path, canary: Path) -> None:
        (model / UNET).unlink()
        with zipfile.ZipFile(model / BIN, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickle)
            archive.writestr("archive/data/0", storage)

    return edit


def rebuilt(numbers: bytes, count: bytes = b"K\x04") -> bytes:
    """A pickle of one float tensor on storage 0; ``numbers`` pushes its offset, shape and stride."""
    stored = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + numbers + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + ENTRY + tensor + b"s."


def _allowed_pickles() -> None:
    """What ``--allow-pickle`` is asked to load, and does not."""
    for name, edit in {
        "code": replace(UNET, BIN, pickled),
        "code in an archive": lambda model, canary: ((model / UNET).unlink(), write_zip(model / BIN, canary))[1],
        "code, protocol 0": replace(UNET, BIN, lambda c: pickled(c, 0)),
        "code, protocol 4 in an archive": lambda model, canary: torch_archive(pickled(canary, 4))(model, canary),
        "a bytearray of 100 GB": torch_archive(b"\x80\x02}" + ENTRY + b"c__builtin__\nbytearray\n\x8a\x05\x00\xe8vH\x17\x85Rs."),
        "an object's state set": torch_archive(b"\x80\x02ctypes\nSimpleNamespace\n)\x81}" + ENTRY + b"K\x01sb."),
        "old opcodes": torch_archive(b"(i__main__\nEvil\n."),
        "extension registry": torch_archive(b"\x80\x02\x82\x01."),
        "sharded": both(replace(UNET, "unet/diffusion_pytorch_model-00001-of-00001.bin", pickled)),
        "another name": replace(UNET, "unet/model.ckpt", pickled),
        "the loose format of old": replace(UNET, BIN, lambda c: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
        "a link out": both(replace(UNET, BIN, pickled), link(BIN, "/etc/passwd")),
    }.items():
        case("pickles that --allow-pickle refuses", ExitCode.REFUSED, name, edit, allow_pickle=True)
    for name, edit in {
        "memo of 4 billion": torch_archive(b"\x80\x02}r\xff\xff\xff\xff."),
        "compressed": torch_archive(rebuilt(b"K\x00K\x04\x85K\x01\x85"), compression=zipfile.ZIP_DEFLATED),
        "a gigabyte of zeros, compressed": torch_archive(b"\x80\x02}.", storage=bytes(64 << 20), compression=zipfile.ZIP_DEFLATED),
        "nested 100,000 deep": torch_archive(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."),
        "tensor past its storage": torch_archive(rebuilt(b"J\x00\x00\x00\x40K\x04\x85K\x01\x85")),
        "one number spread over a terabyte": torch_archive(rebuilt(b"K\x00\x8a\x05\x00\x00\x00\x00\x01\x85K\x00\x85")),
        "negative shape": torch_archive(rebuilt(b"K\x00J\xff\xff\xff\xff\x85K\x01\x85")),
        "storage without a type": torch_archive(b"\x80\x02}" + ENTRY + b"(X\x07\x00\x00\x00storagetQs."),
        "no dictionary": torch_archive(b"\x80\x02]."),
        "no pickle at all": lambda model, canary: ((model / UNET).unlink(), put(model / BIN, b"PK\x03\x04" + bytes(60)))[1],
        "other model's tensors": torch_archive(rebuilt(b"K\x00K\x04\x85K\x01\x85")),
    }.items():
        case("archives that --allow-pickle cannot read", ExitCode.ERROR, name, edit, allow_pickle=True)


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
        "vocabulary in the tokenizer's config": change("tokenizer/tokenizer_config.json", vocab="/etc/passwd"),
        "merges in the tokenizer's config": change("tokenizer/tokenizer_config.json", merges=["a b"]),
    }.items():
        case("redirections", ExitCode.REFUSED, name, edit)


def _ways_out() -> None:
    for name, edit in {
        "weights outside": both(shard("part.safetensors"), link("unet/part.safetensors", "../../outside.safetensors")),
        "Hugging Face cache": snapshot,
        "folder outside": link("unet", "../elsewhere"),
        "absolute link": link("unet/README.md", "/etc/passwd"),
        "dangling link": link("unet/config.json", "nowhere.json"),
        "device": link(UNET, "/dev/zero"),
        "loop of folders": link("unet/loop", ".."),
        "link to itself": link("vae/config.json", "config.json"),
        "ring of links": both(link("vae/config.json", "b.json"), link("vae/b.json", "c.json"), link("vae/c.json", "config.json")),
        "chain of links that ends outside": both(link("unet/a", "b"), link("unet/b", "../c"), link("c", "/etc/hostname")),
        "link to the parent's sibling": both(lambda m, c: put(m.parent / "model2/x", b"x"), link("unet/x.txt", "../../model2/x")),
        "link to a folder inside": link("unet/twin", "../vae"),
    }.items():
        case("links", ExitCode.REFUSED, name, edit)
    for name, edit in {
        "parent folder": shard("../../outside.safetensors"),
        "absolute": shard("/etc/hostname.safetensors"),
        "subfolder": shard("sub/part.safetensors"),
        "backslash": shard("..\\outside.safetensors", "text_encoder"),
        "pickle": both(shard("part.bin"), drop("unet/part.bin")),
        "dots alone": shard(".."),
        "hidden": shard(".part.safetensors"),
        "empty": shard(""),
        "NUL": shard("part\0.safetensors"),
        "line feed at the end": shard("part.safetensors\n"),
        "look-alike slash": shard("sub\u2215part.safetensors"),
        "upper-case pickle": both(shard("PART.BIN"), drop("unet/PART.BIN")),
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
        "sizes without bytes": safetensors({"a": tensor(0, 1 << 40), "b": tensor(2, end=8)}, bytes(8)),
        "offsets backwards": safetensors({"a": tensor(2, begin=8, end=0)}, bytes(8)),
        "offsets as floats": safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}}, bytes(8)),
        "shape of NaN": safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)),
        "nine dimensions": safetensors({"a": tensor(*[1] * 9, end=4)}, bytes(4)),
        "metadata of lists": safetensors({"__metadata__": {"a": ["b"]}}),
        "a key too many": safetensors({"a": {**tensor(2, end=8), "module": "os"}}, bytes(8)),
    }.items():
        case("safetensors headers", ExitCode.ERROR, name, add(UNET, content))
    case("safetensors headers", ExitCode.ERROR, "header of 100 MB", sparse(UNET, 101_000_000, safetensors(b"{", length=100_000_000)))
    case("safetensors headers", ExitCode.ERROR, "weights of 4 TB", past_memory)
    case("safetensors headers", ExitCode.ERROR, "weights that are a hole of 2 GB", lambda m, c: past_memory(m, c, 2 << 30))
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
        "latents of 4,096 a side": change("unet/config.json", sample_size=4096),
        "latents of no size": change("unet/config.json", sample_size=0),
        "latents of three sides": change("unet/config.json", sample_size=[4, 4, 4]),
        "scale of nought": change("vae/config.json", scaling_factor=0),
        "scale of NaN": change("vae/config.json", scaling_factor=float("nan")),
        "4,000 layers in the nested config": change(
            "text_encoder/config.json", model_type="clip", text_config={"num_hidden_layers": 4_000, "hidden_size": 4_096}
        ),
        "layers under another name": change("text_encoder/config.json", attribute_map={"num_hidden_layers": "deep"}, deep=4_000),
        "4,000 layers on the way up": change("unet/config.json", reverse_transformer_layers_per_block=[4_000]),
        "one row that stands for a million channels": wide,
        "800 MB of chat templates": lambda model, canary: [
            sparse(f"tokenizer/additional_chat_templates/{i}.jinja", 8 << 20)(model, canary) for i in range(100)
        ],
        "more latent channels than weights": change("vae/config.json", latent_channels=4_000),
        "padding of 4,096 on the way down": change("unet/config.json", downsample_padding=4_096),
        "padding as a list": change("unet/config.json", downsample_padding=[4_096, 4_096]),
        "16,384 heads on latents of 256 a side": change("unet/config.json", num_attention_heads=16_384, sample_size=256),
        "a million betas": change("scheduler/scheduler_config.json", trained_betas=[0.1] * 49_000 + [2]),
        "a seed past any integer": change("scheduler/scheduler_config.json", steps_offset=10**300),
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
        "token of a million characters": change("tokenizer/vocab.json", **{"z" * 1_000_000: 3}),
        "no merges": serialised(merges=None),
        "pattern that backtracks": serialised(pattern="(a+)+$"),
        "pattern that backtracks, without groups": serialised(pattern="a*a*a*a*a*a*b"),
        "pattern that looks behind": serialised(pattern="(?<=a)b"),
        "pattern in the normaliser": serialised(normalizer={"type": "Replace", "pattern": {"Regex": "(x|x)*y"}, "content": ""}),
        "added token without a row": serialised(added=[{"id": 4_000_000_000, "content": "z"}]),
        "200,000 additional special tokens": change(CONFIG, additional_special_tokens=MANY),
        "200,000 extra special tokens": change(CONFIG, extra_special_tokens=MANY),
        "200,000 named special tokens": change(CONFIG, extra_special_tokens=dict(zip(MANY, MANY, strict=True))),
        "200,000 keys that are special tokens": change(CONFIG, **{f"{text}_token": text for text in MANY}),
        "200,000 special tokens in their own file": add(SPECIAL, json.dumps({"additional_special_tokens": MANY}).encode()),
        "6,000 tokens, half of them in each of two files": both(
            change(CONFIG, extra_special_tokens=MANY[:3_000]),
            add(SPECIAL, json.dumps({"extra_special_tokens": MANY[3_000:6_000]}).encode()),
        ),
        "200,000 added tokens in the config": change(CONFIG, added_tokens_decoder={f"{i:010}": {"content": t} for i, t in enumerate(MANY)}),
        "special tokens that are none": change(CONFIG, extra_special_tokens=[["a"]]),
        "a broken table of bytes": serialised(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "a table of bytes within a sequence": serialised(
            normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"}]}
        ),
        "a table of bytes without a name": serialised(normalizer={"precompiled_charsmap": "AAAA"}),
        "50,000 added tokens": serialised(added=[{"id": 1, "content": str(i)} for i in range(50_000)]),
        "added tokens in the config": change("tokenizer/tokenizer_config.json", added_tokens_decoder={"4000000000": {"content": "z"}}),
        "id of 5,000 digits": change("tokenizer/tokenizer_config.json", added_tokens_decoder={"9" * 5_000: {"content": "z"}}),
        "length of nought": change("tokenizer/tokenizer_config.json", model_max_length=0),
        "length as text": change("tokenizer/tokenizer_config.json", model_max_length="77"),
        "length without end": change("tokenizer/tokenizer_config.json", model_max_length=float("inf")),
        "length by another name": change("tokenizer/tokenizer_config.json", max_len=2),
        "length of NaN": change("tokenizer/tokenizer_config.json", model_max_length=float("nan")),
        "template of 9 MB": add("tokenizer/chat_template.jinja", b"{{ x }}" * (9 << 18)),
    }.items():
        case("tokenizers", ExitCode.ERROR, name, edit)
    for name, edit in {
        "SDXL without its own parts": change(
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


def serialised(
    *, merges: tuple[str, ...] | None = ("a b", "a b</w>"), pattern: str = r"\s+", added: object = (), normalizer: object = None
) -> Edit:
    """A ``tokenizer.json`` beside the vocabulary."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    model = {"type": "BPE", "vocab": tiny.VOCABULARY, "merges": merges}
    content = {"added_tokens": added, "normalizer": normalizer, "pre_tokenizer": split, "model": model}
    return lambda folder, canary: tiny.write_json(folder / "tokenizer/tokenizer.json", content)


def wide(model: Path, canary: Path) -> None:
    """Weights of a few MB whose first size is a million, and a config that asks for a million channels both ways."""
    save_file(tiny.weights({**tiny.unet_shapes(), "down_blocks.0.resnets.0.conv1.weight": (1_000_000, 1, 1, 1)}), model / UNET)
    change("unet/config.json", block_out_channels=[1_000_000])(model, canary)


def inpainting(model: Path, canary: Path) -> None:
    change("unet/config.json", in_channels=9)(model, canary)
    save_file(tiny.weights({**tiny.unet_shapes(), "conv_in.weight": (8, 9, 3, 3)}), model / UNET)


def _retyped() -> None:
    """What is looked up, or reckoned with, of another type."""
    for name, path, at, value in (
        ("a list for a step of the tokenizer", "tokenizer/tokenizer.json", ("normalizer", "type"), []),
        ("a map for a pattern", "tokenizer/tokenizer.json", ("normalizer", "pattern"), {"Regex": {}}),
        ("true for a list of blocks", "unet/config.json", ("block_out_channels",), True),
        ("null for a width", "vae/config.json", ("latent_channels",), {}),
    ):
        case("retyped", ExitCode.ERROR, name, partial(_put, path, at, value))
    for name, places in {
        "positions in another order": np.arange(8)[::-1].copy(),
        "one position for all": np.zeros(8, np.int64),
        "positions from 1 on": np.arange(1, 9),
        "positions between the places": np.arange(8) + np.float32(0.25),
    }.items():
        case("two models in one", ExitCode.INCONCLUSIVE, name, partial(_misplaced, places))


def _put(path: str, at: tuple[str, ...], value: object, model: Path, canary: Path) -> None:
    whole = json.loads((model / path).read_text()) if (model / path).exists() else {"normalizer": {"type": "NFC"}, "model": {"merges": []}}
    inner = whole
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    (model / path).write_text(json.dumps(whole))


def _misplaced(places: np.ndarray, model: Path, canary: Path) -> None:
    save_file({**load_file(model / TEXT), "text_model.embeddings.position_ids": places[None]}, model / TEXT)


for _make in (_pickles, _allowed_pickles, _code, _hooks, _ways_out, _headers, _json, _tokenizers, _retyped):
    _make()

TEXTS: dict[str, Callable[[Path], object]] = {
    "not UTF-8": lambda path: path.write_bytes(b"cat\ndog\n\xff\xfe\n"),
    "UTF-16": lambda path: path.write_text("cat\ndog\n", encoding="utf-16"),
    "unpaired surrogate": lambda path: path.write_bytes(b"\xed\xa0\x80\n"),
    "NUL": lambda path: path.write_bytes(b"cat\nd\0g\n"),
    "carriage returns alone": lambda path: path.write_bytes(b"cat\rdog\r"),
    "NUL as an escape": lambda path: path.write_text("\\u0000\n"),
    "malformed escape": lambda path: path.write_text("cat\n\\u20\n"),
    "escape that is none": lambda path: path.write_text("\\q\n"),
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
