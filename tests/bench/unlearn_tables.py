"""The tables of ``unlearn_rivals``, as the pages quote them, and what is measured: fixtures, seeds, and looks on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.bench import unlearn_common as common

MARKS = (50.0, 100.0, 200.0, 400.0)
"""Seconds after which what the released recipe has done so far is measured: how long it takes to the rate that ours leaves."""
TUNED_ON = "pixel"
FIXTURES = ("pixel", "style", "fixed-image", "encoder", "object", "closed-form")

SEEDS = {"ours": (0, 1, 2), "released": (0, 1, 2)}

BESIDE = ("ours", "trained", "UCE")
"""Methods of the first table."""
SHORT = ("ours", "UCE", "released", "self-distillation", "reversal (oracle)")
"""Methods of the short table, and of the one of what else is measured."""


def short(cells: Mapping[str, Any]) -> str:
    """The project's page's table: a row a fixture, a column a method; seed 0."""
    heads = " | ".join(SHORT).replace("ours", "bdaudit").replace("released", "SKD-CAG as released, 600 s")
    lines = [f"| model (limit) | before; without trigger | {heads} |", "|---" * (2 + len(SHORT)) + "|"]
    for fixture in FIXTURES:
        found = [_of(cells, method, fixture) for method in SHORT]
        if found[0]:
            asr, limit = found[0]["asr"], found[0]["shift"]["null95"]
            row = [f"{fixture} ({limit:.3f})", f"{common.shown(asr['before'], 100)}; {common.shown(asr['floor'], 100)}"]
            lines.append("| " + " | ".join([*row, *(_in_short(cell) if cell else "–" for cell in found)]) + " |")
    return "\n".join(lines)


def _in_short(cell: Mapping[str, Any]) -> str:
    asr, ratio = common.shown(cell["asr"]["value"], 100), cell["clip_ratio"]["value"]["value"]
    return f"{asr}; {ratio:.3f}; {cell['shift']['clean']:.3f}; {cell['seconds']:.0f} s"


def beside(cells: Mapping[str, Any]) -> str:
    """The evidence's first table: a row a fixture, seed 0, and for each figure a column a method."""
    heads = ("ASR %", "CLIP ratio", "shift: clean / near", "s")
    columns = " | ".join(f"{h}: {m}" for h in heads for m in BESIDE)
    lines = [f"| model (what a harmless text shifts, 95 %) | ASR % before; repaired, without trigger | {columns} |"]
    lines.append("|---" * (2 + len(heads) * len(BESIDE)) + "|")
    for fixture in FIXTURES:
        found = {method: _of(cells, method, fixture) for method in BESIDE}
        whole = next((cell for cell in found.values() if cell), None)
        if whole is None:
            continue
        first = f"{common.shown(whole['asr']['before'], 100)}; {common.shown(whole['asr']['floor'], 100)}"
        figures = [common.columns(cell) if cell else ["–"] * len(common.HEAD) for cell in found.values()]
        shifts = [f"{c['shift']['clean']:.3f} / {c['shift']['near']:.3f}" if c else "–" for c in found.values()]
        rows = [*(c[0] for c in figures), *(c[4] for c in figures), *shifts, *(c[7] for c in figures)]
        lines.append(f"| {fixture} ({whole['shift']['null95']:.3f}) | {first} | {' | '.join(rows)} |")
    return "\n".join(lines)


