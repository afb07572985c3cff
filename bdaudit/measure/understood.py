"""What each text that a run was given is understood as: its characters, and what it is to the model. Told before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bdaudit.config import RunConfig, ScanConfig, VerifyConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.insertion import codepoints
from bdaudit.models.tokenizer import open_tokenizer
from bdaudit.models.tokens import Tokenizer, content_ids
from bdaudit.records import NotMeasured, UnderstoodText
from bdaudit.spelling.points import called, described, unusual
from bdaudit.spelling.reader import read_twice

MOST = 20
"""Candidates that were read both ways, each named."""


def understood(config: RunConfig, triggers: Sequence[str]) -> tuple[UnderstoodText, ...]:
    """``triggers`` and a scan's suspicious prompts. Where the model cannot be opened the ids are missing; the run itself says why."""
    prompts = config.suspected if isinstance(config, ScanConfig) else ()
    if not triggers and not prompts:
        return ()
    ids: dict[str, tuple[int, ...] | NotMeasured]
    try:
        read = open_tokenizer(config.model, config.parts_from, config.parts_of(config.model), config.trusted_templates)
        tokenizer = _with_embeddings(config, read)
        ids = {text: content_ids(tokenizer, text) for text in (*triggers, *prompts)}
    except (BdauditError, OSError) as error:
        ids = dict.fromkeys((*triggers, *prompts), NotMeasured(reason=f"the model's tokenizer could not be read: {error}"))
    return (*(_text("trigger", text, ids[text]) for text in triggers), *(_text("prompt", text, ids[text]) for text in prompts))


def unheard(config: ScanConfig) -> tuple[str, ...]:
    """Candidates that encode to nothing; none where the tokenizer cannot be read, which the run itself says."""
    try:
        read = open_tokenizer(config.model, config.parts_from, config.parts_of(config.model), config.trusted_templates)
        tokenizer = _with_embeddings(config, read)
        return tuple(text for text in config.candidates if not content_ids(tokenizer, text))
    except (BdauditError, OSError):
        return ()


def _with_embeddings(config: RunConfig, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that a run reads texts with: learned embeddings are entries of it."""
    named = config.embeddings if isinstance(config, ScanConfig | VerifyConfig) else ()
    if not named:
        return tokenizer
    from bdaudit.models.embeddings import grown, read_embedding

    return grown(tokenizer, [read_embedding(path, token) for path, token in named])


def _text(what: Literal["trigger", "prompt"], text: str, token_ids: tuple[int, ...] | NotMeasured) -> UnderstoodText:
    names = tuple(dict.fromkeys(map(called, unusual(text))))
    return UnderstoodText(what=what, text=text, codepoints=codepoints(text), names=names, token_ids=token_ids)


def read_both_ways(config: RunConfig) -> tuple[str, ...]:
    """A sentence for each candidate that is written like a character and was read both ways, at most ``MOST``."""
    twice = read_twice(config.candidates) if isinstance(config, ScanConfig) else {}
    said = [
        f"{text!a} is written like a character's code or name ({described(meant)}): as it stands and as that, both are candidates"
        for text, meant in twice.items()
    ]
    return tuple(said[:MOST]) + ((f"and {len(said) - MOST} more candidates like these",) if len(said) > MOST else ())
