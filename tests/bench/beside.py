"""What a sweep by crowds rests on: ``python tests/bench/beside.py [PATH]``.

Each two-part trigger of the fixtures, and 200 random pairs, in the prompt that a sweep of pairs uses, and with the two parts' own states,
encoded apart, beside that prompt's: the mean square of what the prediction changes by, in each of the draws that crowds are looked at in.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bdaudit.config import ScanConfig  # noqa: E402
from bdaudit.config.effort import EFFORTS  # noqa: E402
from bdaudit.kept_state import State  # noqa: E402
from bdaudit.measure.draws import make_draws  # noqa: E402
from bdaudit.measure.splicing import halves  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.models.text import Ids  # noqa: E402
from bdaudit.models.tokens import content_ids  # noqa: E402
from bdaudit.progress import silent  # noqa: E402
from bdaudit.scan.context import ScanContext  # noqa: E402
from bdaudit.scan.sweep import two_part  # noqa: E402
from bdaudit.scan.sweep.swept_texts import joined_words, phrases  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from tests.bench.end_to_end import FIXTURES, open_model  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402

NAMES = ("object", "closed-form", "fixed-image")
PAIRS = 200


def compared(name: str) -> dict[str, Any]:
    """One model: mean squares by draw, the trigger's and the random pairs' median and 95th percentile."""
    model = open_model(name)
    suspect, config = load(inspect(model.path), device="cpu"), ScanConfig(model=model.path)
    n, prompts = EFFORTS[config.effort].draws, read_texts(FIXTURES / "prompts.txt")
    draws = make_draws(suspect, prompts, n, config.guidance, config.seed)
    source = phrases if " " in model.trigger else joined_words
    pairing, rng = source(suspect.tokenizer, config.pair_words), np.random.default_rng(0)
    context = ScanContext(suspect, draws, State(None, ""), silent, config.seed)
    context = replace(context, draws=two_part._quiet(context))
    drawn = [(int(a), int(b)) for a, b in zip(rng.choice(pairing.firsts, PAIRS), rng.choice(pairing.seconds, PAIRS), strict=True)]
    pairs = [content_ids(suspect.tokenizer, model.trigger), *drawn]
    inside = torch.stack([_inside(context, d, pairs) for d in range(len(context.draws))])
    beside = two_part._predicted(context, two_part._encoded(context, pairs))
    return {"model": name, "in the prompt": _told(context, inside), "beside it": _told(context, beside)}


def _inside(context: ScanContext, d: int, pairs: Sequence[tuple[int, ...]]) -> Tensor:
    """(N, C·H·W): what is predicted in one draw with each pair before its prompt."""
    suspect, draws, n = context.suspect, context.draws, len(pairs)
    before, after = halves(suspect.tokenizer, draws.prompts[d], "prefix")
    within = suspect.encode_ids(Ids.cat([suspect.text.spliced(before, pair, after) for pair in pairs]))
    return suspect.predict_batched(draws.latents[d].expand(n, -1, -1, -1), draws.timesteps[d].expand(n), within).float().flatten(1)


def _told(context: ScanContext, predictions: Tensor) -> list[dict[str, float]]:
    change = (predictions - context.draws.plain[:, None]).square().mean(-1).double().numpy()
    return [{"trigger": row[0], "median": float(np.median(row[1:])), "95 %": float(np.quantile(row[1:], 0.95))} for row in change]


if __name__ == "__main__":
    record(rounded(4, {"models": [compared(name) for name in NAMES]}), 1)
