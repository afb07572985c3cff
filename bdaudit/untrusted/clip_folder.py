"""A folder in open_clip's layout, that of a grader or a vision tower: what its settings and its tokenizer may say. Knows no torch.

The libraries never see the folder: they get a private one with what was checked here, and with nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted import rules
from bdaudit.untrusted.tokenizer_files import can_run_long, patterns
from bdaudit.untrusted.tokenizer_steps import PRECOMPILED, check_steps
from bdaudit.untrusted.tree import Reader, Tree, shown, walk

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TOKENIZER_LIMITS = (48 << 20, 4_000_000)
"""Bytes, and commas plus brackets, of one file of a tokenizer; Gemma's has 34 MB."""
TOKENIZERS = frozenset(
    f"{name}{fast}" for name in ("CLIPTokenizer", "T5Tokenizer", "BertTokenizer", "GemmaTokenizer") for fast in ("", "Fast")
) | {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Classes of transformers that a CLIP's tokenizer may be."""

_MOST = {
    "embed_dim": 16_384, "width": 16_384, "layers": 128, "heads": 256, "head_width": 1_024, "mlp_ratio": 64, "patch_size": 512,
    "image_size": 2_048, "context_length": 4_096, "vocab_size": 1_000_000, "pad_id": 1_000_000, "eos_id": 1_000_000,
    "attn_pooler_queries": 4_096, "attn_pooler_heads": 256, "ls_init_value": 1_000, "patch_dropout": 1, "timm_drop": 1, "timm_drop_path": 1,
    "init_logit_scale": 1_000, "init_logit_bias": 1_000, "size": 2_048, "fill_color": 255, "eps": 1,
}  # fmt: skip
"""Numbers that a config may set, and how far from 0."""
_SWITCHES = frozenset((
    "quick_gelu", "custom_text", "nonscalar_logit_scale", "attentional_pool", "no_ln_pre", "final_ln_after_pool", "output_tokens",
    "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "timm_model_pretrained", "timm_proj_bias",
    "embed_cls", "no_causal_mask", "proj_bias", "strip_sep_token", "tie_embeddings",
))  # fmt: skip
_WORDS = frozenset((
    "pos_embed_type", "pool_type", "proj_type", "block_type", "timm_model_name", "timm_pool", "timm_proj", "tokenizer_mode", "clean",
    "language", "approximate", "interpolation", "resize_mode", "mode",
))  # fmt: skip
_MAPS = frozenset(("vision_cfg", "text_cfg", "act_kwargs", "norm_kwargs", "tokenizer_kwargs"))
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,100}", re.ASCII)
_TOKENIZER_FILES = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"),
    *("vocab.json", "merges.txt", "vocab.txt"),
)
_SPECIAL = frozenset(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_SETTINGS = _SPECIAL | {
    "tokenizer_class", "model_max_length", "backend", "add_prefix_space", "add_bos_token", "add_eos_token", "errors", "do_lower_case",
    "strip_accents", "tokenize_chinese_chars", "do_basic_tokenize", "clean_up_tokenization_spaces", "additional_special_tokens",
    "extra_special_tokens", "added_tokens_decoder", "extra_ids", "legacy", "padding_side", "truncation_side", "split_special_tokens",
}  # fmt: skip
"""What is handed on of a tokenizer's settings; the others are left out, and mean nothing."""
_TOKENS, _LONGEST = 4_096, 1_000
"""Tokens beside the vocabulary, over all lists; characters of one."""


@dataclass(frozen=True)
class ClipFolder:
    """What was checked."""

    config: bytes
    """JSON, all of it known settings."""
    weights: Path
    tokenizer: dict[str, bytes]
    """Name → content; empty where open_clip's own is used."""


def inspect_clip(folder: Path, said: str) -> ClipFolder:
    """Check what open_clip and transformers read of ``folder``; ``said`` is what messages call it.

    Raises:
        UsageError: no such folder, settings that are not known or out of range, or no single file of weights.
        RefusedError: its only weights are a pickle, something asks for code, or a file to be opened is a link out of it or no file.
        BdauditError: too large, or damaged.
    """
    if not folder.is_dir():
        why = "a file" if folder.exists() else "No such file or directory"
        raise UsageError(f"{said}: expected a folder with {CONFIG} in open_clip's layout; got {why}")
    root = folder.resolve()
    tree = walk(root)
    reader = Reader(root, tree.files)
    config = _config(reader, tree, said)
    _check_hooks(reader, tree, said)
    own = bool(config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"))
    weights = root / _weights(tree, said)
    return ClipFolder(json.dumps(config).encode("ascii"), weights, _tokenizer(reader, tree, said) if own else {})


def _at(path: str, tree: Tree) -> bool:
    """Whether a regular file is there; raises ``RefusedError`` where a link is that leads elsewhere."""
    if path in tree.links:
        raise RefusedError([f"{path} is a link that leads to no file inside the folder; if you trust it, copy the folder with `cp -rL`"])
    return path in tree.files


def _config(reader: Reader, tree: Tree, said: str) -> dict[str, Any]:
    if not _at(CONFIG, tree):
        raise UsageError(f"{said}: expected a folder with {CONFIG} in open_clip's layout; it has none")
    try:
        whole = reader.json(CONFIG)
    except RefusedError:
        raise
    except BdauditError as error:
        raise UsageError(f"{said}: {error}") from error
    model = whole.get("model_cfg")
    if not isinstance(model, dict) or not all(isinstance(model.get(name), dict) for name in ("text_cfg", "vision_cfg")):
        raise UsageError(f"{said}: expected model_cfg in {CONFIG} with text_cfg and vision_cfg, each a map of settings")
    kwargs = model["text_cfg"].get("tokenizer_kwargs") or {}
    if not isinstance(kwargs, dict) or kwargs.get("trust_remote_code"):
        raise RefusedError([f"{said}: its config asks for code to be run (trust_remote_code)"])
    if "hf_model_name" in model["text_cfg"]:
        raise UsageError(f"{said}: a text tower from another repository is not supported; choose another CLIP")
    rules.check_config(whole, f"{said}: {CONFIG}")
    named = model["text_cfg"].get("hf_tokenizer_name")
    if named:
        model["text_cfg"]["hf_tokenizer_name"] = "tokenizer"  # the folder's own, whatever it is called there
    _check_settings(model, said)
    preparation = whole.get("preprocess_cfg") or {}
    _check_preparation(preparation, said)
    return {"model_cfg": model, "preprocess_cfg": preparation}


def _check_settings(settings: dict[str, Any], said: str) -> None:
    for key, value in settings.items():
        if value is None or (key == "hf_tokenizer_name" and isinstance(value, str)):
            continue
        if key in _MAPS:
            if not isinstance(value, dict):
                raise UsageError(f"{said}: {key} is {shown(value)}; expected a map of settings")
            _check_settings(value, said)
        elif key in _MOST:
            for number in value if isinstance(value, list) and len(value) <= 4 else [value]:
                if not _is_number(number) or abs(number) > _MOST[key]:
                    raise UsageError(f"{said}: {key} is {shown(value)}; expected a number of at most {_MOST[key]:,}")
        elif key in _SWITCHES or key in _WORDS:
            right = isinstance(value, bool) if key in _SWITCHES else isinstance(value, str) and _WORD.fullmatch(value) is not None
            if not right:
                raise UsageError(f"{said}: {key} is {shown(value)}; expected {'true or false' if key in _SWITCHES else 'a word'}")
        else:
            raise UsageError(f"{said}: {CONFIG} sets {shown(key)}, which is not known; remove it, or choose another CLIP")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_preparation(settings: Any, said: str) -> None:
    if not isinstance(settings, dict):
        raise UsageError(f"{said}: preprocess_cfg is {shown(settings)}; expected a map of settings")
    _check_settings({key: value for key, value in settings.items() if key not in ("mean", "std")}, said)
    for key in ("mean", "std"):
        three = settings.get(key, [1.0, 1.0, 1.0])
        if not isinstance(three, list) or len(three) != 3 or not all(_is_number(v) and abs(v) <= 1_000 for v in three):
            raise UsageError(f"{said}: {key} is {shown(three)}; expected three numbers")
        if key == "std" and not all(v > 0 for v in three):
            raise UsageError(f"{said}: std is {shown(three)}; expected three numbers above 0")


def _weights(tree: Tree, said: str) -> str:
    if _at(WEIGHTS, tree):
        return WEIGHTS
    found = [path for path in tree.files if "/" not in path and path.endswith(".safetensors")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{said}: {len(found)} safetensors files; name the one to use {WEIGHTS}")
    for path in tree.links:
        if "/" not in path and path.endswith(".safetensors"):
            _at(path, tree)
    pickles = [path for path in tree.files if "/" not in path and path.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        raise RefusedError([f"{said}: {shown(pickles[0])} is a pickle, which can run code; convert it to {WEIGHTS}"])
    raise UsageError(f"{said}: no safetensors file in it")


def _check_hooks(reader: Reader, tree: Tree, said: str) -> None:
    """Refuse what asks for code in any file of settings, read or not: transformers runs it where somebody says yes."""
    for path in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "special_tokens_map.json"):
        if _at(path, tree):
            rules.check_config(reader.json(path, TOKENIZER_LIMITS), f"{said}: {path}")


def _tokenizer(reader: Reader, tree: Tree, said: str) -> dict[str, bytes]:
    held = {name: b"" for name in _TOKENIZER_FILES if _at(name, tree)}
    if "tokenizer.json" not in held and not {"vocab.json", "merges.txt"} <= set(held):
        raise UsageError(f"{said}: its config names a tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    tokens = 0
    for name in held:
        if not name.endswith(".json"):
            held[name] = reader.content(name, TOKENIZER_LIMITS[0])
            continue
        content = reader.json(name, TOKENIZER_LIMITS)
        if name == "tokenizer_config.json":
            content = {key: value for key, value in content.items() if key in _SETTINGS}
            kind = content.get("tokenizer_class")
            if not isinstance(kind, str) or kind not in TOKENIZERS:
                raise UsageError(f"{said}: its tokenizer is a {shown(kind)}; expected one of {', '.join(sorted(TOKENIZERS))}")
        elif name == "special_tokens_map.json":
            content = {key: value for key, value in content.items() if key in _SETTINGS}
        if name != "vocab.json":
            tokens += sum(1 for _ in _listed(content, name, said))
        if name == "tokenizer.json":
            _check_serialised(content, said)
        held[name] = json.dumps(content).encode("ascii")
    if tokens > _TOKENS:
        raise UsageError(f"{said}: its tokenizer lists {tokens:,} tokens beside its vocabulary; at most {_TOKENS:,} are read")
    return held


def _listed(content: dict[str, Any], name: str, said: str) -> Iterator[str]:
    """Each token beside the vocabulary, wherever it is listed."""
    if name == "added_tokens.json":
        yield from content
        return
    for key in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "added_tokens"):
        listed = content.get(key) or []
        if not isinstance(listed, list | dict):
            raise UsageError(f"{said}: {key} in {name} is {shown(listed)}; expected a list of tokens")
        for each in listed.values() if isinstance(listed, dict) else listed:
            text = each.get("content") if isinstance(each, dict) else each
            if not isinstance(text, str) or len(text) > _LONGEST:
                raise UsageError(f"{said}: {key} in {name} holds {shown(text)}; expected tokens of at most {_LONGEST:,} characters")
            yield text


def _check_serialised(content: dict[str, Any], said: str) -> None:
    for pattern in patterns({key: value for key, value in content.items() if key != "model"}):
        if can_run_long(pattern):
            raise UsageError(f"{said}: the pattern {shown(pattern)} in tokenizer.json could run for ever on a text; choose another CLIP")
    try:
        check_steps(content, "tokenizer.json", also=frozenset({PRECOMPILED}))
    except BdauditError as error:
        raise UsageError(f"{said}: {error}; choose another CLIP") from error
    model = content.get("model")
    if not isinstance(model, dict) or model.get("dropout") not in (None, 0):
        raise UsageError(f"{said}: tokenizer.json has no model, or one that draws its tokens by chance (dropout); choose another CLIP")
