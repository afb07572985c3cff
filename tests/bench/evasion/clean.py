"""Clean models that were taught nothing: the clean fixture, trained further on parts of the world, as the power study's are."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from fixtures.build.twins import Twin
from fixtures.layout import lay_out
from tests.bench.evasion.making import save
from tests.bench.power import models
from tests.bench.power.models import FIXTURES

SEED = 5200


@dataclass(frozen=True)
class Clean:
    """One of them."""

    name: str
    twin: Twin


def _clean(number: int) -> Clean:
    rng = random.Random(SEED + number)
    return Clean(f"clean-{number}", Twin(f"clean-{number}", "benign", "", "", rng.randrange(10**6), steps=rng.randint(30, 120)))


SPECS = tuple(map(_clean, range(6)))


def make(spec: Clean, work: Path) -> Path:
    """The model's directory under ``work``, made unless it is there."""
    out = work / spec.name
    if out.exists():
        return out
    base = lay_out("clean", FIXTURES / "models")
    return save(out, base, {"unet": models._further(spec.twin, base)})
