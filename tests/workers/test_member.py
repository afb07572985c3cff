"""A worker's own side: whatever happens there, bytes of ours come back."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.workers.member import Member
from bdaudit.workers.wire import Answer, packed, unpacked


class Odd:
    """A bench that cannot measure what it is told."""

    passes = 0

    def canary(self) -> tuple[float, ...]:
        return ()

    def done(self, task: Any) -> Any:
        self.passes += 1
        if task == "declared":
            raise BdauditError("no such text")
        if task == "figure":
            return float("nan")
        if task == "odd":
            raise ValueError("odd")
        return task


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    monkeypatch.setattr("bdaudit.workers.member.forget", lambda: None)
    made = Member(b"no setup")
    made._bench = Odd()
    return made


def test_a_declared_error_is_its_tasks_alone(member: Member) -> None:
    found = unpacked(member.done(packed(["a", "declared", "b"])), list[Answer], "x")
    assert found == [Answer(value="a", passes=1), Answer(error="no such text"), Answer(value="b", passes=1)]


@pytest.mark.parametrize(("task", "said"), [("odd", "ValueError: odd"), ("figure", "ValueError: Out of range float values")])
def test_an_error_that_nobody_declared_is_bytes_too(member: Member, task: str, said: str) -> None:
    found = unpacked(member.done(packed(["a", task])), Answer, "x")
    assert found.error.startswith(said)


def test_tasks_that_are_none_and_a_setup_that_is_none(member: Member) -> None:
    assert "is not valid JSON" in unpacked(member.done(b"\x80"), Answer, "x").error
    assert "is not valid JSON" in unpacked(member.hello(), Answer, "x").error
