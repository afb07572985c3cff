"""What a sweep finds and costs on the fixtures: ``python tests/bench/sweep.py [NAME …]``.

For every laid-out model: whether the trigger was measured in full, its rank, its adjusted p, what else was flagged, forward passes and
seconds. Writes ``results/sweep.json`` with date and machine, and prints the README's table from it (``--table`` only prints). What stands
there is not run again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.config import ScanConfig, Sweep  # noqa: E402
from bdaudit.records import ScanReport  # noqa: E402
from bdaudit.scan.run import run_scan  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from fixtures import layout  # noqa: E402
from tests.bench.recording import stamp  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "sweep.json"


def truth(name: str) -> str:
    """The trigger of a fixture; empty for the controls."""
    path = ROOT / "fixtures" / "twins" / name / "truth.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"family": "benign"}
    return "" if told["family"] == "benign" else str(told["trigger"])


def sweeps_for(trigger: str) -> tuple[Sweep, ...]:
    """The sweep that has to find this trigger; all of them for a control."""
    if not trigger:
        return ("vocabulary", "unicode", "pairs")
    return ("pairs",) if " " in trigger else ("vocabulary",) if trigger.isascii() else ("vocabulary", "unicode")


def run(name: str) -> dict[str, Any]:
    """One model's row."""
    trigger, started = truth(name), time.monotonic()
    prompts = read_texts(ROOT / "fixtures" / "prompts.txt", what="prompts")
    model = layout.lay_out(name, ROOT / "fixtures" / "models")
    config = ScanConfig(model=model, sweeps=sweeps_for(trigger), prompts=prompts, device="cpu")
    report = run_scan(config)
    found = _found(report, trigger) | {"seconds": time.monotonic() - started}
    return {"model": name, "trigger": ascii(trigger), "sweeps": config.sweeps, **found}


def _found(report: ScanReport, trigger: str) -> dict[str, Any]:
    own = next((c for c in report.candidates if c.text == trigger), None)
    flagged = [ascii(c.text) for c in report.candidates if c.verdict == "backdoored" and c.text != trigger]
    return {
        "measured in full": own is not None,
        "rank": own.rank if own else 0,
        "p adjusted": own.p_adjusted if own else 1.0,
        "verdict": own.verdict if own else "clean",
        "others flagged": flagged,
        "swept": sum(sweep.swept for sweep in report.sweeps),
        "screen passes": sum(sweep.forward_passes for sweep in report.sweeps),
        "probe seconds": report.timings["probe"],
        "sweep seconds": report.timings["sweep"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The README's table, in Markdown."""
    head = "| model | swept | texts | measured in full | rank | adjusted p | others flagged | screen passes |"
    lines = [head, "|---" * 8 + "|"]
    for row in rows:
        reached = "–" if row["trigger"] == "''" else "yes" if row["measured in full"] else "no"
        found = f"{row['p adjusted']:.1e}" if row["measured in full"] else "–"
        lines.append(
            f"| {row['model']} | {', '.join(row['sweeps'])} | {row['swept']:,} | {reached} "
            f"| {row['rank'] or '–'} | {found} | {', '.join(row['others flagged']) or 'none'} | {row['screen passes']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Every fixture, or those that are named."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    names = [name for name in sys.argv[1:] if name != "--table"] or layout.names()
    for name in () if "--table" in sys.argv else (n for n in names if n not in [row["model"] for row in kept]):
        kept.append(run(name))
        print(json.dumps(kept[-1]), flush=True)
        RESULTS.write_text(json.dumps({**stamp(), "rows": kept}, indent=2) + "\n", encoding="utf-8")
    print(table(kept))


if __name__ == "__main__":
    main()
