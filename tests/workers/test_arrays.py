"""Arrays cross to the bit, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bdaudit.workers.arrays import Array
from bdaudit.workers.wire import packed, unpacked


@settings(deadline=None)  # a machine may be busy
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=12))
def test_numbers_cross_to_the_bit(numbers: list[float]) -> None:
    made = torch.tensor(numbers, dtype=torch.float32)
    back = unpacked(packed(Array.of(made)), Array, "x").tensor((None,))
    assert back.numpy().tobytes() == made.numpy().tobytes()


def test_sides_keep_their_order_and_halves_come_as_float32() -> None:
    made = torch.arange(24).view(2, 3, 4).permute(2, 0, 1).to(torch.bfloat16)
    back = Array.of(made).tensor((4, None, 3))
    assert back.dtype == torch.float32
    assert torch.equal(back, made.float())


GOOD = Array.of(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (replace(GOOD, shape=(3, 2)), r"of the shape \[3, 2\]"),
        (replace(GOOD, shape=(2,)), r"of the shape \[2\]"),
        (replace(GOOD, data=GOOD.data[:-4]), "in 21 bytes"),
        (replace(GOOD, data=GOOD.data + "AAAA"), "in 27 bytes"),
        (replace(GOOD, data="é" + GOOD.data[1:]), "no base64"),
        (replace(GOOD, data=GOOD.data[:-1] + "!"), "no base64"),
        (Array.of(torch.full((2, 3), float("nan"))), "NaN"),
    ],
)
def test_what_is_no_such_array_is_told(array: Array, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        array.tensor((2, 3))


def test_no_side_is_negative() -> None:
    with pytest.raises(ValueError, match=r"\[-1, -6\]"):
        Array(shape=(-1, -6), data=GOOD.data).tensor((None, None))
