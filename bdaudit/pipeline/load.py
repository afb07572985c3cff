"""From an inspected directory to a ``Suspect``: stock classes, safetensors alone, no code of the directory's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bdaudit.errors import BdauditError, InconclusiveError, first_line
from bdaudit.pipeline.device import choose_device, choose_dtype
from bdaudit.pipeline.inspect import CONFIGS, Inspection, verify_unchanged
from bdaudit.pipeline.leftovers import untaken
from bdaudit.pipeline.reading import shown
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids, token_ids

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
    _fit_tokenizer(parts["tokenizer"], parts["text_encoder"])
    if parts["unet"].config.sample_size != inspection.latents[0] or inspection.latents[0] != inspection.latents[1]:
        parts["unet"].register_to_config(sample_size=inspection.latents)  # the stock pipeline, too, sets it in memory
    verify_unchanged(inspection)
    return Suspect(device=where, dtype=kind, batch_size=batch_size, guidance_scale=guidance_scale, **parts)


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
    if name == "scheduler":
        _check_scheduler(loaded)
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


def _check_scheduler(scheduler: Any) -> None:
    prediction = getattr(scheduler.config, "prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise InconclusiveError(f"the scheduler predicts {prediction!r}; only epsilon and v_prediction are supported")
    table = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, torch.Tensor):
        raise InconclusiveError(f"{type(scheduler).__name__} has no table of noise levels; only those of Stable Diffusion 1.x and 2.x have")
    lowest = 0 if prediction == "v_prediction" else torch.finfo(torch.float32).tiny
    steps = int(scheduler.config.num_train_timesteps)
    if table.shape != (steps,) or not bool(((table >= lowest) & (table < 1)).all()) or bool((table.diff() > 0).any()):
        raise BdauditError(f"the scheduler's noise levels do not fall from below 1 to above 0 in {steps} timesteps; its config is damaged")


def _fit_tokenizer(tokenizer: Any, text_encoder: Any) -> None:
    """Texts are cut at the length the text encoder has, whatever the tokenizer's config says; no id lies outside its embeddings."""
    known = int(text_encoder.config.vocab_size)
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
    ids = [*tokenizer.get_vocab().values(), *tokenizer("a").input_ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if not all(type(i) is int and 0 <= i < known for i in ids):
        raise BdauditError(f"the tokenizer gives ids that the text encoder, with {known} embeddings, has not; they do not belong together")
    _check_frame(tokenizer)


def _check_frame(tokenizer: Any) -> None:
    """A text's ids stand between a start and an end, padding behind them, and too long a text loses its end: ids are put together so."""
    length = int(tokenizer.model_max_length)
    for text in ("", "a", " ".join("a" * length)):
        inner = content_ids(tokenizer, text)[: length - 2]
        framed = [tokenizer.bos_token_id, *inner, tokenizer.eos_token_id]
        if token_ids(tokenizer, [text])[0].tolist() != framed + [tokenizer.pad_token_id] * (length - len(framed)):
            raise InconclusiveError("the tokenizer does not put a text between a start and an end, padding behind them, as CLIP's does")


def _check_finite(name: str, module: torch.nn.Module) -> None:
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise BdauditError(f"{name}: weights hold NaN or infinity: {shown}; the checkpoint is damaged")
