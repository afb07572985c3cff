"""What weights tell of a config, and where the two are at odds."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.safetensors_header import TensorInfo
from bdaudit.untrusted.shapes import Tensors, check_described, counts, embeddings, numbers, size


def tensors(**shapes: tuple[int, ...]) -> Tensors:
    return {name.replace("__", "."): TensorInfo("F32", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("said", "told", "agree"),
    [
        (8, 8, True),
        (8, 9, False),
        ([8, 8], [8, 8], True),
        ([8, 8], [8, 9], False),
        (2, [2, 2, 2], True),
        (2, [2, 1], False),
        ([4, 4], 4, True),
        ([4, 5], 4, False),
        ([], 4, False),
        ("8", 8, False),
        (True, [1], False),
    ],
)
def test_a_config_says_what_its_weights_tell(said: Any, told: Any, agree: bool) -> None:
    check_described({}, {"key": told}, "unet/config.json")
    if agree:
        check_described({"key": said, "other": 1}, {"key": told}, "unet/config.json")
        return
    with pytest.raises(BdauditError, match=r"^unet/config\.json: key is .*, its weights have"):
        check_described({"key": said}, {"key": told}, "unet/config.json")


def test_numbers_of_nested_lists() -> None:
    assert numbers([1, [2, [3]], "4", True, 5.0, None]) == [1, 2, 3]
    assert (numbers(7), numbers(None)) == ([7], [])


def test_the_ids_that_are_embedded() -> None:
    assert embeddings(tensors(text_model__embeddings__token_embedding__weight=(49_408, 768))) == 49_408
    assert embeddings(tensors(token_embedding__weight=())) == embeddings(tensors(conv_in__weight=(8, 4))) == 0


def test_a_size_that_is_not_there() -> None:
    held = tensors(conv_in__weight=(8, 4))
    assert (size(held, "conv_in.weight", 0), size(held, "conv_in.weight", 1)) == (8, 4)
    for name, axis in (("conv_in.weight", 2), ("conv_out.weight", 0)):
        with pytest.raises(BdauditError, match=f"the weights lack {name}, or its shape is"):
            size(held, name, axis)


def test_counts_are_of_different_names() -> None:
    held = tensors(a__0__w=(), a__0__b=(), a__1__w=(), b__0__w=(), c__w=())
    assert counts(held, r"(\w)\.(\d+)\.") == {"a": 2, "b": 1}