def seeds(cells: Mapping[str, Any]) -> str:
    """Every seed of ours, one after the other in a cell."""
    heads = ("ASR %", "CLIP ratio", "shift: clean", "shift: near", "its own check", "s")
    lines = ["| model | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for fixture in FIXTURES:
        found = _seeds(cells, "ours", fixture, 0.0)
        figures = [
            [_rate(c["asr"]["value"]) for c in found],
            [f"{c['clip_ratio']['value']['value']:.3f}" for c in found],
            *([f"{c['shift'][place]:.3f}" for c in found] for place in ("clean", "near")),
            [c["exit"] for c in found],
            [f"{c['seconds']:.0f}" for c in found],
        ]
        lines.append(f"| {fixture} | " + " | ".join(" / ".join(of) for of in figures) + " |")
    return "\n".join(lines)


def _rate(figure: Any) -> str:
    """A rate in percent without its interval, which a cell of several seeds has no room for."""
    return f"{100 * figure['value']:.1f}" if isinstance(figure, dict) else "–"


def in_time(cells: Mapping[str, Any]) -> str:
    """What the rivals that train leave of the trigger on the way and at the end, seed by seed; and how long until it is what ours leaves.

    That is the first look at which the two intervals meet (the rival's favour: few pictures make wide ones), over the seconds of ours'
    same seed. These include its check with pictures, the rivals' no look at all; in brackets over those until its weights stood.
    """
    marks = [f"after {mark:g} s" for mark in MARKS]
    heads = (*marks, "at the end", "CLIP ratio", "shift: clean (null 95 %)", "s", "as little as ours, × its time (without its last check)")
    lines = ["| method / fixture / learning rate | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    told = {tuple(name.split("/")[:3]) for name in cells}
    named = ((method, fixture, float(strength)) for method, fixture, strength in told if method not in BESIDE)
    for method, fixture, strength in sorted(named, key=lambda of: (SHORT.index(of[0]), FIXTURES.index(of[1]), of[2])):
        found = _seeds(cells, method, fixture, strength)
        if not found:
            continue
        way = [[_rate(c[mark]["asr"]) for c in found if mark in c] or ["–"] for mark in marks]
        figures = [
            *way,
            [common.shown(c["asr"]["value"], 100) for c in found],
            [f"{c['clip_ratio']['value']['value']:.3f}" for c in found],
            [f"{c['shift']['clean']:.3f} ({c['shift']['null95']:.3f})" for c in found],
            [f"{c['seconds']:.0f}" for c in found],
            [_times(c, ours) for c, ours in zip(found, _seeds(cells, "ours", fixture, 0.0), strict=False)],
        ]
        lines.append(f"| {method}/{fixture}/{strength:g} | " + " | ".join(" / ".join(of) for of in figures) + " |")
    return "\n".join(lines)


def _times(cell: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    looks = {mark: cell[f"after {mark:g} s"]["asr"] for mark in MARKS if f"after {mark:g} s" in cell}
    looks[cell["seconds"]] = cell["asr"]["value"]
    high = ours["asr"]["value"]["high"]
    there = next((seconds for seconds, asr in looks.items() if asr["low"] <= high), None)
    times = ((there or cell["seconds"]) / ours[part] for part in ("seconds", "repaired"))
    return "{}{:.1f} ({:.1f})".format("" if there else "> ", *times)


def others(cells: Mapping[str, Any]) -> str:
    """What else is measured, seed 0: the distances between sets, diversity, memory."""
    heads = ("KID ×1000 (two seeds of the poisoned model)", "FID ×1000", "diversity (before)", "shift: near", "peak MB")
    lines = ["| model / method | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for fixture in FIXTURES:
        for method in SHORT:
            cell = _of(cells, method, fixture)
            if cell:
                lines.append(f"| {fixture} / {method} | " + " | ".join(_others(cell)) + " |")
    return "\n".join(lines)


def _others(cell: Mapping[str, Any]) -> list[str]:
    floor = cell["kid_floor"]["value"]["value"]
    return [
        f"{common.shown(cell['kid']['value'], 1000)} ({1000 * floor:.1f})",
        common.shown(cell["fid"]["value"], 1000, 0),
        f"{cell['diversity']['value']['value']:.3f} ({cell['diversity']['reference']['value']:.3f})",
        f"{cell['shift']['near']:.3f}",
        f"{cell['peak_mb']:.0f}",
    ]


def _seeds(cells: Mapping[str, Any], method: str, fixture: str, strength: float) -> list[Any]:
    """The cells of a method's seeds, in their order."""
    named = (cells.get(f"{method}/{fixture}/{strength:g}/{seed}") for seed in SEEDS.get(method, (0,)))
    return [cell for cell in named if cell and "error" not in cell]


def _of(cells: Mapping[str, Any], method: str, fixture: str) -> Any:
    """The cell of seed 0, at the strength that was chosen for all fixtures; a text encoder is trained in any case."""
    names = [name for name in cells if name.startswith(f"{method}/") and name.endswith("/0")]
    strengths = {name.split("/")[2] for name in names if f"/{TUNED_ON}/" not in name}
    return next((cells[name] for name in names if name.split("/")[1] == fixture and name.split("/")[2] in strengths), None)


EVIDENCE = (beside, seeds, others, in_time)
"""The tables that the evidence quotes, in its order; the project's page quotes ``short``."""
