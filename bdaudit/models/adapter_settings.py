"""peft's settings of an adapter, from ``adapter_config.json`` or a file's header: what each module's product is multiplied by.

Only settings whose effect on the weights is known are read; one that is not known, and set, ends in "not supported".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.tree import shown

KINDS = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
"""peft_type → what its alpha is called."""
MODELS = (
    "UNet2DConditionModel", "FluxTransformer2DModel", "SD3Transformer2DModel",
    "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel",
)  # fmt: skip
"""Classes that peft names where an adapter is of one part; of any other, as of none, its layers' names tell the part."""
DEFAULT = 8
"""peft's own rank and alpha, where a file gives none."""
MAX_PATTERNS = 5_000
_PLAIN = re.compile(r"\^?[\w.-]+", re.ASCII)
_WITHOUT_EFFECT = frozenset((
    "base_model_name_or_path", "corda_config", "decompose_both", "decompose_factor", "eva_config", "fan_in_fan_out",
    "inference_mode", "init_weights", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "module_dropout", "peft_type",
    "peft_version", "qalora_group_size", "rank_dropout", "rank_dropout_scale", "revision", "runtime_config", "task_type",
    "use_effective_conv2d",
))  # fmt: skip
"""Of training, of where it came from, or of layers that no pipeline has (``fan_in_fan_out`` is of Conv1D alone)."""
_READ = frozenset((
    "r", "alpha", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules", "bias", "init_lora_weights",
    "auto_mapping",
))  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What peft would make of an adapter's tensors."""

    where: str
    """The file, for messages."""
    rank: float
    alpha: float
    ranks: Mapping[str, float]
    """rank_pattern: the first name that a module's ends in counts."""
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    targets: tuple[str, ...]
    """The modules' names end in one of them; empty for any."""
    of: str = ""
    """The class of model that it was made on; empty where that is not said."""

    def scale(self, module: str, held: int | None) -> float:
        """α/r, or α/√r, of a module by its name in the file; ``held`` is the rank of its tensors, where they show one.

        Raises:
            BdauditError: the tensors have another rank.
            InconclusiveError: peft would not load this module.
        """
        if self.targets and not any(name == t or name.endswith(f".{t}") for t in self.targets for name in _names(module)):
            said = f"{self.where}: {shown(module)} is none of its target_modules, so peft leaves out what the file holds for it"
            raise InconclusiveError(f"{said}; take those tensors out, or add the module")
        rank = self.ranks.get(_pattern(self.ranks, module), self.rank)
        if held is not None and rank != held:
            raise BdauditError(f"{self.where}: the rank of {shown(module)} is {rank:g} by its settings and {held} by its tensors")
        alpha = self.alphas.get(_pattern(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_settings(told: Mapping[str, Any], where: str) -> Settings:
    """Check and read them.

    Raises:
        BdauditError: a figure that is none.
        InconclusiveError: another kind of adapter, or a setting with an effect that is not known.
    """
    kind = told.get("peft_type") or "LORA"
    if not isinstance(kind, str) or kind not in KINDS:
        raise InconclusiveError(f"{where}: peft_type is {shown(kind)}; {', '.join(KINDS)} are supported")
    _check_known(told, where)
    target = told.get("target_modules")
    if isinstance(target, str) and target != "all-linear":
        raise InconclusiveError(f"{where}: target_modules is the pattern {shown(target)}; a list of names is supported, so write them out")
    targets = tuple(target) if isinstance(target, list) else ()
    if not all(isinstance(name, str) for name in targets) or len(targets) > MAX_PATTERNS:
        raise BdauditError(f"{where}: target_modules is no list of at most {MAX_PATTERNS:,} names")
    return Settings(
        where=where,
        rank=_rank(told.get("r", DEFAULT), "r", where),
        alpha=_number(told.get(KINDS[kind], DEFAULT), KINDS[kind], where),
        ranks={name: _rank(value, "rank_pattern", where) for name, value in _patterns(told, "rank_pattern", where).items()},
        alphas={name: _number(value, "alpha_pattern", where) for name, value in _patterns(told, "alpha_pattern", where).items()},
        rslora=bool(told.get("use_rslora")),
        dora=bool(told.get("use_dora")),
        targets=targets,
        of=_class(told.get("auto_mapping")),
    )


def _class(mapping: Any) -> str:
    named = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return named if isinstance(named, str) and named in MODELS else ""


def _check_known(told: Mapping[str, Any], where: str) -> None:
    unknown = [name for name, value in told.items() if _is_set(value) and name not in _WITHOUT_EFFECT | _READ]
    if told.get("bias", "none") not in ("none", None):
        unknown.append("bias")
    if told.get("init_lora_weights", True) not in (True, False, None, "gaussian"):  # pissa and its like change the base's own weights
        unknown.append("init_lora_weights")
    if unknown:
        said = f"{where}: it sets {shown(unknown[0])} to {shown(told[unknown[0]], 60)}, which is not supported"
        raise InconclusiveError(f"{said}; merge the adapter with the library that wrote it, and audit the result as a model")


def _is_set(value: Any) -> bool:
    """Whether a setting says anything: false, null and what is empty do not, but 0 is the first layer of ``layers_to_transform``."""
    return bool(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def _patterns(told: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = told.get(name) or {}
    if not isinstance(found, dict) or len(found) > MAX_PATTERNS:
        raise BdauditError(f"{where}: {name} is no map of at most {MAX_PATTERNS:,} names")
    odd = [pattern for pattern in found if not _PLAIN.fullmatch(pattern)]
    if odd:
        raise InconclusiveError(f"{where}: {name} holds the pattern {shown(odd[0])}; plain names are supported, so write them out")
    return found


def _pattern(patterns: Mapping[str, float], module: str) -> str:
    """The first of ``patterns`` that peft takes for ``module``: it is it (``^…``), or ends in it after a dot; a dot is any character."""
    return next((pattern for pattern in patterns if any(_ends_in(name, pattern) for name in _names(module))), "")


def _names(module: str) -> tuple[str, ...]:
    """A text encoder's module is called with or without ``text_model.``, by the version of transformers."""
    return tuple(dict.fromkeys((module, module.removeprefix("text_model."))))


def _ends_in(name: str, pattern: str) -> bool:
    whole, pattern = pattern.startswith("^"), pattern.removeprefix("^")
    if len(name) < len(pattern) or (len(name) > len(pattern) and (whole or name[-len(pattern) - 1] != ".")):
        return False
    return all(wanted in (".", got) for wanted, got in zip(pattern, name[-len(pattern) :], strict=True))


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BdauditError(f"{where}: {name} is {shown(value, 60)}; expected a finite number")
    return number


def _rank(value: Any, name: str, where: str) -> float:
    number = _number(value, name, where)
    if number < 1 or number != int(number):
        raise BdauditError(f"{where}: {name} is {shown(value, 60)}; expected a whole number from 1")
    return number
