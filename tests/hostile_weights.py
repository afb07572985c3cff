"""Hostile weights at the doors: adapters and what lies beside them, patches, checkpoints in one file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bdaudit.errors import ExitCode
from bdaudit.untrusted.inspect import inspect
from tests.hostile_doors import DEEP, DIGEST, HOLE, LYING, Cases, Run, adapter, cases_of, embedding, header, patch, pickled, written
from tests.untrusted import edits, one_file, tiny

PASS, USAGE, ERROR, INCONCLUSIVE, REFUSED = ExitCode.PASS, ExitCode.USAGE, ExitCode.ERROR, ExitCode.INCONCLUSIVE, ExitCode.REFUSED
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
Tensors = dict[str, np.ndarray]


def factors(rank: int = 2) -> Tensors:
    return {f"{KEY}.lora_A.weight": np.ones((rank, 8), np.float32), f"{KEY}.lora_B.weight": np.ones((8, rank), np.float32)}


def of_tensors(tensors: Tensors, metadata: dict[str, str] | None = None) -> Run:
    def run(folder: Path, _: Path) -> object:
        (folder / "a.safetensors").write_bytes(save(tensors, metadata))
        return adapter(folder / "a.safetensors")

    return run


def _adapters() -> Cases:
    a, b = factors()
    plain = factors()
    lone = header({"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, data=bytes(4))

    def surrogate(folder: Path, _: Path) -> object:
        (folder / "a.safetensors").write_bytes(lone)
        return adapter(folder / "a.safetensors")

    return {
        "a factor without a dimension": (ERROR, of_tensors({**plain, a: np.ones((), np.float32)})),
        "factors that do not fit each other": (ERROR, of_tensors({**plain, b: np.ones((8, 3), np.float32)})),
        "a layer of another size": (ERROR, of_tensors({a: np.ones((2, 9), np.float32), b: plain[b]})),
        "a layer that is not there": (INCONCLUSIVE, of_tensors({key.replace("attn2", "attn9"): t for key, t in plain.items()})),
        "NaN": (ERROR, of_tensors({**plain, a: np.full((2, 8), np.nan, np.float32)})),
        "a product beyond all": (ERROR, of_tensors({key: np.full(t.shape, 1e30, np.float32) for key, t in plain.items()})),
        "whole numbers": (INCONCLUSIVE, of_tensors({key: t.astype(np.int8) for key, t in plain.items()})),
        "an unpaired surrogate for a name": (INCONCLUSIVE, surrogate),
        "a name of 100,000 characters": (ERROR, of_tensors({"x" * 100_000 + ".lora_A.weight": plain[a]})),
        "a name of underscores": (ERROR, of_tensors({"_lora_down" * 40_000 + ".weight": plain[a]})),
        "settings in the header, 3,000 deep": (ERROR, of_tensors(plain, {"lora_adapter_metadata": DEEP})),
        "settings in the header that are a list": (ERROR, of_tensors(plain, {"lora_adapter_metadata": "[]"})),
        "one factor alone": (ERROR, of_tensors({a: plain[a]})),
        "a block of the number 10**9": (INCONCLUSIVE, of_tensors({f"lora_unet_input_blocks_{10**9}_0_op.alpha": np.ones(1, np.float32)})),
        "a magnitude for no axis": (ERROR, of_tensors(plain | {f"{KEY}.dora_scale": np.ones((3, 1), np.float32)})),
        "a magnitude of zeros": (PASS, of_tensors(plain | {f"{KEY}.dora_scale": np.zeros((8, 1), np.float32)})),
    }


def _embeddings() -> Cases:
    row = np.ones((1, 8), np.float32)

    def of(tensors: Tensors, token: str = "") -> Run:
        def run(folder: Path, _: Path) -> object:
            (folder / "x.safetensors").write_bytes(save(tensors))
            return embedding(folder / "x.safetensors", token)

        return run

    def file(name: str, content: Callable[[Path], bytes]) -> Run:
        def run(folder: Path, canary: Path) -> object:
            (folder / name).write_bytes(content(canary))
            return embedding(folder / name, "")

        return run

    def linked(folder: Path, _: Path) -> object:
        (folder / "x.safetensors").symlink_to("/dev/zero")
        return embedding(folder / "x.safetensors", "")

    lying = {f"a header: {name}": (ERROR, file("x.safetensors", lambda _, content=content: content)) for name, content in LYING.items()}
    return {
        **lying,
        "an embedding": (PASS, of({"<x>": row})),
        "a pickle": (REFUSED, file("x.pt", pickled)),
        "a pickle under another name": (REFUSED, file("x.safetensors", pickled)),
        "a device": (ERROR, linked),
        "NaN": (ERROR, of({"<x>": row * np.nan})),
        "whole numbers": (ERROR, of({"<x>": row.astype(np.int8)})),
        "a vector of another width": (ERROR, of({"<x>": np.ones((1, 9), np.float32)})),
        "76 vectors": (INCONCLUSIVE, of({"<x>": np.ones((76, 8), np.float32)})),
        "20 MB": (ERROR, of({"<x>": np.ones((60, 90_000), np.float32)})),
        "a token that is an entry already": (USAGE, of({"a</w>": row})),
        "a token that turns the line about": (USAGE, of({"\u202ex": row})),
        "a token with escapes": (USAGE, of({"<x>": row}, "\x1b[2J")),
        "a token of 10,000 characters": (ERROR, of({"x" * 10_000: row})),
        "two towers for one": (INCONCLUSIVE, of({"clip_l": row, "clip_g": row})),
        "a thousand tensors": (INCONCLUSIVE, of({f"<x{i}>": row for i in range(1000)})),
    }


def beside(settings: dict[str, Any] | str, *, change: Callable[[Path, Path], object] | None = None) -> Run:
    """peft's folder with these settings."""

    def run(folder: Path, canary: Path) -> object:
        named = {key.replace("unet.", "base_model.model."): tensor for key, tensor in factors().items()}
        (folder / "adapter_model.safetensors").write_bytes(save(named))
        told = settings if isinstance(settings, str) else json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | settings)
        (folder / "adapter_config.json").write_text(told)
        (folder / "evil.py").write_text(edits.code(canary))
        if change:
            change(folder, canary)
        return adapter(folder)

    return run


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    def change(folder: Path, _: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def _adapter_settings() -> Cases:
    huge = "1" * 400
    return {
        "an alpha of 400 digits": (ERROR, beside({"lora_alpha": int(huge)})),
        "a rank of 400 digits": (ERROR, beside({"r": int(huge)})),
        "a rank of nought": (ERROR, beside({"r": 0})),
        "an alpha that is none": (ERROR, beside('{"peft_type": "LORA", "r": 2, "lora_alpha": NaN}')),
        "another kind": (INCONCLUSIVE, beside({"peft_type": "evil.Evil"})),
        "a pattern that backtracks": (INCONCLUSIVE, beside({"rank_pattern": {"(a+)+$": 2}})),
        "a pattern for its modules": (INCONCLUSIVE, beside({"target_modules": "(a+)+$"})),
        "6,000 patterns": (ERROR, beside({"alpha_pattern": {f"a{i}": 2 for i in range(6_000)}})),
        "3,000 lists in each other": (ERROR, beside(DEEP)),
        "code for its base's class": (PASS, beside({"auto_mapping": {"base_model_class": "evil.Evil", "parent_library": "evil"}})),
        "a base elsewhere": (PASS, beside({"base_model_name_or_path": "/etc", "revision": "../.."})),
        "a link": (REFUSED, beside({}, change=instead("adapter_config.json", lambda path: path.symlink_to("/etc/passwd")))),
        "a pipe": (REFUSED, beside({}, change=instead("adapter_config.json", os.mkfifo))),
    }


def _adapter_folders() -> Cases:
    weights, name = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"
    twice = beside({}, change=lambda folder, _: shutil.copy(folder / weights, folder / name))
    bare = beside(
        {}, change=lambda folder, canary: ((folder / weights).unlink(), (folder / "adapter_model.bin").write_bytes(pickled(canary)))
    )
    return {
        "two files of weights": (USAGE, twice),
        "a pickle alone": (USAGE, bare),
        "a device": (USAGE, beside({}, change=instead(weights, lambda path: path.symlink_to("/dev/zero")))),
        "a pipe": (USAGE, beside({}, change=instead(weights, os.mkfifo))),
        "a link in a circle": (USAGE, beside({}, change=instead(weights, lambda path: path.symlink_to(path.name)))),
        "a link out": (REFUSED, beside({}, change=instead(weights, lambda path: path.symlink_to("/etc/passwd")))),
        "a link to this process's memory": (REFUSED, beside({}, change=instead(weights, lambda path: path.symlink_to("/proc/self/mem")))),
    }


def _patches() -> Cases:
    def of(tensors: Tensors, **record: Any) -> Run:
        def run(folder: Path, _: Path) -> object:
            (folder / "p.safetensors").write_bytes(save(tensors, {"bdaudit": json.dumps({"input_digest": DIGEST} | record)}))
            return patch(folder / "p.safetensors")

        return run

    one = np.ones(4, np.float32)
    return {
        "a part that it may not change": (USAGE, of({"tokenizer.a": one})),
        "a name without a part": (USAGE, of({"a": one})),
        "a part without a name": (USAGE, of({"unet.": one})),
        "half precision": (USAGE, of({"unet.a": one.astype(np.float16)})),
        "NaN": (USAGE, of({"unet.a": one * np.nan})),
        "infinity": (USAGE, of({"unet.a": one * np.inf})),
        "nothing": (USAGE, of({})),
        "a digest that is a list": (USAGE, of({"unet.a": one}, input_digest=[DIGEST])),
    }


def _single_files() -> Cases:
    """As MODEL, with the settings of a directory beside it."""
    import torch

    def of(make: Callable[[Path, Path], object], name: str = "x.safetensors") -> Run:
        def run(folder: Path, canary: Path) -> object:
            model = tiny.write_model(folder / "model")
            one_file.write(model, folder / "x.safetensors")
            make(folder, canary)
            return inspect(folder / name, config=model)

        return run

    def more(name: str, *shape: int) -> Run:
        return of(lambda folder, _: one_file.write(folder / "model", folder / "x.safetensors", **{name: torch.ones(*shape)}))

    def to(make: Callable[[Path], object]) -> Run:
        return of(lambda folder, _: ((folder / "x.safetensors").unlink(), make(folder / "x.safetensors")))

    found = {f"a header: {name}": (ERROR, to(written(content))) for name, content in LYING.items()}
    return {
        **found,
        "a pickle": (REFUSED, of(lambda folder, canary: (folder / "x.ckpt").write_bytes(pickled(canary)), "x.ckpt")),
        "a pickle under another name": (REFUSED, of(lambda folder, canary: (folder / "x.safetensors").write_bytes(pickled(canary)))),
        "GGUF": (INCONCLUSIVE, of(lambda folder, _: (folder / "x.gguf").write_bytes(b"GGUF"), "x.gguf")),
        "a name of 60,000 dots": (ERROR, more("model.diffusion_model." + "a." * 60_000, 1)),
        "a layer of the number 10**9": (PASS, more(f"cond_stage_model.model.transformer.resblocks.{10**9}.ln_1.weight", 1)),
        "a block of the number 9,999": (ERROR, more("model.diffusion_model.input_blocks.9999.0.op.weight", 1)),
        "a resnet of the number 10**9": (ERROR, more(f"first_stage_model.decoder.up.0.block.{10**9}.conv1.weight", 1)),
        "a tensor that is no part's": (ERROR, more("model.diffusion_model.evil", 1)),
        "a pipe": (REFUSED, to(os.mkfifo)),
        "a device": (REFUSED, to(lambda path: path.symlink_to("/dev/zero"))),
        "a link in a circle": (USAGE, to(lambda path: path.symlink_to(path.name))),
        "a hole": (ERROR, to(lambda path: (path.touch(), os.truncate(path, HOLE)))),
        "settings behind a link": (
            REFUSED,
            of(lambda folder, canary: edits.link("unet/config.json", "/etc/passwd")(folder / "model", canary)),
        ),
        "settings with code": (REFUSED, of(lambda folder, canary: edits.add("pipeline.py")(folder / "model", canary))),
    }


KINDS: dict[str, Callable[[], Cases]] = {
    "adapters whose tensors do not fit": _adapters,
    "learned embeddings": _embeddings,
    "adapters' settings": _adapter_settings,
    "adapters' folders": _adapter_folders,
    "a patch's tensors": _patches,
    "checkpoints in one file": _single_files,
}
CASES = cases_of(KINDS)
