"""A scan's blocks as data: what a worker is told to measure, each a function's arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bdaudit.measure.draws import DrawsOf
from bdaudit.scan.sweep.swept_texts import Crowd, Probe


@dataclass(frozen=True, kw_only=True)
class TextsTask:
    """``text_effects`` of some texts."""

    draws: DrawsOf
    texts: tuple[str, ...]
    attention: bool
    kind: Literal["texts"] = "texts"


@dataclass(frozen=True, kw_only=True)
class PathsTask:
    """``path_effects`` of some texts."""

    draws: DrawsOf
    steps: int
    texts: tuple[str, ...]
    kind: Literal["paths"] = "paths"


@dataclass(frozen=True, kw_only=True)
class ScreenTask:
    """``screened`` of some probes."""

    draws: DrawsOf
    probes: tuple[Probe, ...]
    kind: Literal["screen"] = "screen"


@dataclass(frozen=True, kw_only=True)
class CrowdsTask:
    """The interactions of some crowds of a two-part sweep."""

    draws: DrawsOf
    pairing: str
    """Its name."""
    crowds: tuple[Crowd, ...]
    kind: Literal["crowds"] = "crowds"


@dataclass(frozen=True, kw_only=True)
class ChoicesTask:
    """Some starts of soft choices, moved to where they pull most."""

    draws: DrawsOf
    slots: int
    """Of each."""
    starts: tuple[int, ...]
    """Which of those that are drawn."""
    cap: float
    """How far a movement of the text encoding explains a pull."""
    kind: Literal["choices"] = "choices"


Task = TextsTask | PathsTask | ScreenTask | CrowdsTask | ChoicesTask
KINDS: dict[object, Any] = {
    "texts": TextsTask, "paths": PathsTask, "screen": ScreenTask, "crowds": CrowdsTask, "choices": ChoicesTask
}  # fmt: skip
