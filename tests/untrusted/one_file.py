"""A diffusers directory written out as one file in CompVis' layout, or as files of one part, with the names' maps the other way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, cat

from bdaudit.untrusted import layouts
from bdaudit.untrusted.formats.names import flux, ldm_unet, ldm_vae, mmdit, open_clip
from bdaudit.untrusted.formats.names.renaming import Source

ToFile = Callable[[Mapping[str, Tensor]], dict[str, Source]]


def by_rows(map_of: Callable[[Mapping[str, int]], dict[str, Source]]) -> ToFile:
    """A map that asks how many rows the tensors have."""
    return lambda tensors: map_of({name: len(tensor) for name, tensor in tensors.items()})


def as_it_is(names: Iterable[str]) -> dict[str, Source]:
    return {name: Source(name) for name in names}


SD1: dict[str, tuple[str, ToFile]] = {
    "unet": ("model.diffusion_model.", ldm_unet.sources_in_part),
    "vae": ("first_stage_model.", ldm_vae.sources_in_part),
    "text_encoder": ("cond_stage_model.transformer.", as_it_is),
}
SD2 = SD1 | {"text_encoder": ("cond_stage_model.model.", open_clip.sources_in_part)}
"""Part → beginning of its names, and what the rest are called."""
SDXL = {
    "unet": SD1["unet"],
    "vae": SD1["vae"],
    "text_encoder": ("conditioner.embedders.0.transformer.", as_it_is),
    "text_encoder_2": ("conditioner.embedders.1.model.", open_clip.sources_in_part),
}

FLUX = {"transformer": ("", by_rows(flux.sources_in_part))}
"""The diffusion model alone, as Black Forest Labs publish it."""
FLUX_WHOLE = {
    "transformer": ("model.diffusion_model.", by_rows(flux.sources_in_part)),
    "vae": ("vae.", ldm_vae.sources_in_part),
    "text_encoder": ("text_encoders.clip_l.transformer.", as_it_is),
    "text_encoder_2": ("text_encoders.t5xxl.transformer.", as_it_is),
}
"""All parts, as ComfyUI saves them."""
SD3 = {"transformer": ("model.diffusion_model.", by_rows(mmdit.sources_in_part)), "vae": ("first_stage_model.", ldm_vae.sources_in_part)}
"""As Stability publish it, without readers."""
SD3_WHOLE = SD3 | {
    "text_encoder": ("text_encoders.clip_l.transformer.", as_it_is),
    "text_encoder_2": ("text_encoders.clip_g.transformer.", as_it_is),
    "text_encoder_3": ("text_encoders.t5xxl.transformer.", as_it_is),
}
BARE = {"transformer": ("", as_it_is)}
"""diffusers' own file of the transformer."""


def part_tensors(model: Path, part: str) -> dict[str, Tensor]:
    """A part's tensors, under the names of its file."""
    return load_file(next(path for path in sorted((model / part).glob("*.safetensors"))))


def stored(tensors: Mapping[str, Tensor], part: str, prefix: str, to_file: ToFile) -> dict[str, Tensor]:
    """A part's tensors as a single file has them."""
    canonical = layouts.models()[part].canonical
    tower = any("token_embedding" in name for name in tensors)
    whole = {_prefixed(name) if tower else canonical(name): tensor for name, tensor in tensors.items()}
    cut: dict[str, dict[int, Tensor]] = {}
    found = {}
    for name, source in to_file(whole).items():
        tensor = whole[name].T.contiguous() if source.transposed else whole[name]
        tensor = tensor[:, :, None, None] if source.flat else tensor
        tensor = cat(tensor.chunk(2)[::-1]) if source.swapped else tensor
        at = source.third if source.rows is None else source.rows[0]
        if at is None:
            found[prefix + source.name] = tensor
        else:
            cut.setdefault(prefix + source.name, {})[at] = tensor
    return found | {name: cat([each[at] for at in sorted(each)]) for name, each in cut.items()}


def _prefixed(name: str) -> str:
    """A tower's tensor as files call it: transformers 5 drops a prefix."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def tensors_of(model: Path, spelling: Mapping[str, tuple[str, ToFile]] = SD1) -> dict[str, Tensor]:
    """All of a directory's tensors, under the names of a single file."""
    found: dict[str, Tensor] = {}
    for part, (prefix, to_file) in spelling.items():
        found |= stored(part_tensors(model, part), part, prefix, to_file)
    return found


def write(model: Path, path: Path, spelling: Mapping[str, tuple[str, ToFile]] = SD1, **more: Tensor) -> Path:
    """The single file of a directory; ``more`` are further tensors, or others in their place. Returns ``path``."""
    tensors = tensors_of(model, spelling) | more
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"modelspec.title": "kept to the bit"})
    return path


def averaged(tensors: Mapping[str, Tensor], factor: float = 1.0) -> dict[str, Tensor]:
    """A moving average of a single file's UNet, as CompVis' training keeps it."""
    prefix = "model.diffusion_model."
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor.float() * factor for name, tensor in own.items()}


def differing(one: Path, other: Path) -> list[int]:
    """Where two files of one length differ, byte by byte."""
    a, b = (np.frombuffer(path.read_bytes(), np.uint8) for path in (one, other))
    assert a.shape == b.shape
    return [int(i) for i in np.flatnonzero(a != b)]
