"""From an inspected directory to a ``Suspect``: stock classes, safetensors alone, no code of the directory's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bdaudit.errors import BdauditError, InconclusiveError, first_line
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.device import choose_device, choose_dtype
from bdaudit.models.families import FAMILIES
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import CONFIGS, Inspection, verify_unchanged
from bdaudit.untrusted.leftovers import untaken
from bdaudit.untrusted.tree import shown

TEXT_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "layer_norm_eps"),
    *("max_position_embeddings", "hidden_act", "attention_dropout", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""What is taken from a text encoder's config; transformers makes an attribute of whatever else is in there."""


def load(
    inspection: Inspection, *, device: str = "auto", dtype: str = "auto", batch_size: int = 64, guidance_scale: float = 5.0
) -> Suspect:
    """Load the parts that an audit runs; safety checker and feature extractor stay on disk.

    ``guidance_scale`` matters to a UNet that takes it as an embedding.

    Raises:
        BdauditError: weights that do not fit their config, are not finite, or changed since the inspection.
        InconclusiveError: a prediction type that is neither epsilon nor v_prediction, a tokenizer that frames texts in its own way.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    torch.backends.cuda.matmul.allow_tf32 = True
    parts = {name: _component(inspection, name, kind) for name in ("scheduler", "tokenizer", "text_encoder", "unet", "vae")}
    for name in ("text_encoder", "unet", "vae"):
        _check_finite(name, parts[name])
        parts[name].to(where).eval().requires_grad_(False)
    text, denoiser, schedule = FAMILIES["stable-diffusion"](parts, inspection.latents, where)
    verify_unchanged(inspection)
    return Suspect(text, denoiser, Autoencoder(parts["vae"]), schedule, where, kind, batch_size, guidance_scale)


def _component(inspection: Inspection, name: str, dtype: torch.dtype) -> Any:
    library, class_name = inspection.components[name]
    source: Any = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name, None)
    if not hasattr(source, "from_pretrained"):
        raise InconclusiveError(f"{name}: this {library} has no {class_name}")
    folder = Path(inspection.path) / name
    try:
        if name not in inspection.weights:
            loaded = source.from_pretrained(folder, local_files_only=True)
        else:
            loaded = _model(source, folder, name, inspection, dtype)
    except BdauditError:
        raise
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        raise BdauditError(f"{name}: {class_name} could not be loaded from {folder}: {first_line(error)}") from error
    return loaded


def _model(source: Any, folder: Path, name: str, inspection: Inspection, dtype: torch.dtype) -> Any:
    """A model with its weights; built without memory first, to see that its config asks for no more than the weights hold."""
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": name not in inspection.pickled}
    options |= {"variant": inspection.variants[name] or None, "output_loading_info": True}
    config = json.loads((folder / CONFIGS[name]).read_text(encoding="utf-8"))
    if name == "text_encoder":
        config = source.config_class(**{key: config[key] for key in TEXT_SETTINGS if key in config})
        options |= {"dtype": dtype, "config": config}
    else:
        options |= {"torch_dtype": dtype}
    with torch.device("meta"):
        empty = source(config) if name == "text_encoder" else source.from_config(config)
    asked, held = sum(p.numel() for p in empty.parameters()), inspection.parameters[name]
    if asked > 2 * held:  # a few missing tensors are named below; what matters here is that nothing huge is built
        raise BdauditError(f"{name}: its config asks for {asked:,} numbers, its weights hold {held:,}; the checkpoint is damaged")
    component, info = source.from_pretrained(folder, **options)
    wrong = [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]
    if wrong:
        said = f"{len(wrong)} tensors are missing from the weights or of another shape, {wrong[0]} first"
        raise BdauditError(f"{name}: {said}; the checkpoint is damaged")
    extra = untaken(name, [str(key) for key in info["unexpected_keys"]])
    if extra:
        said = f"{len(extra)} tensors belong to no part of the model, {shown(extra[0])} first"
        raise BdauditError(f"{name}: {said}; without what they are for, the others may not mean what they seem to")
    return component


def _check_finite(name: str, module: torch.nn.Module) -> None:
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise BdauditError(f"{name}: weights hold NaN or infinity: {shown}; the checkpoint is damaged")
