"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch

from bdaudit.errors import BdauditError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        BdauditError: a device was named that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BdauditError(f"--device is {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise BdauditError(f"--device is {name!r}, but {torch.cuda.device_count()} CUDA devices are visible; use --device cpu or auto")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is float32 on the CPU (16-bit products can be hundreds of times slower there), bfloat16 on a GPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def chosen(device: str, dtype: str) -> dict[str, str]:
    """What both come to on this machine, for the key of what is kept: figures of two precisions never mix.

    Raises:
        BdauditError: a device was named that is not there.
    """
    where = choose_device(device)
    return {"device": where.type, "dtype": str(choose_dtype(dtype, where))}
