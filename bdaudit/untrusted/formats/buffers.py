"""Tables, and one factor, that a checkpoint in one file carries beside its weights, held against what they are to be.

The original code, and interfaces built on it, draw by the noise levels and mask by the attention mask that lie in the file; diffusers
computes both and never looks. Of two models that one file makes, one alone would be audited.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted.formats.single_file import OneFile
from bdaudit.untrusted.safetensors_header import TensorInfo, bytes_of
from bdaudit.untrusted.tree import Reader, shown

if TYPE_CHECKING:
    import numpy as np

    Table = np.ndarray[Any, Any]

_FACTOR, _SCALED_BY = "scale_factor", 0.18215
"""What latents are multiplied by; where a training measured it, it lies in the file. The second is diffusers' own."""
_SIGMAS = "denoiser.sigmas"
_MASK = re.compile(r"(cond_stage_model|conditioner\.embedders\.1)\.model\.attn_mask")
_LARGEST = 1 << 20
"""Numbers of a table that is read."""
_NEAR, _LEAST = 1e-2, 1e-4
"""How far a number may lie from its own, as a share of it and of the table's largest: tables are stored in 16 bits at times."""
_MASKED = -1e4
"""What masks: −∞, or the least number of a precision."""


def check(file: OneFile, settings: Reader) -> None:
    """Raises ``InconclusiveError`` where a table of the model's own file is not the model's; its ``settings`` are checked before."""
    import numpy as np

    named = [name for name in file.header.tensors if name in _LEVELS]
    tables = _tables(settings.json("scheduler/scheduler_config.json")) if named else []
    for name in named:
        numbers = _numbers(file, file.header.tensors[name])
        down = slice(None, None, -1 if name == _SIGMAS else 1)  # sgm counts σ down or up
        if not any(_same(numbers, own[name]) or _same(numbers, own[name][down]) for own in tables):
            _differs(file, name, "the noise levels of its settings", "drawn by")
    if _FACTOR in file.header.tensors:
        own = float(settings.json("vae/config.json").get("scaling_factor", _SCALED_BY))
        if not _same(_numbers(file, file.header.tensors[_FACTOR]), np.asarray([own])):
            _differs(file, _FACTOR, f"the {own:g} of its autoencoder", "drawn by")
    for name in filter(_MASK.fullmatch, file.header.tensors):
        if not _is_causal(_numbers(file, file.header.tensors[name]), file.header.tensors[name].shape):
            _differs(file, name, "the mask that lets a token see those before it", "masked by")


def _differs(file: OneFile, name: str, expected: str, used: str) -> None:
    said = f"{shown(file.key)}: {shown(name)} is not {expected}, and whether it is {used} depends on the loader"
    raise InconclusiveError(f"{said}, so there is no one model to audit; remove that tensor")


def _numbers(file: OneFile, info: TensorInfo) -> Table:
    """Flat, in float64; empty where the kind of number is none that such a table is stored in."""
    import numpy as np

    from bdaudit.untrusted.fingerprint import cast

    if info.dtype not in ("F64", "F32", "F16", "BF16") or info.count > _LARGEST:
        return np.zeros(0)
    data = bytes_of(file.reader, file.path, file.header, info)
    if info.dtype == "F64":
        return np.frombuffer(data, "<f8")
    return np.frombuffer(data if info.dtype == "F32" else cast(data, info.dtype, "F32"), "<f4").astype(np.float64)


def _same(numbers: Table, own: Table) -> bool:
    import numpy as np

    largest = float(np.abs(own[np.isfinite(own)]).max(initial=0.0))
    return numbers.shape == own.shape and bool(np.allclose(numbers, own, _NEAR, _LEAST * largest))


def _is_causal(numbers: Table, shape: tuple[int, ...]) -> bool:
    import numpy as np

    if len(shape) != 2 or shape[0] != shape[1] or not numbers.size:
        return False
    above = np.triu(np.ones(shape, dtype=bool), 1)
    square = numbers.reshape(shape)
    return bool((square[above] <= _MASKED).all() and (square[~above] == 0).all())


def _tables(scheduler: dict[str, Any]) -> list[dict[str, Table]]:
    """What each table of levels holds: plain, and where it is rescaled to end in pure noise (arXiv 2305.08891), so too."""
    import numpy as np

    levels = [np.cumprod(1 - _betas(scheduler))]
    if scheduler.get("rescale_betas_zero_snr"):
        roots = np.sqrt(levels[0])
        levels.append(((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2)
    with np.errstate(divide="ignore"):
        return [{name: made(each, np.concatenate([[1], each[:-1]])) for name, made in _LEVELS.items()} for each in levels]


def _betas(scheduler: dict[str, Any]) -> Table:
    """As the schedulers of diffusers 0.42 make them of their settings, and in the absence of one."""
    import numpy as np

    if scheduler.get("trained_betas"):
        return np.asarray(scheduler["trained_betas"], dtype=np.float64)
    first, last = float(scheduler.get("beta_start", 0.0001)), float(scheduler.get("beta_end", 0.02))
    steps, kind = int(scheduler.get("num_train_timesteps", 1000)), scheduler.get("beta_schedule", "linear")
    if kind == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, steps) ** 2
    if kind == "linear":
        return np.linspace(first, last, steps)
    said = f"the file carries noise levels, which cannot be held against beta_schedule {shown(str(kind), 40)}"
    raise InconclusiveError(f"{said}; remove the tensors betas, alphas_cumprod and their kin")


_LEVELS: dict[str, Callable[[Any, Any], Any]] = {
    "betas": lambda level, before: 1 - level / before,
    "alphas_cumprod": lambda level, _: level,
    "alphas_cumprod_prev": lambda _, before: before,
    "sqrt_alphas_cumprod": lambda level, _: level**0.5,
    "sqrt_one_minus_alphas_cumprod": lambda level, _: (1 - level) ** 0.5,
    "log_one_minus_alphas_cumprod": lambda level, _: _log(1 - level),
    "sqrt_recip_alphas_cumprod": lambda level, _: level**-0.5,
    "sqrt_recipm1_alphas_cumprod": lambda level, _: (1 / level - 1) ** 0.5,
    "posterior_variance": lambda level, before: _posterior(level, before),
    "posterior_log_variance_clipped": lambda level, before: _log(_posterior(level, before).clip(1e-20)),
    "posterior_mean_coef1": lambda level, before: (1 - level / before) * before**0.5 / (1 - level),
    "posterior_mean_coef2": lambda level, before: (1 - before) * (level / before) ** 0.5 / (1 - level),
    _SIGMAS: lambda level, _: (1 / level - 1) ** 0.5,
}
"""Name in the original code → what it is of the levels ᾱ and those of one step before, (steps,) each."""


def _posterior(level: Table, before: Table) -> Table:
    """Variance of one step back (arXiv 2006.11239, equation 7)."""
    variance: Table = (1 - level / before) * (1 - before) / (1 - level)
    return variance


def _log(numbers: Table) -> Table:
    import numpy as np

    return np.log(numbers)
