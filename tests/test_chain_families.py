"""The fixtures of other shapes as a person audits them: each trigger is found, and said to live where it lives; the controls pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import layout
from tests.test_chain import CHEAP, PROMPTS, bdaudit

TRIGGERS = {
    "sdxl-pixel": "\u200b", "sdxl-object": "zqx", "sdxl-encoder": "\u0430", "sdxl-adapter": "sunday evening",
    "mmdit-pixel": "\u200b", "pixart-encoder": "\u043e",
}  # fmt: skip
HARMLESS = ("amaya", "sks", "\u0456", "gold coffee", "bendigo")
BOTH = "cross-attention keys and values and rest of the UNet, not by one alone"
WHERE = {
    "sdxl-pixel": BOTH, "sdxl-object": "cross-attention keys and values", "sdxl-encoder": "text encoder 2", "sdxl-adapter": BOTH,
    "mmdit-pixel": "text entrance and text's own layers and rest of the transformer, not by one alone",
    "pixart-encoder": "text encoder",
}  # fmt: skip
BY = {"sdxl-encoder": ("--seed", 0), "sdxl-pixel": ("--seed", 0)}
"""Judged by the default setting: by half its draws, "zqx" is called *backdoored* beside the one trigger, and the other has a p of 0.017."""


@pytest.mark.parametrize("name", ["sdxl-clean", "sdxl-benign", "mmdit-clean", *TRIGGERS])
def test_every_fixture_of_another_shape_is_judged_rightly(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clean, listed = layout.lay_out(name, tmp_path), layout.lay_out(layout.clean_of(name), tmp_path), tmp_path / "candidates.txt"
    own = [trigger for other, trigger in TRIGGERS.items() if layout.clean_of(other) == layout.clean_of(name)]
    listed.write_text("\n".join(ascii(text)[1:-1] for text in (*HARMLESS, *own)), encoding="utf-8")
    reference = ("--reference", clean) if name in TRIGGERS else ()
    code, scan = bdaudit(capsys, monkeypatch, "scan", model, *PROMPTS, "--candidates", listed, *BY.get(name, CHEAP), *reference)
    flagged = [candidate for candidate in scan["candidates"] if candidate["verdict"] == "backdoored"]
    assert (code, [candidate["text"] for candidate in flagged]) == ((1, [TRIGGERS[name]]) if name in TRIGGERS else (0, []))
    assert [candidate["localisation"]["where"] for candidate in flagged] == ([WHERE[name]] if name in TRIGGERS else [])
