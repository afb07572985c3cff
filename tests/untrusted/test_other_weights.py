"""Weights beside the audited ones: the same again, or named as not audited; from both sides, and without trusting a name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted.inspect import inspect
from tests.untrusted.edits import TEXT, UNET, put
from tests.untrusted.ordinary import add_variant, halved, named, only_variant, shard, store, two_roots
from tests.untrusted.tiny import write_json, write_model

NAME = "conv_in.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def poisoned(model: Path, to: torch.dtype | None = torch.float16) -> dict[str, Tensor]:
    """The UNet's tensors with one number moved by the least that its precision can tell."""
    tensors = load_file(model / UNET) if to is None else halved(model / UNET, to)
    flat = tensors[NAME].reshape(-1)
    flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf, dtype=flat.dtype)) if to is None else flat[-1] * 1.01
    return tensors


def spaced(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file whose header begins with a line feed and spaces, as the format forbids and its readers allow."""
    store(path, tensors)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes((length + 8).to_bytes(8, "little") + b"\n       " + data[8:])
    assert load_file(path).keys() == tensors.keys()


RIVALS: dict[str, Callable[[Path], object]] = {
    "fp16": lambda m: store(m / named(UNET, "fp16"), poisoned(m)),
    "bf16": lambda m: store(m / named(UNET, "bf16"), poisoned(m, torch.bfloat16)),
    "an unheard-of variant": lambda m: store(m / named(UNET, "my.own_v2-x"), poisoned(m)),
    "non_ema": lambda m: store(m / named(UNET, "non_ema"), poisoned(m, None)),
    "ema in a folder beside": lambda m: store(m / "unet_ema/diffusion_pytorch_model.safetensors", poisoned(m, None)),
    "ema in a folder below": lambda m: store(m / "unet/ema/diffusion_pytorch_model.safetensors", poisoned(m, None)),
    "a trainer's checkpoint": lambda m: store(m / "checkpoint-500/unet/diffusion_pytorch_model.safetensors", poisoned(m, None)),
    "another name": lambda m: store(m / "unet/better.safetensors", poisoned(m)),
    "a suffix of other tools": lambda m: store(m / "unet/better.sft", poisoned(m)),
    "at the top": lambda m: store(m / "diffusion_pytorch_model.safetensors", poisoned(m)),
    "a checkpoint in one file": lambda m: store(
        m / "v1-5-pruned.safetensors", {f"model.diffusion_model.input_blocks.{i}.0.weight": torch.zeros(2) for i in range(12)}
    ),
    "an fp16 text encoder": lambda m: store(m / named(TEXT, "fp16"), {k: t * 2 for k, t in halved(m / TEXT).items()}),
    "8 bits": lambda m: store(m / named(UNET, "fp8"), halved(m / UNET, torch.float8_e4m3fn)),
    "of two precisions": lambda m: store(m / named(UNET, "fp16"), {**halved(m / UNET), NAME: load_file(m / UNET)[NAME].bfloat16()}),
    "a tensor more": lambda m: store(m / named(UNET, "fp16"), {**halved(m / UNET), "more": torch.zeros(1)}),
    "a tensor less": lambda m: store(m / named(UNET, "fp16"), {k: t for k, t in halved(m / UNET).items() if k != NAME}),
    "names as of an adapter, but for one": lambda m: store(
        m / "unet/pytorch_lora_weights.safetensors",
        {**{f"a.lora.{i}": torch.zeros(1) for i in range(20)}, "conv_in.weight": torch.zeros(1)},
    ),
    "no header that is read": lambda m: put(m / named(UNET, "fp16"), (17 << 20).to_bytes(8, "little") + b"{" + b" " * (17 << 20)),
    "a pickle of a variant that has no safetensors": lambda m: put(m / "unet/diffusion_pytorch_model.fp16.bin", b"\x80\x04."),
    "an index of such pickles": lambda m: put(m / "text_encoder/pytorch_model.bin.index.fp16.json", b"{}"),
    "a pickle of the full weights beside fp16 alone": lambda m: [
        only_variant(m, parts=("unet",)),
        put(m / "unet/diffusion_pytorch_model.bin", b"\x80\x04."),
    ],
    "a pickle in a folder beside": lambda m: [
        write_json(m / "unet_ema/config.json", {}),
        put(m / "unet_ema/diffusion_pytorch_model.fp16.bin", b"\x80\x04."),
    ],
    "an index of pickles in a trainer's checkpoint": lambda m: [
        shutil.copytree(m / "text_encoder", m / "checkpoint-500/text_encoder", ignore=shutil.ignore_patterns("*.safetensors")),
        put(m / "checkpoint-500/text_encoder/pytorch_model.bin.index.json", b"{}"),
    ],
    "white space before the header": lambda m: spaced(m / named(UNET, "fp16"), poisoned(m)),
    "a whole pipeline in one file": lambda m: put(m / "other.dduf", b"PK\x03\x04"),
    "a link to a hidden folder": lambda m: [
        store(m / ".x/unet/diffusion_pytorch_model.safetensors", poisoned(m)),
        os.symlink(".x", m / "second"),
    ],
    "a link to a checkpoint outside": lambda m: os.symlink(m.parent, m / "checkpoint-500"),
    "a link out": lambda m: os.symlink(m.parent, m / "unet_ema"),
    "a link to a file outside": lambda m: [
        store(m.parent / "x.safetensors", poisoned(m)),
        os.symlink("../x.safetensors", m / "x.safetensors"),
    ],
}


@pytest.mark.parametrize("name", RIVALS)
def test_what_a_loader_could_take_is_named(name: str, model: Path) -> None:
    RIVALS[name](model)
    found = inspect(model)
    assert len(found.unaudited) == 1, found.notes
    assert found.unaudited[0].reason


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_its_variant_can_be_chosen(name: str, model: Path) -> None:
    RIVALS[name](model)
    assert [left.variant for left in inspect(model).unaudited] == [name]
    chosen = inspect(model, variant=name)
    assert chosen.weights["unet"] == (named(UNET, name),)
    assert [left.variant for left in chosen.unaudited] == ["full"]


def test_shards_are_compared_as_one_and_choosable(model: Path) -> None:
    store(model / named(UNET, "fp16"), poisoned(model))
    shard(model, "unet", "fp16")
    (left,) = inspect(model).unaudited
    assert (left.path, left.variant) == ("unet/diffusion_pytorch_model.safetensors.index.fp16.json", "fp16")
    assert len(inspect(model, variant="fp16").weights["unet"]) == 2


def test_an_index_whose_files_are_not_there_loads_nothing(model: Path) -> None:
    store(model / named(UNET, "fp16"), poisoned(model))
    shard(model, "unet", "fp16")
    for path in (model / "unet").glob("*-of-*"):
        path.unlink()
    assert inspect(model).unaudited == ()


def test_an_index_of_an_old_name_is_named(model: Path) -> None:
    store(model / named(UNET, "fp16"), poisoned(model))
    shard(model, "unet", "fp16")
    (model / "unet/diffusion_pytorch_model.safetensors.index.fp16.json").rename(
        model / "unet/diffusion_pytorch_model.fp16.safetensors.index.json"
    )
    assert len(inspect(model).unaudited) == 1


def test_weights_that_only_become_the_audited_ones_are_not_determined_by_them(model: Path) -> None:
    only_variant(model, "fp16")
    full = {name: tensor.float() for name, tensor in load_file(model / named(UNET, "fp16")).items()}
    store(model / named(UNET, "other"), full)
    assert inspect(model).unaudited == (), "the same numbers, written longer"
    full[NAME] = torch.nextafter(full[NAME], torch.zeros(1))  # the digits that the cast drops
    assert torch.equal(full[NAME].half(), load_file(model / named(UNET, "fp16"))[NAME])
    store(model / named(UNET, "other"), full)
    assert [left.variant for left in inspect(model).unaudited] == ["other"]


def test_rounding_is_to_nearest_ties_to_even_with_zeros_and_subnormals_as_torch_does(model: Path) -> None:
    subnormal, ties = torch.arange(0x33000000, 0x33000000 + 5000), torch.arange(4096) * 4096 + 0x38000000
    bits = torch.cat([torch.randint(0, 0x47000000, (5000,)), subnormal, ties])
    numbers = torch.cat([bits, bits | (1 << 31)]).to(torch.int64).to(torch.uint32).view(torch.float32)
    numbers = torch.cat([numbers, torch.tensor([0.0, -0.0, 65504.0, 1e-45])])
    tensors = load_file(model / TEXT)
    tensors["text_model.encoder.layers.0.odd"] = numbers
    store(model / TEXT, tensors)
    add_variant(model, "fp16", parts=("text_encoder",))
    add_variant(model, "bf16", torch.bfloat16, parts=("text_encoder",))
    assert inspect(model).unaudited == ()
    truncated = {name: (tensor.view(torch.int32) & -65536).view(torch.float32).bfloat16() for name, tensor in tensors.items()}
    store(model / named(TEXT, "bf16"), truncated)
    assert len(inspect(model).unaudited) == 1


def test_a_sign_of_zero_is_seen(model: Path) -> None:
    tensors = load_file(model / UNET)
    tensors[NAME][:] = 0.0
    store(model / UNET, tensors)
    tensors[NAME] = -tensors[NAME]
    store(model / named(UNET, "fp16"), {name: tensor.half() for name, tensor in tensors.items()})
    assert len(inspect(model).unaudited) == 1


@pytest.mark.parametrize(
    "path", ["fp16/tokenizer/vocab.json", "fp16/scheduler/scheduler_config.json", "fp16/unet/config.json", "fp16/model_index.json"]
)
def test_a_copy_with_other_settings_is_no_copy(path: str, model: Path) -> None:
    two_roots(model)
    assert inspect(model).unaudited == ()
    write_json(model / path, {"other": 1})
    assert inspect(model).unaudited


def test_a_copy_that_lacks_a_setting_is_no_copy(model: Path) -> None:
    """An added token that is not there leaves its name to the vocabulary."""
    write_json(model / "tokenizer/added_tokens.json", {"ab": 6})
    two_roots(model)
    assert inspect(model).unaudited == ()
    (model / "fp16/tokenizer/added_tokens.json").unlink()
    assert "has no tokenizer/added_tokens.json" in inspect(model).unaudited[0].reason


def test_a_pickle_elsewhere_with_safetensors_or_without_a_config_is_a_note(model: Path) -> None:
    shutil.copytree(model / "unet", model / "unet_ema")
    put(model / "unet_ema/diffusion_pytorch_model.bin", b"\x80\x04.")
    put(model / "checkpoint-500/pytorch_model.bin", b"\x80\x04.")
    shutil.copytree(model / "text_encoder", model / "safety_checker", ignore=shutil.ignore_patterns("*.safetensors"))
    put(model / "safety_checker/pytorch_model.bin", b"\x80\x04.")
    assert inspect(model).unaudited == ()
    (model / "unet_ema/diffusion_pytorch_model.safetensors").unlink()
    assert len(inspect(model).unaudited) == 1


def test_a_pickle_with_safetensors_of_its_variant_is_a_note(model: Path) -> None:
    add_variant(model, "fp16")
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model-00001-of-00002.bin"):
        put(model / "unet" / name, b"\x80\x04.")
    found = inspect(model)
    assert found.unaudited == ()
    assert len(found.unused_pickles) == 3


def test_a_pickle_of_a_variant_is_loaded_where_it_is_asked_for_and_allowed(model: Path) -> None:
    torch.save(load_file(model / UNET), model / "unet/diffusion_pytorch_model.fp16.bin")
    assert inspect(model, allow_pickle=True).pickled == frozenset()
    assert inspect(model, variant="fp16", allow_pickle=True).pickled == {"unet"}


def test_a_pickle_that_is_loaded_is_compared_with_nothing(model: Path) -> None:
    torch.save(load_file(model / UNET), model / "unet/diffusion_pytorch_model.bin")
    shutil.move(model / UNET, model / "unet/model.safetensors")
    found = inspect(model, allow_pickle=True)
    assert found.tensors is None
    assert [left.path for left in found.unaudited] == ["unet/model.safetensors"]


def test_more_sets_than_are_read_are_not_passed_over(model: Path) -> None:
    for i in range(66):
        save_file({"a.lora.b": torch.zeros(1)}, model / f"x{i}.safetensors")
    assert len(inspect(model).unaudited) == 2


def test_links_outside_the_parts_are_noted_and_not_followed(model: Path) -> None:
    put(model.parent / "outside/secret.txt", b"x")
    for path, to in (("latest", "unet"), ("logs", "../outside"), ("gone", "nowhere")):
        os.symlink(to, model / path)
    found = inspect(model)
    assert found.unaudited == ()
    (note,) = (note for note in found.notes if note.startswith("links that are not followed: "))
    assert {"gone", "latest", "logs"} == set(note.partition(": ")[2].split(", "))
    assert not any("secret" in file.path for file in found.files)


PLACES = "text_model.embeddings.position_ids"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float16, torch.bfloat16])
def test_places_that_count_up_change_nothing(model: Path, dtype: torch.dtype) -> None:
    before = inspect(model).tensors
    store(model / TEXT, load_file(model / TEXT) | {PLACES: torch.arange(8)[None].to(dtype)})
    assert inspect(model).tensors == before


@pytest.mark.parametrize("places", [torch.arange(8).flip(0), torch.zeros(8, dtype=torch.int64), torch.arange(8) + 0.25], ids=str)
def test_places_in_another_order_are_two_models(model: Path, places: Tensor) -> None:
    store(model / TEXT, load_file(model / TEXT) | {PLACES: places[None]})
    with pytest.raises(InconclusiveError, match=r"text_encoder: text_model\.embeddings\.position_ids does not count up from 0"):
        inspect(model)
