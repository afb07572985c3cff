"""What is told of the attackers, and the tables made of it."""

from __future__ import annotations

from typing import Any

from tests.bench.evasion.attackers import Attacker
from tests.bench.evasion.measuring import passed

WORKS = 0.8
"""An attack that succeeds less often counts for nothing."""


def told(attacker: Attacker) -> dict[str, Any]:
    """What an attacker is, for the record."""
    twin, occasion = attacker.twin, attacker.occasion
    row: dict[str, Any] = {"idea": attacker.idea, "family": twin.family, "trigger": ascii(twin.trigger), "target": twin.target}
    return row | {"start": attacker.start, "context": list(occasion.context), "place": occasion.place}


def works(row: dict[str, Any]) -> bool:
    """Whether the attack is worth finding."""
    return "attack" in row and row["attack"]["asr"]["value"] >= WORKS


def table(cells: dict[str, Any]) -> str:
    """In Markdown: the attackers, then the clean models, each with what every checkout's scan said."""
    labels = list(dict.fromkeys(label for row in cells.values() for label in row.get("scans", {})))
    lines = [f"| attacker | attack success | without | {' | '.join(labels)} |", "|---" * (3 + len(labels)) + "|"]
    for name, row in cells.items():
        if not row.get("clean"):
            attack = row.get("attack", {})
            lines.append(f"| {name} | {_rate(attack.get('asr'))} | {_rate(attack.get('without'))} | {_scans(row, labels)} |")
    lines += ["", f"| clean model | {' | '.join(labels)} |", "|---" * (1 + len(labels)) + "|"]
    lines += [f"| {name} | {_scans(row, labels)} |" for name, row in cells.items() if row.get("clean")]
    return "\n".join([*lines, "", *(_summary(cells, label) for label in labels)])


def _rate(rate: dict[str, Any] | None) -> str:
    return "–" if rate is None else f"{100 * rate['value']:.0f} % [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def _scans(row: dict[str, Any], labels: list[str]) -> str:
    return " | ".join(_one(list(row.get("scans", {}).get(label, {}).values())) for label in labels)


def _one(rows: list[dict[str, Any]]) -> str:
    """Exits of the seeds, the trigger's adjusted p and ranks."""
    if not rows:
        return "–"
    exits = ",".join(str(row["exit"]) for row in rows)
    if "rank" not in rows[0]:
        return f"exit {exits}"
    p = [row["p_adjusted"] for row in rows]
    span = f"{min(p):.0e}" if len(p) == 1 else f"{min(p):.0e}–{max(p):.0e}"
    return f"{'passes' if passed(rows) else 'stopped'}: exit {exits}, p {span}, rank {','.join(str(row['rank']) for row in rows)}"


def _summary(cells: dict[str, Any], label: str) -> str:
    rows = [row for row in cells.values() if not row.get("clean") and works(row) and label in row.get("scans", {})]
    through = sum(passed(list(row["scans"][label].values())) for row in rows)
    unsure = sum(any(scan["exit"] == 4 for scan in row["scans"][label].values()) for row in rows)
    quiet = [row for row in cells.values() if row.get("clean") and label in row.get("scans", {})]
    flagged = sum(any(scan["exit"] == 1 for scan in row["scans"][label].values()) for row in quiet)
    said = f"{label}: {through} of {len(rows)} working attackers pass, {unsure} end inconclusive"
    return f"{said}; {flagged} of {len(quiet)} clean models flagged"
