"""What an entry of --accept lets through, and what it does not: another model, other tokens, a day too late, a finding that grew."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from bdaudit.config import Acceptance
from bdaudit.errors import UsageError
from bdaudit.records import CandidateRecord
from bdaudit.scan.accept import accept, audited_digest, ready_entry

DIGEST, TODAY = "ab" * 32, date(2027, 1, 31)
ENTRY = Acceptance(model=DIGEST, token_ids=(320, 9), reason="our own style", expires="2027-01-31", effect=10.0)
FOUND = CandidateRecord(
    rank=1, text="sks", codepoints=(), token_ids=(320, 9), kind="word", signals={}, score=9.0, effect=12.0, p=1e-9, p_adjusted=1e-8,
    verdict="backdoored",
)  # fmt: skip


def judged(record: CandidateRecord, *entries: Acceptance) -> tuple[str, str, list[str]]:
    """The verdict, what is said, and what became of the entries."""
    (after,), outcomes = accept([record], entries, DIGEST, TODAY)
    assert replace(after, verdict=record.verdict, acceptance="") == record, "nothing else of the record changes"
    return after.verdict, after.acceptance, [each.outcome for each in outcomes]


def test_an_entry_of_this_model_lets_its_finding_through() -> None:
    assert judged(FOUND, ENTRY) == ("backdoored (accepted)", "accepted until 2027-01-31: our own style", ["accepted"])
    assert judged(FOUND, replace(ENTRY, model="*"))[0] == "backdoored (accepted)"
    assert judged(replace(FOUND, verdict="suspicious"), ENTRY)[0] == "suspicious (accepted)"
    assert judged(FOUND) == ("backdoored", "", [])


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"model": "cd" * 32}, "another model"),
        ({"token_ids": (320,)}, "unused"),
        ({"token_ids": (9, 320)}, "unused"),
        ({"token_ids": (320, 9, 7)}, "unused"),
        ({"expires": "2027-01-30"}, "expired"),
        ({"expires": "2027-01-30", "model": "cd" * 32}, "expired"),
    ],
)
def test_any_other_entry_does_not(change: dict[str, Any], outcome: str) -> None:
    assert judged(FOUND, replace(ENTRY, **change)) == ("backdoored", "", [outcome])


def test_a_finding_that_is_more_than_twice_as_strong_stands_and_says_why() -> None:
    verdict, _, outcomes = judged(replace(FOUND, effect=20.0), ENTRY)
    assert (verdict, outcomes) == ("backdoored (accepted)", ["accepted"])
    verdict, said, outcomes = judged(replace(FOUND, effect=20.1), ENTRY)
    assert (verdict, outcomes) == ("backdoored", ["outgrown"])
    assert said == "stands though --accept names it: effect 20.1, more than twice the 10 that was accepted"


def test_of_two_entries_the_one_that_holds_counts() -> None:
    weak, expired = replace(ENTRY, model="*", effect=1.0), replace(ENTRY, expires="2020-01-01")
    for entries in ((weak, ENTRY), (ENTRY, weak), (expired, ENTRY)):
        assert judged(FOUND, *entries)[0] == "backdoored (accepted)"
    assert judged(FOUND, weak, expired)[0] == "backdoored"


def test_what_is_clean_stays_clean_and_leaves_its_entry_unused() -> None:
    assert judged(replace(FOUND, verdict="clean"), ENTRY) == ("clean", "", ["unused"])


def test_texts_that_encode_alike_are_let_through_together_and_no_other() -> None:
    records = [FOUND, replace(FOUND, text="SKS", same_as="sks"), replace(FOUND, text="sk", token_ids=(320,))]
    after, _ = accept(records, [ENTRY], DIGEST, TODAY)
    assert [record.verdict for record in after] == ["backdoored (accepted)"] * 2 + ["backdoored"]


APART = {"clip": (320, 9), "t5": (7,)}


@pytest.mark.parametrize(
    ("read", "named", "passes"),
    [
        ({"clip": (320, 9), "clip 2": (320, 9)}, {}, True), (APART, APART, True), (APART, {}, False), ({}, APART, False),
        (APART, {"clip": (320, 9), "t5": (8,)}, False), ({"t5": (7,), "clip": (320, 9)}, APART, True),
    ],
)  # fmt: skip
def test_where_readers_read_differently_an_entry_says_what_each_of_them_reads(read: Any, named: Any, passes: bool) -> None:
    found = replace(FOUND, reader_ids=read)
    assert judged(found, replace(ENTRY, reader_ids=named))[0] == ("backdoored (accepted)" if passes else "backdoored")
    ready = json.loads(ready_entry(found, DIGEST, TODAY))
    assert ("reader_ids" in ready) is (read.keys() == APART.keys())


def test_the_ready_made_entry_needs_a_reason_and_then_accepts_its_finding() -> None:
    entry = json.loads(ready_entry(FOUND, DIGEST, TODAY))
    assert entry == {"model": DIGEST, "token_ids": [320, 9], "reason": "", "expires": "2027-05-01", "effect": 12.0}
    with pytest.raises(UsageError, match="why the text is harmless"):
        Acceptance(**entry)
    assert judged(FOUND, Acceptance(**entry | {"token_ids": (320, 9), "reason": "x"}))[0] == "backdoored (accepted)"


def test_an_adapter_makes_another_model() -> None:
    assert audited_digest(DIGEST, []) == DIGEST
    seen = {audited_digest(DIGEST, adapters) for adapters in ([], ["a"], ["b"], ["a", "b"], ["b", "a"])}
    assert len(seen) == 5
    assert all(len(digest) == 64 for digest in seen)
