"""From an inspected directory to a ``Suspect``: stock classes, safetensors alone, no code of the directory's own."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from bdaudit.errors import BdauditError, InconclusiveError, first_line
from bdaudit.models.device import choose_device, choose_dtype
from bdaudit.models.families import FAMILIES
from bdaudit.models.memory import Away, check_fits, room_of, waiting
from bdaudit.models.pieces import read_pieces
from bdaudit.models.staging import staged
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import without_cache
from bdaudit.models.turns import Turns
from bdaudit.untrusted.formats.directory import INDEX
from bdaudit.untrusted.inspect import Inspection, verify_unchanged
from bdaudit.untrusted.layouts.layout import GUIDED, PIPELINE
from bdaudit.untrusted.tree import shown


def load(
    inspection: Inspection,
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 64,
    guidance_scale: float | None = None,
    by_turns: bool = False,
) -> Suspect:
    """Load the parts that an audit runs; safety checker and feature extractor stay on disk.

    ``guidance_scale`` matters to a denoiser that takes it as an embedding; asked for, it wins over what a model says of itself.
    ``by_turns`` is for work without gradients: parts that do not fit a GPU together may come to it one after the other, and the layers of a
    part that does not fit it by itself.

    Raises:
        BdauditError: weights that do not fit the device or their config, are not finite, or changed since the inspection.
        InconclusiveError: a prediction type that is neither epsilon nor v_prediction, a tokenizer that frames texts in its own way.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    torch.backends.cuda.matmul.allow_tf32 = True
    away = _away(inspection, kind, where, by_turns)
    parts = dict[str, Any]()
    for name in inspection.layout.parts:  # each goes to its device before the next is read, so that one at a time lies beside them
        with _no_bars():
            parts[name] = _component(inspection, name, kind)
        if name in inspection.weights:
            _check_finite(name, parts[name])
            parts[name].to("cpu" if name in away.parts else where).eval().requires_grad_(False)
    parts[PIPELINE] = inspection.settings.get(INDEX, {})
    parts[GUIDED] = guidance_scale is not None
    seams = FAMILIES[inspection.layout.name](parts, inspection.latents, where)
    verify_unchanged(inspection)
    if away.parts:
        stays = set(inspection.layout.heeding) - set(away.parts)
        shared, kept, layered = (
            {name: parts[name] for name in inspection.layout.heeding if name in some}
            for some in (set(away.parts) - set(away.layered), stays, away.layered)
        )
        Turns(shared, kept, where, layered)
    return Suspect(*seams, where, kind, batch_size, guidance_scale, waiting=away.parts, layered=away.layered)


def _away(inspection: Inspection, kind: torch.dtype, where: torch.device, by_turns: bool) -> Away:
    """The parts that wait in the machine's memory; raises as ``memory.waiting`` and ``check_fits``."""
    room = room_of(where)
    if by_turns:
        machine = room_of(torch.device("cpu"))
        return waiting(inspection.parameters, inspection.layout.heeding, kind, where, room, machine, inspection.largest)
    check_fits(inspection.parameters, kind, where, room)
    return Away()


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """A block in which neither library draws a bar of its own; a program that has them on finds them on again."""
    on = [each for each in (transformers.utils.logging, diffusers.utils.logging) if each.is_progress_bar_enabled()]
    for each in on:
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in on:
            each.enable_progress_bar()


def _component(inspection: Inspection, name: str, dtype: torch.dtype) -> Any:
    library, class_name = inspection.components[name]
    source: Any = getattr({"diffusers": diffusers, "transformers": transformers}[library], class_name, None)
    if not hasattr(source, "from_pretrained"):
        raise InconclusiveError(f"{name}: this {library} has no {class_name}")
    _check_known(source, name, inspection)
    place = Path(inspection.path) if name in inspection.pieces else Path(inspection.path) / name
    try:
        if name in inspection.pieces:
            return _built(source, name, inspection, dtype)
        with staged(name, inspection.sources, inspection.settings) as inert:
            if name not in inspection.weights:
                return without_cache(source.from_pretrained(inert, local_files_only=True))
            return _model(source, inert, name, inspection, dtype)
    except BdauditError:
        raise
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        raise BdauditError(f"{name}: {class_name} could not be loaded from {place}: {first_line(error)}") from error


