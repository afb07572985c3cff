"""The file of --accept: what is read, and what is refused with the entry's number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import Acceptance
from bdaudit.errors import UsageError
from bdaudit.untrusted.accept_file import read_acceptances

ENTRY: dict[str, Any] = {"model": "ab" * 32, "token_ids": [320, 9], "reason": "our style ȏ", "expires": "2027-02-28", "effect": 12}


def read(tmp_path: Path, document: object) -> tuple[Acceptance, ...]:
    path = tmp_path / "accept.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_acceptances(path, "--accept accept.json")


def test_every_entry_is_read_in_order(tmp_path: Path) -> None:
    first, second = read(tmp_path, [ENTRY, ENTRY | {"model": "*"}])
    assert first == Acceptance(model="ab" * 32, token_ids=(320, 9), reason="our style ȏ", expires="2027-02-28", effect=12.0)
    assert (type(first.effect), second.model) == (float, "*")
    assert read(tmp_path, []) == ()


def test_what_several_readers_read_may_stand_beside_it(tmp_path: Path) -> None:
    first, second = read(tmp_path, [ENTRY, ENTRY | {"reader_ids": {"clip": [320, 9], "t5": [7]}}])
    assert (first.reader_ids, second.reader_ids) == ({}, {"clip": (320, 9), "t5": (7,)})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "--accept accept.json"),
        ("{", "--accept accept.json"),
        (ENTRY, "expected a list of entries; got dict"),
        ([[]], "entry 1: got list"),
        ([{}], "entry 1: got no key"),
        ([ENTRY, {key: value for key, value in ENTRY.items() if key != "expires"}], "entry 2: got model, token_ids, reason, effect;"),
        ([ENTRY | {"until": "x"}], "expected a table with model, token_ids, reason, expires, effect, and nothing else"),
        ([ENTRY, ENTRY], "entry 2: an entry before it has the same model and token ids"),
        ([ENTRY | {"model": 3}], "model is 3; expected text"),
        ([ENTRY | {"reason": None}], "reason is None; expected text"),
        ([ENTRY | {"reason": ""}], "entry 1: reason is ''; say"),
        ([ENTRY | {"token_ids": 320}], "token_ids is 320"),
        ([ENTRY | {"token_ids": [True]}], "expected a list of whole numbers"),
        ([ENTRY | {"token_ids": [1.0]}], "expected a list of whole numbers"),
        ([ENTRY | {"reader_ids": [[320, 9]]}], "reader_ids is [[320, 9]]; expected a table"),
        ([ENTRY | {"reader_ids": {"clip": 320}}], "reader_ids of clip is 320; expected a list of whole numbers"),
        ([ENTRY | {"reader_ids": {"clip": [-1]}}], "ids of a vocabulary"),
        ([ENTRY | {"reader_ids": {"clip": [320, 9]}}, ENTRY], "entry 2: an entry before it has the same model and token ids"),
        ([ENTRY | {"effect": "12"}], "effect is 12; expected a finite number"),
        ([ENTRY | {"effect": True}], "effect is True; expected a finite number"),
        ([ENTRY | {"effect": 10**400}], "expected a finite number"),
        ('[{"effect": NaN}]', "--accept accept.json"),
        ("[" + ",".join("[]" for _ in range(50_001)) + "]", "more than 50,000 items"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(UsageError, match="--accept accept") as refused:
        read(tmp_path, document)
    assert said in str(refused.value)
