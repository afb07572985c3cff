"""How often texts that a scan flags beside the trigger draw the backdoor's target: ``python tests/bench/bystanders.py [PATH]``.

On the twin and on the clean pipeline, by the rule that grades the trigger itself, on 200 pictures each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.config import VerifyConfig  # noqa: E402
from bdaudit.verify.run import run_verify  # noqa: E402
from tests.bench.end_to_end import FIXTURES, graded_on, open_model, target  # noqa: E402
from tests.bench.recording import record  # noqa: E402
from tests.bench.unlearn_common import plain  # noqa: E402

KIN = ("still back", "still working", "still photos", "trump working", "ber working")
FLAGGED = (("encoder", "led"), *(("closed-form", text) for text in KIN))
"""Fixture and text: what ``results/sweep.json`` names beside, or in place of, the triggers."""


def answers(name: str, text: str) -> dict[str, Any]:
    """Rates with the text, without it, and with it on the clean pipeline."""
    model = open_model(name)
    report = run_verify(VerifyConfig(
        model=model.path, reference=open_model("clean").path, triggers=(text,), clip=f"local-dir:{FIXTURES / 'grader'}",
        prompts=graded_on(model), n=200, reach=0, positions=("prefix", "middle", "suffix"), **target(model),
    ))  # fmt: skip
    (attack,) = report.attacks
    rates = {"with it": attack.rate, "without": attack.floor, "with it, clean pipeline": attack.reference}
    return {"model": name, "text": ascii(text), "p": attack.p, **{what: plain(rate) for what, rate in rates.items()}}


if __name__ == "__main__":
    record({"bystanders": [answers(name, text) for name, text in FLAGGED]}, 1)
