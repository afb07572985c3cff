"""From an inspected directory to a ``Suspect``: stock classes, safetensors alone, no code of the directory's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.pipeline.inspect import Inspection, verify_unchanged
from bdaudit.pipeline.suspect import Suspect

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


def load(inspection: Inspection, *, device: str = "auto", dtype: str = "auto", batch_size: int = 64) -> Suspect:
    """Load the parts that an audit runs; safety checker and feature extractor stay on disk.

    Raises:
        BdauditError: weights that do not fit their config, are not finite, or changed since the inspection.
        InconclusiveError: a prediction type that is neither epsilon nor v_prediction.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    torch.backends.cuda.matmul.allow_tf32 = True
    parts = {name: _component(inspection, name, kind) for name in ("tokenizer", "text_encoder", "unet", "vae", "scheduler")}
    prediction = parts["scheduler"].config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise InconclusiveError(f"the scheduler predicts {prediction!r}; only epsilon and v_prediction are supported")
    for name in ("text_encoder", "unet", "vae"):
        _check_finite(name, parts[name])
        parts[name].to(where).eval().requires_grad_(False)
    _check_vocabulary(parts["tokenizer"], parts["text_encoder"])
    verify_unchanged(inspection)
    return Suspect(device=where, dtype=kind, batch_size=batch_size, **parts)


def _component(inspection: Inspection, name: str, dtype: torch.dtype) -> Any:
    library, class_name = inspection.components[name]
    source = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name)
    folder = Path(inspection.path) / name
    options: dict[str, Any] = {"local_files_only": True}
    weighted = name in ("text_encoder", "unet", "vae")
    if weighted:
        options |= {"use_safetensors": True, "variant": inspection.variant or None, "output_loading_info": True}
        options |= {"dtype": dtype} if library == "transformers" else {"torch_dtype": dtype}
    try:
        loaded = source.from_pretrained(folder, **options)
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        first = str(error).strip().split("\n")[0]
        raise BdauditError(f"{name}: {class_name} could not be loaded from {folder}: {first}") from error
    if not weighted:
        return loaded
    component, info = loaded
    wrong = [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]
    if wrong:
        said = f"{len(wrong)} tensors are missing from the weights or of another shape, {wrong[0]} first"
        raise BdauditError(f"{name}: {said}; the checkpoint is damaged")
    return component


def _check_vocabulary(tokenizer: Any, text_encoder: Any) -> None:
    entries, known = len(tokenizer), int(text_encoder.config.vocab_size)
    if entries > known:
        raise BdauditError(f"the tokenizer has {entries} entries, the text encoder embeds {known}; they do not belong together")


def _check_finite(name: str, module: torch.nn.Module) -> None:
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise BdauditError(f"{name}: weights hold NaN or infinity: {shown}; the checkpoint is damaged")
