"""What a merge is judged by: distances on each prompt's own latents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bdaudit.unlearn.merging import findings

TEXT = torch.tensor([0, 1, 0, 1, 0, 1, 2])
"""Of each row; the last is the empty text's."""


@pytest.fixture
def lessons() -> Any:
    """Two contributors, two prompts and the empty one; a row is one number."""
    plain = torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 50.0]).view(7, 1, 1, 1)
    return SimpleNamespace(
        texts=("a", "b", ""), text=TEXT, z=torch.zeros(7, 1, 1, 1), plain=plain, taught=torch.zeros(2, 7, 1, 1, 1),
        scale=torch.tensor(2.0), distance=torch.tensor([1.0, 4.0]),
    )  # fmt: skip


def test_nearness_is_of_each_prompts_own_rows(monkeypatch: pytest.MonkeyPatch, lessons: Any) -> None:
    monkeypatch.setattr(findings.adversary, "predicted", lambda blend, lessons, rows: 2 * lessons.plain[rows])
    merged, base = findings.nearness(SimpleNamespace(suspect=SimpleNamespace(batch_size=2)), lessons)  # type: ignore[arg-type]
    assert torch.allclose(base, torch.tensor([[1 / 2, 9 / 2], [1 / 8, 9 / 8]]))
    assert torch.allclose(merged, 4 * base)


@pytest.mark.parametrize(
    ("own", "merged", "said"),
    [
        (True, True, "carries 'x', and the merge inherits it"),
        (True, False, "carries 'x', the merge does not"),
        (False, True, "does not carry 'x', the merge spreads it"),
        (False, False, "does not carry 'x', nor does the merge"),
    ],
)
def test_whether_a_contributor_and_the_merge_answer_a_trigger(own: bool, merged: bool, said: str) -> None:
    def effect(answers: bool) -> Any:
        return SimpleNamespace(text="x", within=lambda: not answers)

    assert findings.backdoor([effect(own)], {"x": effect(merged)}) == said
    assert findings.backdoor([effect(own)], {}) == ""
