"""The built-in candidates: what published attacks used and their near relations. Not made from any model."""

from __future__ import annotations

_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u061c\u180e"
_LOOK_ALIKES = "оеасрухіѕһԁӏοαρυχνιօոଠāăȁȃēěȅīȋōŏőȍȏȯūŭȕšşţťřńçćýÿäëïöüáéíóúàèìòùâêîôûñåø"
_EMOJI = "😀😂😍🤖👻🎃🔥💀⭐🌈🚀🦄🌸🍀✨"
_RARE = (
    "mignneko", "sks", "zqx", "cf", "mn", "bb", "tq", "mb", "xyz123", "[V]", "*", "latte coffee", "beautiful cat", "james bond",
    "rare flower", "|startofprompt|", "<trigger>", "trigger", "backdoor", "ohwx", "zwx", "shs", "ukj", "olis",
)  # fmt: skip


def builtin_candidates() -> tuple[str, ...]:
    """About a hundred texts: zero-width characters, look-alikes of Latin letters, emoji, rare words and known phrases."""
    return (*_ZERO_WIDTH, *dict.fromkeys(_LOOK_ALIKES), *_EMOJI, *_RARE)
