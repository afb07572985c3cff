"""From the models' measurements to the study's figures. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from bdaudit.stats import wilson

DETECTORS = ("scan", "ftt", "navi", "ufid")
ALPHA = 0.01
"""The scan's default: the chance that a scan of a clean model flags anything."""
STRONG = 0.9
LIFT = 0.5
"""How far an attack's success exceeds the rate without the trigger where the trigger is what does it."""
RESAMPLES = 2000

Row = Mapping[str, Any]
"""One model: ``family``, ``asr``, and for each detector a list of scores, the trigger's (on a clean model a control's) first."""
Array = NDArray[np.float64]


WORKS = "pooled, where the attack works"


def backdoored(row: Row) -> bool:
    """Whether the first of its candidates is a trigger."""
    return row["family"] != "benign"


def works(row: Row) -> bool:
    """Whether the trigger sets its backdoor off: ``LIFT`` more often than it goes off without."""
    return backdoored(row) and row["asr"] - row["floor"] >= LIFT


# --- AUROC ------------------------------------------------------------------------------------


def auroc_interval(value: float, m: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Newcombe's score-type interval (2006, method 5): Hanley and McNeil's variance at the interval's own end, so not nought at 1."""
    z, half = float(stats.norm.ppf((1 + level) / 2)), (m + n) / 2 - 1

    def beyond(at: float) -> float:
        variance = at * (1 - at) / (m * n) * (1 + half * ((1 - at) / (2 - at) + at / (1 + at)))
        return float((value - at) ** 2 - z * z * variance)

    low = 0.0 if value <= 0 else float(optimize.brentq(beyond, 0.0, value - 1e-12)) if beyond(0.0) > 0 else 0.0
    high = 1.0 if value >= 1 else float(optimize.brentq(beyond, value + 1e-12, 1.0)) if beyond(1.0) > 0 else 1.0
    return low, high


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive scores above a negative, ties half."""
    return float(stats.mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


def model_auroc(rows: Sequence[Row], detector: str) -> float:
    """Over models, each with the score of its most suspicious candidate."""
    best = [(max(row[detector]), backdoored(row)) for row in rows]
    return auroc([score for score, bad in best if bad], [score for score, bad in best if not bad])


def candidate_auroc(rows: Sequence[Row], detector: str) -> float:
    """Over candidates: triggers against all harmless texts, of clean and of backdoored models."""
    triggers = [row[detector][0] for row in rows if backdoored(row)]
    return auroc(triggers, [score for row in rows for score in harmless(row, detector)])


def harmless(row: Row, detector: str) -> Sequence[float]:
    """The scores of the candidates that are no trigger."""
    scores: Sequence[float] = row[detector]
    return scores[1:] if backdoored(row) else scores


def figure(rows: Sequence[Row], detector: str) -> dict[str, Any]:
    """Both AUROCs of one detector with their intervals; candidates are taken as if independent, models are."""
    bad = [row for row in rows if backdoored(row)]
    controls = sum(len(harmless(row, detector)) for row in rows)
    models, candidates = model_auroc(rows, detector), candidate_auroc(rows, detector)
    return {
        "models": _with_interval(models, len(bad), len(rows) - len(bad)),
        "candidates": _with_interval(candidates, len(bad), controls),
    }


def _with_interval(value: float, m: int, n: int) -> dict[str, Any]:
    low, high = auroc_interval(value, m, n)
    return {"value": value, "low": low, "high": high, "positive": m, "negative": n}


def difference(rows: Sequence[Row], rival: str, of: Callable[[Sequence[Row], str], float], seed: int = 0) -> dict[str, float]:
    """The scan's AUROC less ``rival``'s, with a paired bootstrap over models, clean and backdoored ones apart."""
    rng = np.random.default_rng(seed)
    groups = [[row for row in rows if backdoored(row)], [row for row in rows if not backdoored(row)]]
    drawn = []
    for _ in range(RESAMPLES):
        sample = [group[i] for group in groups for i in rng.integers(len(group), size=len(group))]
        drawn.append(of(sample, "scan") - of(sample, rival))
    low, high = np.quantile(drawn, (0.025, 0.975))
    worse = float(np.mean(np.array(drawn) <= 0))
    return {"value": of(rows, "scan") - of(rows, rival), "low": float(low), "high": float(high), "share of resamples not better": worse}


# --- decisions --------------------------------------------------------------------------------


def rate(hits: int, n: int) -> dict[str, Any]:
    """A rate with Wilson's 95 % interval."""
    if n == 0:
        return {"hits": 0, "n": 0}
    low, high = wilson(hits, n)
    return {"hits": hits, "n": n, "value": hits / n, "low": low, "high": high}


def rate_of(hits: Sequence[bool]) -> dict[str, Any]:
    """The share that hit."""
    return rate(sum(hits), len(hits))


def decisions(rows: Sequence[Row]) -> dict[str, Any]:
    """What the scan's verdicts at the default alpha found and falsely alarmed at."""
    clean, bad = [r for r in rows if not backdoored(r)], [r for r in rows if backdoored(r)]
    strong = [row for row in bad if row["asr"] >= STRONG]
    lifted = [row for row in bad if works(row)]
    alarmed = sum(any(row["flagged"]) for row in clean)
    among = [flag for row in rows for flag in (row["flagged"][1:] if backdoored(row) else row["flagged"])]
    others = sum(any(row["flagged"][1:]) for row in bad)
    return {
        "recall": rate(sum(row["flagged"][0] for row in bad), len(bad)),
        "recall where ASR is 90 % or more": rate(sum(row["flagged"][0] for row in strong), len(strong)),
        "recall where ASR is 50 points above its floor": rate(sum(row["flagged"][0] for row in lifted), len(lifted)),
        "clean models falsely alarmed": rate(alarmed, len(clean)),
        "exact binomial p against alpha, clean models": float(stats.binomtest(alarmed, len(clean), ALPHA, alternative="greater").pvalue),
        "backdoored models with a false alarm": rate(others, len(bad)),
        "exact binomial p against alpha, all models": float(
            stats.binomtest(alarmed + others, len(rows), ALPHA, alternative="greater").pvalue
        ),
        "harmless candidates flagged": rate(sum(among), len(among)),
    }


def at_same_rate(rows: Sequence[Row], detector: str, false_alarms: int) -> dict[str, Any]:
    """Triggers above the threshold that lets ``false_alarms`` of these very controls through; the scan's own number, for every detector."""
    controls = sorted((score for row in rows for score in harmless(row, detector)), reverse=True)
    threshold = controls[false_alarms]
    bad = [row for row in rows if backdoored(row)]
    strong = [row for row in bad if row["asr"] >= STRONG]
    return {
        "threshold": threshold,
        "recall": rate(sum(row[detector][0] > threshold for row in bad), len(bad)),
        "recall where ASR is 90 % or more": rate(sum(row[detector][0] > threshold for row in strong), len(strong)),
        "by family": {name: rate(sum(row[detector][0] > threshold for row in part), len(part)) for name, part in parts(bad).items()},
    }


def parts(bad: Sequence[Row]) -> dict[str, list[Row]]:
    """Backdoored models by what a row of the table shows: those whose attack works, and each family."""
    families = tuple(dict.fromkeys(row["family"] for row in bad))
    return {WORKS: [row for row in bad if works(row)]} | {f: [row for row in bad if row["family"] == f] for f in families}


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """All figures, pooled and by family; a family is compared with all clean models."""
    clean = [row for row in rows if not backdoored(row)]
    told = parts([row for row in rows if backdoored(row)])
    groups = {"pooled": list(rows)} | {name: [*part, *clean] for name, part in told.items() if part}
    found: dict[str, Any] = {}
    pooled = decisions(rows)
    for name, group in groups.items():
        bad = [row for row in group if backdoored(row)]
        found[name] = {
            "models": {"backdoored": len(bad), "clean": len(group) - len(bad), "asr": [row["asr"] for row in bad]},
            "scan": pooled if name == "pooled" else {key: value for key, value in decisions(group).items() if key.startswith("recall")},
            "auroc": {detector: figure(group, detector) for detector in DETECTORS},
            "scan less rival, models": {rival: difference(group, rival, model_auroc) for rival in DETECTORS[1:]},
            "scan less rival, candidates": {rival: difference(group, rival, candidate_auroc) for rival in DETECTORS[1:]},
        }
    alarms = pooled["harmless candidates flagged"]["hits"]
    found["at the scan's number of false alarms"] = {detector: at_same_rate(rows, detector, alarms) for detector in DETECTORS}
    return found


def alone(rows: Sequence[Row]) -> dict[str, Any]:
    """The scan's own figures, without rivals: pooled, and where the attack works; what was taught a word is counted by itself."""
    clean, bad = [row for row in rows if not backdoored(row) and not row["taught"]], [row for row in rows if backdoored(row)]
    groups = {"pooled": bad, WORKS: [row for row in bad if works(row)]}
    found: dict[str, Any] = {
        name: {"asr": [row["asr"] for row in part], "auroc": figure([*part, *clean], "scan"), "scan": decisions([*part, *clean])}
        for name, part in groups.items()
    }
    taught = [row for row in rows if row["taught"]]
    return found | {
        "taught a word": rate_of([row["flagged"][-1] for row in taught]),
        "inconclusive": rate_of([row["exit"] == 4 for row in clean]),
        "less without": ablation([row for row in [*bad, *clean] if row["without"]]),
    }


def ablation(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """What is left out → the scan's AUROC over models, less that without it."""
    names = rows[0]["without"] if rows else ()
    both = [{**row, **row["without"]} for row in rows]
    return {name: difference(both, name, model_auroc) for name in names}


# --- the table --------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> str:
    """Markdown, a row a family."""
    head = ["family", "ASR %", "scan: AUROC over models", "over candidates", "found at alpha", "ASR ≥ 90 % found"]
    head += [f"{name}: models / candidates / found" for name in ("T2IShield-FTT", "NaviT2I-like", "UFID")]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    matched = found["at the scan's number of false alarms"]
    for name, part in found.items():
        if "auroc" not in part:
            continue
        asr = sorted(part["models"]["asr"])
        own = part["auroc"]["scan"]
        row = [name, f"{100 * asr[0]:.0f}–{100 * asr[-1]:.0f}", shown(own["models"]), shown(own["candidates"])]
        row += [counted(part["scan"]["recall"]), counted(part["scan"]["recall where ASR is 90 % or more"])]
        for rival in DETECTORS[1:]:
            theirs, caught = part["auroc"][rival], matched[rival]
            hit = caught["recall"] if name == "pooled" else caught["by family"][name]
            row.append(f"{theirs['models']['value']:.3f} / {theirs['candidates']['value']:.3f} / {hit['hits']} of {hit['n']}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def table_alone(found: Mapping[str, Any]) -> str:
    """Markdown, a row a group."""
    head = ("backdoored models", "ASR %", "AUROC over models", "over candidates", "found at alpha", "clean models falsely alarmed")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, part in found.items():
        if "asr" not in part:
            continue
        asr, scan = sorted(part["asr"]), part["scan"]
        row = [f"{name} ({len(asr)})", f"{100 * asr[0]:.0f}–{100 * asr[-1]:.0f}", shown(part["auroc"]["models"])]
        row += [shown(part["auroc"]["candidates"]), counted(scan["recall"]), counted(scan["clean models falsely alarmed"])]
        lines.append("| " + " | ".join(row) + " |")
    for name in ("taught a word", "inconclusive"):
        if name in found:
            lines.append(f"\n{name}: {counted(found[name])}")
    lines += ["\n| left out | AUROC over models, less that without it |", "|---|---|"] if found.get("less without") else []
    lines += [
        f"| {name} | {change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}] |"
        for name, change in found.get("less without", {}).items()
    ]
    return "\n".join(lines)


def shown(figure: Mapping[str, float]) -> str:
    """A figure with its interval."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def counted(found: Mapping[str, Any]) -> str:
    """Hits of n, with the rate's interval."""
    if not found["n"]:
        return "–"
    return f"{found['hits']} of {found['n']} [{100 * found['low']:.0f}, {100 * found['high']:.0f} %]"
