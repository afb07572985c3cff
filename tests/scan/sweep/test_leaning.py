"""What soft choices lean to, by hand; that a pair has to pull more than its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.scan.sweep.leaning import CHARACTERS, ENTRIES, MORE, PAIRS, leaning, named
from bdaudit.scan.sweep.soft_choice import Choices, drawn
from bdaudit.scan.sweep.standing import Array
from bdaudit.scan.sweep.swept_texts import Probe, vocabulary


def test_leaning_takes_the_weight_and_the_value_together() -> None:
    logs = torch.tensor([[[0.9, 0.1, 0.0]], [[0.2, 0.3, 0.5]]]).log()
    order = leaning([Choices(logs, torch.tensor([0.0, 5.0]))])
    assert order == [2, 1, 0]
    assert leaning([Choices(logs[:1], torch.tensor([0.0]))]) == [0, 1], "an entry without any weight, a special one, is not named"


def test_a_pair_has_to_pull_more_than_its_parts(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    z, q = (tokenizer.get_vocab()[piece] for piece in ("z", "q</w>"))
    logs = drawn(tiny_suspect, 1, 2, 0).clone()
    logs[0, 0, z] = logs[0, 1, q] = 0.0
    texts = vocabulary(tokenizer).probes
    assert content_ids(tokenizer, "zq") == (z, q)
    for together, expected in ((MORE + 0.1, True), (MORE - 0.1, False)):

        def pulls(number: int, probes: Sequence[Probe], kind: str, both: float = together) -> Array:
            return np.array([[both if probe.ids == (z, q) else 0.0 for probe in probes]] * 2)

        kinds = named(tokenizer, pulls, [Choices(logs, torch.tensor([1.0]))], texts)
        assert list(kinds) == [ENTRIES, CHARACTERS, PAIRS]
        assert ("zq" in {probe.text for probe in kinds[PAIRS][1]}) is expected
        assert kinds[ENTRIES][0] == len(texts)