def _check_known(source: Any, name: str, inspection: Inspection) -> None:
    """Whether whatever the installed library would make of the config is known here.

    Raises:
        InconclusiveError: it reads a setting that is not, so that what people load is built in another way.
    """
    path = f"{name}/{inspection.layout.parts[name].config}"
    made = getattr(source, "config_class", source)
    read = {*inspect.signature(made.__init__).parameters, *getattr(made, "attribute_map", ())}  # the latter are second names of settings
    inner = getattr(made, "sub_configs_defaults", {}).items()
    read |= {f"{key}.{setting}" for key, own in inner for setting in inspect.signature(own.__init__).parameters}
    unknown = [key for key in inspection.unknown.get(path, ()) if key in read]
    if unknown:
        said = f"{path}: {shown(unknown[0])} is read by the installed {inspection.components[name][0]}, and not known to bdaudit"
        raise InconclusiveError(f"{said}; a model that is built with it is not supported")


def _model(source: Any, folder: Path, name: str, inspection: Inspection, dtype: torch.dtype) -> Any:
    """A model with its weights, from a folder."""
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": name not in inspection.pickled}
    options |= {"variant": inspection.variants[name] or None, "output_loading_info": True}
    config, _ = _empty(source, name, inspection)
    if inspection.layout.parts[name].library == "transformers":
        options |= {"dtype": dtype, "config": config}
    else:
        options |= {"torch_dtype": dtype}
    component, info = source.from_pretrained(folder, **options)
    _check_strict(name, inspection, info)
    return component


def _built(source: Any, name: str, inspection: Inspection, dtype: torch.dtype) -> Any:
    """A model with weights that lie in single files: every tensor is one of its own, and each of its own is there."""
    config, empty = _empty(source, name, inspection)
    tensors = read_pieces(inspection, name, dtype)
    if inspection.layout.parts[name].library == "transformers":
        info: Any
        component, info = source.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True)
        _check_strict(name, inspection, info)
        return component
    asked = empty.state_dict()
    misfits = [key for key in asked.keys() & tensors.keys() if asked[key].shape != tensors[key].shape]
    lacking, extra = asked.keys() - tensors.keys(), tensors.keys() - asked.keys()
    _check_strict(name, inspection, {"missing_keys": sorted(lacking), "mismatched_keys": misfits, "unexpected_keys": sorted(extra)})
    empty.load_state_dict({key: tensors[key] for key in asked}, assign=True)
    return empty


def _empty(source: Any, name: str, inspection: Inspection) -> tuple[Any, Any]:
    """Config, and the model without memory, to see that it asks for no more than the weights hold.

    Raises:
        BdauditError: it does.
    """
    part = inspection.layout.parts[name]
    config: Any = inspection.settings[f"{name}/{part.config}"]
    with torch.device("meta"):
        if part.library == "transformers":
            config = source.config_class(**config)
            empty = source(config)
        else:
            empty = source.from_config(config)
    asked, held = sum(p.numel() for p in empty.parameters()), inspection.parameters[name]
    if asked > 2 * held:  # a few missing tensors are named later; what matters here is that nothing huge is built
        raise BdauditError(f"{name}: its config asks for {asked:,} numbers, its weights hold {held:,}; the checkpoint is damaged")
    return config, empty


def _check_strict(name: str, inspection: Inspection, info: Mapping[str, Any]) -> None:
    """Raises ``BdauditError`` unless the weights' tensors are those of the model."""
    wrong = [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]
    if wrong:
        said = f"{len(wrong)} tensors are missing from the weights or of another shape, {wrong[0]} first"
        raise BdauditError(f"{name}: {said}; the checkpoint is damaged")
    extra = inspection.layout.parts[name].untaken([str(key) for key in info["unexpected_keys"]])
    if extra:
        said = f"{len(extra)} tensors belong to no part of the model, {shown(extra[0])} first"
        raise BdauditError(f"{name}: {said}; without what they are for, the others may not mean what they seem to")


def _check_finite(name: str, module: torch.nn.Module) -> None:
    bad = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise BdauditError(f"{name}: weights hold NaN or infinity: {shown}; the checkpoint is damaged")
