"""What a person accepts: a finding that is known to be harmless, on one model or on any, until a day, up to a strength."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from bdaudit.config.run import need

ANY_MODEL = "*"
MOST_TOKENS = 1000
"""Of one text; a prompt has at most some hundreds."""
LONGEST_REASON = 1000
"""Characters."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """One entry of ``--accept``; what is none raises ``UsageError``."""

    model: str
    """Digest of the model that it holds for, as reports have it; ``*`` is any model."""
    token_ids: tuple[int, ...]
    """What the text encodes to: texts that encode alike are one finding."""
    reason: str
    """Why the text is harmless, in a person's words."""
    expires: str
    """The last day that it holds, YYYY-MM-DD in UTC."""
    effect: float
    """How strong the finding was when it was accepted: its ``effect``."""
    reader_ids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of a model whose readers do not all read the same: what each reads, by the folder of its encoder."""

    def __post_init__(self) -> None:
        named = self.model == ANY_MODEL or re.fullmatch(r"[0-9a-f]{64}", self.model) is not None
        need(named, f"model is {self.model[:80]!a}; expected a digest of 64 hexadecimal digits, as a report has it, or {ANY_MODEL!r}")
        fit = 0 < len(self.token_ids) <= MOST_TOKENS and all(map(_are_ids, (self.token_ids, *self.reader_ids.values())))
        need(fit, f"token_ids are {len(self.token_ids)}; expected 1 to {MOST_TOKENS} ids of a vocabulary")
        told = bool(self.reason.strip()) and len(self.reason) <= LONGEST_REASON and not any("\ud800" <= c <= "\udfff" for c in self.reason)
        need(told, f"reason is {self.reason[:40]!a}; say in up to {LONGEST_REASON} characters why the text is harmless")
        need(_is_day(self.expires), f"expires is {self.expires[:40]!a}; expected the last day that it holds, as 2027-01-31")
        need(0 < self.effect < float("inf"), f"effect is {self.effect}; expected the finding's effect, a number above 0")

    @property
    def last_day(self) -> date:
        """The last day that it holds."""
        return date.fromisoformat(self.expires)


def _are_ids(ids: tuple[int, ...]) -> bool:
    return len(ids) <= MOST_TOKENS and all(0 <= token < 1 << 31 for token in ids)


def _is_day(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False
