"""What becomes of the files and tensors that no loader takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.leftovers import Leftover, Outcome, holds_weights, row_of
from bdaudit.untrusted.safetensors_header import TensorInfo
from tests.untrusted import tiny
from tests.untrusted.edits import TEXT, UNET


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["scaled_fp8", "conv_in.scale_weight", "conv_in.weight_scale", "conv_in.input_scale", "conv_in.weight.absmax"]
)
def test_scaled_weights_are_refused_by_name(name: str, model: Path) -> None:
    save_file(tiny.weights(tiny.unet_shapes()) | {name: np.ones(1, np.float32)}, model / UNET)
    with pytest.raises(InconclusiveError, match=f"{name} says that these are (scaled|quantised)"):
        inspect(model)


def test_matrices_of_whole_numbers_are_quantised(model: Path) -> None:
    held = tiny.weights(tiny.unet_shapes())
    name = next(name for name, tensor in held.items() if tensor.ndim == 2)
    save_file(held | {name: held[name].astype(np.int8)}, model / UNET)
    with pytest.raises(InconclusiveError, match=rf"{name} is I8, so that these are quantised weights.*get the weights in float16"):
        inspect(model)


def test_one_tensor_under_two_names_is_an_error(model: Path) -> None:
    held = tiny.weights(tiny.text_shapes())
    save_file(held | {"final_layer_norm.bias": held["text_model.final_layer_norm.bias"] + 1}, model / TEXT)
    with pytest.raises(BdauditError, match="are one tensor of the model"):
        inspect(model)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
@pytest.mark.parametrize("path", [UNET, TEXT])
def test_what_was_saved_from_inside_a_wrapper_is_named(path: str, prefix: str, model: Path) -> None:
    save_file({prefix + name: tensor for name, tensor in load_file(model / path).items()}, model / path)
    part = path.split("/")[0]
    with pytest.raises(
        BdauditError, match=rf"^{part}: its tensors are called {prefix}….*`{part}\.{prefix}save_pretrained\(DIR\)`$"
    ) as caught:
        inspect(model)
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("handler.py", "code that neither diffusers nor transformers runs"),
        ("scripts/a.so.1", "code that neither diffusers nor transformers runs"),
        ("optimizer.pt", "pickles that nothing opens"),
        ("unet/a.gguf", "files left alone, in no digest"),
        ("notes.txt", "files left alone, in no digest"),
    ],
)
def test_what_nothing_opens_is_a_note(path: str, words: str) -> None:
    row = row_of(Leftover(path, loadable=False))
    assert (row.words, row.outcome) == (words, Outcome.NOTE)


def test_which_files_may_be_weights_of_a_part() -> None:
    assert all(map(holds_weights, ("unet/a.safetensors", "a.SFT", "unet/x.safetensors.index.json", "safety_checker/other.safetensors")))
    assert not any(map(holds_weights, ("safety_checker/model.safetensors", "unet/config.json", "unet/index.json", "a.bin")))


@pytest.mark.parametrize(("n", "outcome"), [(8, Outcome.NOTE), (9, Outcome.UNAUDITED)])
def test_few_tensors_are_an_embedding_and_more_may_be_a_part(n: int, outcome: Outcome) -> None:
    tensors = {f"a.{i}": TensorInfo("F32", (1,), 4 * i) for i in range(n)}
    assert row_of(Leftover("learned.safetensors", tensors)).outcome == outcome
