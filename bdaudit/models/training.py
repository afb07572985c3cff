"""What any training of a suspect needs on a GPU: less memory on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from bdaudit.models.patch import Patch
from bdaudit.models.suspect import Suspect

ResultT = TypeVar("ResultT")


def halving(suspect: Suspect, patch: Patch, largest: int, backward: Callable[[], ResultT]) -> ResultT:
    """``backward()``, begun again with half the ``suspect.batch_size`` whenever a GPU's memory runs out; ``largest`` rows are its most."""
    while True:
        try:
            return backward()
        except torch.cuda.OutOfMemoryError:
            if suspect.batch_size == 1:
                raise
        patch.clear_gradients()
        torch.cuda.empty_cache()
        suspect.batch_size = max(1, min(suspect.batch_size, largest) // 2)


@contextmanager
def checkpointed(unet: Any, on: bool) -> Iterator[None]:
    """Gradient checkpointing for the block's length: activations are computed again on the way back instead of kept."""
    if on:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if on:
            unet.disable_gradient_checkpointing()
