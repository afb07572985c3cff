"""An entry of --accept: every field is held to what it can be."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from bdaudit.config import Acceptance
from bdaudit.errors import UsageError

ENTRY: dict[str, Any] = {"model": "ab" * 32, "token_ids": (320, 9), "reason": "our own style", "expires": "2027-02-28", "effect": 12.5}
AT_THE_LIMIT: list[dict[str, Any]] = [
    {"token_ids": (1,) * 1000}, {"token_ids": ((1 << 31) - 1,)}, {"reason": "x" * 1000}, {"reason": "\ud7ff\ue000"},
]  # fmt: skip


@pytest.mark.parametrize("change", [{}, {"model": "*"}, {"effect": 1e-9}, {"token_ids": (0,)}, {"expires": "2024-02-29"}, *AT_THE_LIMIT])
def test_what_is_an_entry(change: dict[str, Any]) -> None:
    entry = Acceptance(**ENTRY | change)
    assert entry.last_day == date.fromisoformat((ENTRY | change)["expires"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": ""}, "expected a digest"),
        ({"model": "**"}, "expected a digest"),
        ({"model": "AB" * 32}, "expected a digest"),
        ({"model": "ab" * 32 + "\n"}, "expected a digest"),
        ({"token_ids": ()}, "token_ids are 0"),
        ({"token_ids": (-1,)}, "ids of a vocabulary"),
        ({"token_ids": (1 << 31,)}, "ids of a vocabulary"),
        ({"token_ids": (1,) * 1001}, "token_ids are 1001"),
        ({"reason": " "}, "say in up to"),
        ({"reason": "x" * 1001}, "say in up to"),
        ({"reason": "\ud800"}, "say in up to"),
        ({"reason": chr(0xDFFF)}, "say in up to"),
        ({"expires": ""}, "expected the last day"),
        ({"expires": "2027-02-29"}, "expected the last day"),
        ({"expires": "20270228"}, "expected the last day"),
        ({"expires": "2027-02-28T00:00"}, "expected the last day"),
        ({"effect": 0.0}, "a number above 0"),
        ({"effect": float("nan")}, "a number above 0"),
        ({"effect": float("inf")}, "a number above 0"),
    ],
)
def test_what_is_none(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Acceptance(**ENTRY | change)
