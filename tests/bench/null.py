"""What the null keeps: smallest adjusted p on clean models, with all controls in it, and without those that stand apart.

    python tests/bench/null.py [OUT.json]

The clean fixture and the one that was taught a word, by several seeds each, on the fixtures' list. Both rules judge the same measurements.
The run goes on where OUT.json stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from bdaudit.config import ScanConfig  # noqa: E402
from bdaudit.scan.look import Looking  # noqa: E402
from bdaudit.scan.run import run_scan  # noqa: E402
from bdaudit.scan.stratum import Stratum  # noqa: E402
from bdaudit.scan.tiers import FLOOR, JOINT_PRIOR, JOINT_SHARE  # noqa: E402
from bdaudit.stats import ExponentialTail  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from fixtures.layout import lay_out  # noqa: E402
from tests.bench.power.ablation import watched  # noqa: E402
from tests.bench.recording import Cells, rounded  # noqa: E402

FIXTURES, RESULTS = ROOT / "fixtures", ROOT / "tests" / "bench" / "results" / "null.json"
SEEDS = {"clean": range(8), "benign": range(6)}


def left_out(stratum: Stratum) -> ExponentialTail:
    """The tail without the controls that stand apart from it."""
    scores = stratum.last.tier.scores
    apart = ExponentialTail.stragglers(scores, 1 / (10 * len(scores)))
    return ExponentialTail.fit(np.delete(np.array(scores), apart), JOINT_SHARE, JOINT_PRIOR)


def smallest(looking: Looking, texts: dict[str, str]) -> dict[str, Any]:
    """By both rules, the text with the smallest p of those that were followed as the controls were, adjusted for all; and the controls."""
    kept, without = dict[str, float](), dict[str, float]()
    tails = {nothing: left_out(stratum) for nothing, stratum in looking.strata.items()}
    for text, kind in texts.items():
        stratum = looking._for(kind)
        if text in looking.paths and stratum.score(text, kind) >= stratum.is_followed:
            reached = stratum.reached(text, kind, looking.paths[text])
            kept[text] = looking.both(text, kind, stratum.last.p(reached, selected=True))
            without[text] = looking.both(text, kind, tails[stratum is looking.strata[True]].p(stratum.last.score(reached)))
    top = {
        name: sorted(s for s in stratum.last.tier.scores if s > FLOOR)[-2:]
        for name, stratum in zip(("words", "others"), looking.strata.values(), strict=True)
    }
    rules = {name: min(p.items(), key=lambda pair: pair[1]) for name, p in (("kept", kept), ("left out", without))}
    return {name: {"text": ascii(text), "p adjusted": min(1.0, len(texts) * p)} for name, (text, p) in rules.items()} | {
        "loudest controls": top
    }


def main() -> None:
    """Scan, and write."""
    torch.set_num_threads(1)
    cells = Cells(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
    for name, seeds in SEEDS.items():
        for seed in seeds:
            if f"{name}, seed {seed}" in cells.cells:
                continue
            given = {"candidates": read_texts(FIXTURES / "candidates.txt"), "prompts": read_texts(FIXTURES / "prompts.txt")}
            config = ScanConfig(model=lay_out(name, FIXTURES / "models"), seed=seed, **given)  # type: ignore[arg-type]
            with watched() as seen:
                report = run_scan(config)
            texts = {record.text: record.kind for record in report.candidates if not record.same_as}
            cell = {
                "exit": report.exit.code,
                "texts": len(texts),
                "passes": seen[-1].context.suspect.forward_passes,
                **smallest(seen[-1], texts),
            }
            cells.put(f"{name}, seed {seed}", rounded(3, cell))
            print(name, seed, cell, flush=True)


if __name__ == "__main__":
    main()
