"""A fleet as one HTML page that asks for nothing: its script and style are our own and named by hash, all else is data that is escaped.

The reports' rows travel as JSON in a block that no browser runs, with ``<``, ``>`` and ``&`` written as escapes; the script puts them on
the page as text. Without the script the worst rows are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bdaudit.report.content.blocks import TONES, Tone
from bdaudit.report.fleet.entry import NOT_AUDITED, VERDICTS, Entry
from bdaudit.report.fleet.fleet import Fleet
from bdaudit.report.fleet.rates import ErrorRate
from bdaudit.report.safe import inert, one_line, visible
from bdaudit.report.words import number, told

TONES_OF: dict[str, Tone] = {**{name: TONES.get(name, "warn") for name in VERDICTS}, "accepted": "dim"}
ADVICE = {
    "pass": "No report reaches the gate. That is no proof that every model is clean: each report says what it did not look at.",
    "finding": "The models at the top have a text that acts like a trigger, or fail a check. Take them out of use, and open each one's "
    "report: it has the pictures and the command that repairs the model.",
    "inconclusive": "This is no pass: too many models were not audited, or reports are missing or old. Not audited says which; run these "
    "jobs again.",
}
"""What the outcome means, and what to do."""
WORST_ROWS = 100
"""Rows that stand in the page itself."""
MOST_GROUPS = 200
"""Rows of each of the tables below; the JSON has all."""
MOST_TEXTS = 4
"""Found texts that a row shows."""


def page(fleet: Fleet, out: Path) -> str:
    """The whole page; links to reports are relative to ``out``, where it will lie."""
    own = files("bdaudit.report")
    style = own.joinpath("page.css").read_text(encoding="utf-8") + own.joinpath("fleet/fleet.css").read_text(encoding="utf-8")
    script = own.joinpath("fleet/fleet.js").read_text(encoding="utf-8")
    rows = [row(fleet, entry, out) for entry in fleet.reports.entries]
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(own.joinpath("fleet/fleet.html").read_text(encoding="utf-8")).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(_escaped({"rows": rows, "tones": TONES_OF, "verdicts": VERDICTS})),
        fleet=fleet,
        tone=TONES.get(fleet.exit.name, "warn"),
        reason=one_line(fleet.exit.reason),
        advice=ADVICE.get(fleet.exit.name, "This is no pass: mend what the reason names, and merge again."),
        worst=rows[:WORST_ROWS],
        tones=TONES_OF,
        total=len(rows),
        counts=[(name, count) for name in VERDICTS if (count := Counter(e.verdict for e in fleet.reports.entries)[name])],
        rate=rate_lines(fleet.rate),
        families=[(visible(f.family) or "not opened", visible(f.shape), f.models, f.reports, f.verdicts) for f in fleet.families],
        verdicts=[name for name in VERDICTS if any(name in f.verdicts for f in fleet.families)],
        silent=_silent(fleet, out),
        same=[(g, [visible(name) for name in g.models[:8]], len(g.models) - 8) for g in fleet.same_tensors],
        shared=[(told(t.text), t.backdoored, [visible(name) for name in t.models[:8]], len(t.models) - 8) for t in fleet.shared_texts],
        most=MOST_GROUPS,
    )


def row(fleet: Fleet, entry: Entry, out: Path) -> dict[str, Any]:
    """What the page shows of one report, inert; a p of −1 is none."""
    test = fleet.test_of(entry)
    texts = [told(found.text) for found in entry.found[:MOST_TEXTS]]
    more = len(entry.found) - MOST_TEXTS + entry.more
    return {
        "verdict": entry.verdict,
        "model": visible(entry.model) or "not named",
        "verb": entry.verb,
        "family": visible(entry.family) or "not opened",
        "shape": visible(entry.shape),
        "texts": [*texts, *([f"and {more} more"] if more > 0 else []), *(["the model as a whole"] if entry.whole else [])],
        "p": test.p if test else -1,
        "q": test.q if test else -1,
        "holm": test.holm if test else -1,
        "said": [number(x) for x in (test.p, test.q, test.holm)] if test else ["", "", ""],
        "tail": bool(test and test.extrapolated),
        "reason": one_line(entry.reason),
        "date": visible(entry.created_at[:10]),
        **_where(entry.file, out),
    }


def link(file: str, out: Path) -> str:
    """The report's own page, where one lies beside it, else its JSON: a relative address that begins with a dot, whatever it is called."""
    return _where(file, out)["link"]


def _where(file: str, out: Path) -> dict[str, str]:
    """A report's link, and its file as it is found from the page."""
    place = os.path.relpath(file, out.parent)
    page = f"{os.path.splitext(file)[0]}.html"
    relative = f"{os.path.splitext(place)[0]}.html" if page != str(out) and os.path.isfile(page) else place
    return {"link": quote(relative if relative.startswith("..") else f"./{relative}", errors="surrogateescape"), "file": visible(place)}


def rate_lines(rate: ErrorRate) -> list[str]:
    """What the fleet's size makes of its alarms, in sentences."""
    if not rate.models:
        return ["No scan came to p-values, so that there is no error rate to hold anything against."]
    return [
        f"{rate.alarms:,} of {rate.models:,} models with a p raise an alarm at their scan's own alpha; "
        f"if every one of them were clean, {number(rate.expected)} would be expected to.",
        f"Over all models at {number(rate.level)}: {rate.kept_by_rate:,} are kept by Benjamini and Hochberg (the share of false alarms "
        f"among them), {rate.kept_by_holm:,} by Holm (the chance of any).",
        f"A text's p below {number(rate.extrapolated_below)} is more than the controls can count: it is extrapolated along an exponential "
        f"tail. Holm asks {number(rate.needed)} of the first model.",
    ]


def _silent(fleet: Fleet, out: Path) -> list[tuple[str, str, str]]:
    """Name, verdict and reason of what was not audited, files that were not read first; then weights beside audited ones."""
    unread = [(_where(each.file, out)["file"], "not read", one_line(each.reason)) for each in fleet.reports.not_read]
    entries = [(visible(e.model), str(e.verdict), one_line(e.reason)) for e in fleet.reports.entries if e.verdict in NOT_AUDITED]
    beside = [(visible(e.model), "weights", "; ".join(map(one_line, e.unaudited[:4]))) for e in fleet.reports.entries if e.unaudited]
    return [*unread, *entries, *beside]


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _escaped(value: Any) -> str:
    """JSON in ASCII that ends no block and begins no tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finalize(value: object) -> object:
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value
