"""Flags made from fields: adding a field adds its flag, its help and its value; what was not typed is not handed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from bdaudit.cli.options import options
from bdaudit.cli.typed_command import Given, Headed, takes
from bdaudit.config import RunConfig
from bdaudit.config.flag import Flag
from bdaudit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What both do."""

    count: int = 3
    """How often,
    at most."""


@dataclass(frozen=True, kw_only=True)
class First(Shared):
    """What the first does."""

    colour: Literal["red", "blue"] = "red"
    """A colour."""
    shares: Annotated[tuple[float, ...], Flag("shares")] = (1.0, 0.5)
    """Shares."""
    words: Annotated[tuple[str, ...], Flag("each", "WORD", "--word")] = ()
    """A word."""
    often: bool = False
    """More than once."""


@dataclass(frozen=True, kw_only=True)
class Second(Shared):
    """What the second does."""

    picture: Annotated[Path | None, Flag("picture")] = None
    """A picture."""
    at: Annotated[tuple[int, int] | None, Flag("corner", of="picture")] = None
    """Its corner."""
    colour: Literal["red", "blue"] = "blue"
    """Said already."""


@dataclass
class Untold:
    """A class."""

    field: int = 0


HERE = Path(__file__).parent
Run = Callable[..., tuple[Result, list[Given]]]


@pytest.fixture
def run() -> Run:
    """A command line of a command that takes both, and what it was handed."""
    app, seen = typer.Typer(rich_markup_mode=None), []

    @app.command(cls=Headed)
    @takes(First, Second)
    def command(given: Given) -> int:
        """Does both."""
        seen.append(given)
        return 0

    return lambda *arguments: (CliRunner().invoke(app, arguments), seen)


def test_what_was_typed_is_handed_over_and_nothing_else(run: Run) -> None:
    _, seen = run(str(HERE))
    assert seen == [{"model": HERE}]
    _, seen = run(str(HERE), "--count", "0", "--word", "a", "--word", "b", "--often", "--shares", "0.1,0.2", "--colour", "red")
    assert seen[1] == {"model": HERE, "count": 0, "words": ("a", "b"), "often": True, "shares": (0.2, 0.1), "colour": "red"}


def test_two_fields_of_one_flag(run: Run) -> None:
    _, seen = run(str(HERE), "--picture", f"{__file__}@4,8")
    assert seen == [{"model": HERE, "picture": Path(__file__), "at": (4, 8)}]
    assert "--at" not in run("--help")[0].output


def test_what_is_opened_is_told_with_its_flag_and_neither_the_model_nor_what_is_written(run: Run, tmp_path: Path) -> None:
    _, seen = run(str(HERE), "--picture", f"{__file__}@4,8", "--report", str(tmp_path / "r.json"), "--count", "1")
    assert seen[0].opened == [("--picture", Path(__file__))]


def test_an_empty_path_is_no_path_and_an_empty_word_is_a_word(run: Run) -> None:
    result, _ = run(str(HERE), "--picture", "")
    assert (result.exit_code, type(result.exception)) == (1, UsageError)
    assert str(result.exception) == "--picture is empty; expected a path, . for the working directory"
    assert run(str(HERE), "--word", "")[1][-1] == {"model": HERE, "words": ("",)}


@pytest.mark.parametrize(
    "arguments", [[], [str(HERE), "--count", "x"], [str(HERE), "--colour", "green"], [str(HERE), "--no-often"], [str(HERE), "--at", "1"]]
)
def test_what_is_no_value_of_the_field_is_refused(run: Run, arguments: list[str]) -> None:
    result, seen = run(*arguments)
    assert result.exit_code == 2
    assert seen == []


def test_the_help_is_the_text_below_the_field_under_the_heading_of_its_class(run: Run) -> None:
    lines = [" ".join(line.split()) for line in run("--help")[0].output.splitlines()]
    body = [line for line in lines[lines.index("Model:") :] if line]
    assert body[1].startswith("MODEL")
    assert body[body.index("What both do:") : body.index("Output:")] == [
        "What both do:", "--count <int> How often, at most. [default: 3]",
        "What the first does:", "--colour <red|blue> A colour. [default: red]", "--shares <str> Shares. [default: 1,0.5]",
        "--word WORD A word. Repeatable.", "--often More than once.",
        "What the second does:", "--picture FILE[@x,y] A picture.",
    ]  # fmt: skip
    assert body.index("Output:") < body.index("Machine:") < body.index("Advanced:")


def test_a_default_that_the_text_says_is_not_said_again(run: Run) -> None:
    shown = run("--help")[0].output
    assert shown.count("[default: 3]") == 1
    seed = options(RunConfig)["seed"].parameter.annotation.__metadata__[0].help
    assert "Default: 0; a scan draws one" in seed
    assert "[default:" not in seed


def test_a_field_without_a_text_is_no_flag() -> None:
    with pytest.raises(KeyError):
        options(Untold)
