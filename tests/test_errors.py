"""What each declared error ends a run in, as the contract of the command line numbers it."""

from __future__ import annotations

import pytest

from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, RefusedError, UsageError, first_line


@pytest.mark.parametrize(
    ("error", "code", "label"),
    [
        (BdauditError("x"), 3, "error"), (UsageError("x"), 2, "usage"), (InconclusiveError("x"), 4, "inconclusive"),
        (RefusedError(["x"]), 5, "refused"),
    ],
)  # fmt: skip
def test_each_error_has_its_exit_code(error: BdauditError, code: int, label: str) -> None:
    assert (error.code, error.code.label, str(error)) == (code, label, "x")


def test_the_other_exit_codes() -> None:
    assert (ExitCode.PASS, ExitCode.FINDING, ExitCode.INTERRUPTED) == (0, 1, 130)


def test_a_refusal_has_a_line_a_reason() -> None:
    assert RefusedError(["a", "b"]).reasons == ["a", "b"]
    assert str(RefusedError(["a", "b"])) == "a; b"


def test_of_what_a_library_said_the_first_line_is_told() -> None:
    assert first_line(ValueError("\n a \n b")) == "a "
    assert first_line(ValueError()) == ""
