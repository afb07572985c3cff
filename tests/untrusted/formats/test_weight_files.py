"""Which weights a loader opens: variants, shards, and what helps where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted.formats.weight_files import check_memory, lone_pickles, offered, variants_of
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import models
from tests.untrusted import tiny
from tests.untrusted.edits import TEXT, UNET, VAE, put
from tests.untrusted.ordinary import add_variant, shard

MODELS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def shards(path: str) -> tuple[str, ...]:
    return tuple(path.replace(".safetensors", f"-0000{i}-of-00002.safetensors") for i in (1, 2))


def test_full_weights_win_over_fp16(model: Path) -> None:
    add_variant(model, "fp16")
    assert set(inspect(model).variants.values()) == {""}


def test_fp16_alone(model: Path) -> None:
    add_variant(model, "fp16")
    for path in MODELS.values():
        (model / path).unlink()
    found = inspect(model)
    assert set(found.variants.values()) == {"fp16"}
    assert found.weights == {name: (path.replace(".safetensors", ".fp16.safetensors"),) for name, path in MODELS.items()}
    assert any("fp16" in note for note in found.notes)


def test_each_part_has_what_there_is_of_it(model: Path) -> None:
    add_variant(model, "fp16")
    (model / UNET).unlink()
    (model / VAE.replace(".safetensors", ".fp16.safetensors")).unlink()
    found = inspect(model)
    assert found.variants == {"unet": "fp16", "vae": "", "text_encoder": ""}
    assert "weights of a variant were taken: text_encoder full, unet fp16, vae full" in found.notes


def test_a_variant_is_asked_for(model: Path) -> None:
    add_variant(model, "fp16")
    (model / VAE.replace(".safetensors", ".fp16.safetensors")).unlink()
    full, half = inspect(model, variant="full"), inspect(model, variant="fp16")
    assert half.variants == {"unet": "fp16", "text_encoder": "fp16", "vae": ""}
    assert full.variants == inspect(model).variants == dict.fromkeys(MODELS, "")
    assert full.digest != half.digest, "pictures and states of one would be taken for the other's"
    with pytest.raises(UsageError, match="there are fp16, full"):
        inspect(model, variant="bf16")


def test_shards(model: Path) -> None:
    shard(model, "unet")
    shard(model, "text_encoder")
    found = inspect(model)
    assert found.weights == {"unet": shards(UNET), "text_encoder": shards(TEXT), "vae": (VAE,)}
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in found.loaded


def test_where_an_index_and_a_file_are_both_there_it_is_the_loaders_choice(model: Path) -> None:
    shard(model, "unet", keep=True)
    shard(model, "text_encoder", keep=True)
    found = inspect(model)
    assert found.weights["unet"] == shards(UNET)
    assert found.weights["text_encoder"] == (TEXT,)


def test_a_shard_that_the_index_does_not_describe(model: Path) -> None:
    shard(model, "unet")
    first, _ = shards(UNET)
    save_file({"other": np.zeros(1, np.float32)}, model / first)
    with pytest.raises(BdauditError, match="does not hold the tensors"):
        inspect(model)
    (model / first).unlink()
    with pytest.raises(BdauditError, match="is missing"):
        inspect(model)


@pytest.mark.parametrize(
    ("bin_name", "allowed", "advice"),
    [
        ("diffusion_pytorch_model.bin", False, "--allow-pickle reads tensors, and nothing else"),
        ("model.ckpt", False, "hf download ID --local-dir DIR"),
        ("model.ckpt", True, "hf download ID --local-dir DIR"),
    ],
)
def test_pickles_alone_come_with_what_helps(model: Path, bin_name: str, allowed: bool, advice: str) -> None:
    (model / UNET).rename(model / "unet" / bin_name)
    with pytest.raises(RefusedError) as caught:
        inspect(model, allow_pickle=allowed)
    assert advice in str(caught.value)
    (model / "unet" / bin_name).unlink()
    with pytest.raises(BdauditError, match=r"unet: no weights, expected .*; fetch them: `hf download ID --local-dir DIR`"):
        inspect(model)


def test_weights_of_another_format_alone_are_named(model: Path) -> None:
    (model / UNET).unlink()
    put(model / "unet/flax_model.msgpack", b"")
    with pytest.raises(InconclusiveError, match=r"unet/flax_model\.msgpack is of another framework"):
        inspect(model)
    (model / "unet/flax_model.msgpack").rename(model / "unet/a-Q4_0.GGUF")
    with pytest.raises(InconclusiveError, match=r"unet/a-Q4_0\.GGUF is GGUF"):
        inspect(model)


def test_weights_take_no_more_than_the_machine_has() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    check_memory(memory)
    with pytest.raises(BdauditError, match=r"the weights take .* GB, this machine has"):
        check_memory(memory + 1)


def test_variants_are_ordered_as_they_are_taken() -> None:
    files = [f"unet/diffusion_pytorch_model{middle}.safetensors" for middle in (".non_ema", ".bf16", ".fp16", "", "-00001-of-00002")]
    assert variants_of("unet", models()["unet"], files) == ("", "fp16", "bf16", "non_ema")
    assert offered(["unet/other.safetensors"]) == ()
    assert offered(files) == ("full", "fp16", "bf16", "non_ema")


def test_a_pickle_counts_as_alone_where_no_safetensors_of_its_variant_lie() -> None:
    folder, half = "checkpoint-500/unet/", "unet/diffusion_pytorch_model.fp16.bin"
    files = dict.fromkeys((f"{folder}config.json", f"{folder}diffusion_pytorch_model.bin", half, UNET), 1)
    assert lone_pickles(files, models()) == [half, f"{folder}diffusion_pytorch_model.bin"]
    assert lone_pickles({**files, f"{folder}diffusion_pytorch_model.safetensors": 1}, models()) == [half]
