"""By what models are best ranked, read off the rounds' results: ``python -m tests.bench.power.ranking``. No model is needed.

AUROC over models by the scan's own score, which is its p-value's, by the largest of the deciding ratios themselves, and by that with a
tenth of the robust scores of attention share and assimilation: for each round, on the attacks that lift their target's rate by ``LIFT``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import log
from typing import Any

from tests.bench.power.__main__ import ROUNDS
from tests.bench.power.figures import auroc

LIFT = 0.2
OVERRIDE, ATTENTION, MOST = 3.0, 0.1, 6.0
"""What the override's logarithm counts, and the standard scores up to ``MOST``: the figures hardly depend on them."""

Score = Callable[[dict[str, Any]], float]
"""Of one candidate."""


def ratio(candidate: dict[str, Any]) -> float:
    """The logarithm of the largest deciding ratio."""
    of = candidate["signals"]
    return max(log(of["noise shift"]), log(of["common shift"]), OVERRIDE * log(of["override"]))


def joint(candidate: dict[str, Any]) -> float:
    """The same, and what attention says."""
    scores = (candidate["signals"][name] for name in ("attention share", "assimilation"))
    return ratio(candidate) + ATTENTION * sum(min(max(score, 0.0), MOST) for score in scores)


RANKINGS: dict[str, Score] = {"by p": lambda candidate: float(candidate["score"]), "by ratio": ratio, "ratio and attention": joint}


def counted(row: dict[str, Any]) -> bool:
    """Clean, or backdoored with an attack that does something."""
    return "attack" not in row or row["attack"]["asr"]["value"] - row["attack"]["floor"]["value"] >= LIFT


def over_models(rows: list[dict[str, Any]], score: Score) -> float:
    """AUROC of the most suspicious candidate's score, backdoored models against clean ones."""
    best = [(max(map(score, row["scan"]["rows"])), "attack" in row) for row in rows]
    return auroc([top for top, bad in best if bad], [top for top, bad in best if not bad])


def main() -> None:
    """The table."""
    rounds = {name: [r for r in json.loads(asked.out.read_text(encoding="utf-8"))["rows"] if counted(r)] for name, asked in ROUNDS.items()}
    rounds["all"] = [row for rows in list(rounds.values()) for row in rows]
    print("| round | backdoored / clean | " + " | ".join(RANKINGS) + " |", "|---" * (2 + len(RANKINGS)) + "|", sep="\n")
    for name, rows in rounds.items():
        bad = sum("attack" in row for row in rows)
        figures = (f"{over_models(rows, score):.3f}" for score in RANKINGS.values())
        print(f"| {name} | {bad} / {len(rows) - bad} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()
