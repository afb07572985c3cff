"""Which device and precision a run takes, and the error for one that is not there."""

from __future__ import annotations

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.models.device import choose_device, choose_dtype, chosen


def test_auto_is_float32_on_the_cpu_and_bfloat16_on_a_gpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16


def test_what_auto_comes_to_is_told_apart() -> None:
    assert chosen("cpu", "auto") == chosen("cpu", "float32") == {"device": "cpu", "dtype": "torch.float32"}
    assert chosen("cpu", "bfloat16") != chosen("cpu", "float32")


@pytest.mark.parametrize("name", ["cuda:99", "no such thing"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BdauditError, match="--device"):
        choose_device(name)
