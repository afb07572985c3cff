"""How far apart fine-tunes of one base lie, and models trained from scratch: ``python tests/bench/distances.py WORK [PATH]``.

WORK is the power study's folder. The distance is the one by which `unlearn --merge-with` refuses a model that is no fine-tune of the base.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from diffusers import UNet2DConditionModel  # noqa: E402

from bdaudit.unlearn.merging.contributors import apart  # noqa: E402
from fixtures.layout import names  # noqa: E402
from tests.bench.end_to_end import open_model  # noqa: E402
from tests.bench.power.bases import BASES, FRESH  # noqa: E402
from tests.bench.power.models import plan  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402


def main() -> None:
    """Bases of one shape against each other; the power study's models against their base; the fixtures' twins against theirs."""
    work = Path(sys.argv[1])

    def denoiser(folder: Path) -> Any:
        return UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)

    origin = {base.name: denoiser(work / f"base-{base.name}") for base in (*BASES, *FRESH)}
    scratch = {
        f"{one.name}, {other.name}": apart(origin[one.name], origin[other.name])
        for one, other in combinations((*BASES, *FRESH), 2)
        if (one.channels, one.attends) == (other.channels, other.attends)
    }
    tuned = {spec.name: apart(denoiser(work / "models" / spec.name), origin[spec.base]) for spec in plan() if spec.twin.component == "unet"}
    clean = open_model("clean").path
    twins = {name: apart(denoiser(open_model(name).path), denoiser(clean)) for name in names() if name not in ("clean", "encoder")}
    record({"UNets": rounded(4, {"from scratch": scratch, "study": tuned, "twins": twins})}, 2)


if __name__ == "__main__":
    main()
