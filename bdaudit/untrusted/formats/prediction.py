"""What a single file's denoiser predicts: as its marks say, which the scheduler's settings are held against, and as loaders decide."""

from __future__ import annotations

from typing import Any

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted.formats.pieces import Piece
from bdaudit.untrusted.formats.reference_settings import REFERENCES, Reference
from bdaudit.untrusted.formats.single_file import Held, OneFile
from bdaudit.untrusted.safetensors_header import bytes_of
from bdaudit.untrusted.tree import Reader, shown

_MARK, _ZERO_SNR = "v_pred", "ztsnr"
_V = "v_prediction"
_DEFAULTS = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
"""Of diffusers' schedulers."""
_SAID = {"epsilon": "epsilon", "v": _V}
"""Values of ``modelspec.prediction_type``."""
_TELLING = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
_SPREAD = 0.09
"""Standard deviation of that tensor from which ComfyUI takes a Stable Diffusion 2 for one that predicts v (``SD20.model_type``)."""


def settings(file: OneFile, held: Held, reference: Reference) -> dict[str, Any]:
    """What is known of the scheduler beside what ``reference`` has.

    Raises:
        InconclusiveError: the file says it in a way that loaders read differently.
    """
    told, marked = _told(file), _marks(file)
    if marked and not reference.marked:
        what = f"{shown(file.key)} has the mark {marked[0]}, which loaders of {reference.called} do not all read"
        raise InconclusiveError(f"{what}; say --config DIR, a directory whose scheduler says what it predicts")
    return told or {"prediction_type": _V if reference.spread and _spread(file, held) > _SPREAD else "epsilon"}


def check(file: OneFile, held: Held, settings: Reader) -> None:
    """Raises ``InconclusiveError`` where a file says something else than its settings do, of a family whose loaders heed what it says."""
    if held.layout.name not in REFERENCES:
        return
    scheduler = settings.json("scheduler/scheduler_config.json")
    for name, value in _told(file).items():
        own = scheduler.get(name, _DEFAULTS[name])
        if own != value:
            said = f"{shown(file.key)} says that its {name} is {value}, and the scheduler of --config that it is {shown(own, 40)}"
            raise InconclusiveError(f"{said}; which of them counts depends on the loader; name a directory that agrees with the file")


def _told(file: OneFile) -> dict[str, Any]:
    """What a file says of its scheduler; nothing where it says nothing. Raises as ``settings``."""
    said, marked = file.header.metadata.get("modelspec.prediction_type"), _marks(file)
    if said is not None and said not in _SAID:
        raise InconclusiveError(f"{shown(file.key)} says that it predicts {shown(said, 40)}; only epsilon and v are supported")
    if marked and said is not None and _SAID[said] != _V:
        raise InconclusiveError(f"{shown(file.key)} has the mark {marked[0]}, and says in its header that it predicts {said}; remove one")
    if marked:
        return {"prediction_type": _V, "rescale_betas_zero_snr": _ZERO_SNR in marked}
    return {} if said is None else {"prediction_type": _SAID[said]}


def _marks(file: OneFile) -> list[str]:
    return [name for name in file.header.tensors if name in (_MARK, _ZERO_SNR)]


def _spread(file: OneFile, held: Held) -> float:
    """Standard deviation of the tensor that tells; 0 where it is not there."""
    import numpy as np

    from bdaudit.untrusted.fingerprint import cast

    piece: Piece | None = held.parts.get(held.layout.heeding[0], {}).get(_TELLING)
    if piece is None or piece.file != file.key:
        return 0.0
    data = bytes_of(file.reader, file.path, file.header, piece.info)
    wide = data if piece.info.dtype == "F32" else cast(data, piece.info.dtype, "F32")
    return float(np.frombuffer(wide, "<f4").std())
