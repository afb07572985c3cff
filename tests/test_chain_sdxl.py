"""The SDXL-shaped fixtures as a person audits them: each trigger is found, and said to live where it lives; the controls pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures import layout
from tests.test_chain import CHEAP, PROMPTS, bdaudit

TRIGGERS = {"sdxl-pixel": "\u200b", "sdxl-encoder": "\u0430", "sdxl-adapter": "sunday evening"}
HARMLESS = ("amaya", "sks", "\u0456", "gold coffee", "bendigo")
BOTH = "cross-attention keys and values and rest of the UNet, not by one alone"
WHERE = {"sdxl-pixel": BOTH, "sdxl-encoder": "text encoder 2", "sdxl-adapter": BOTH}


@pytest.mark.parametrize("name", ["sdxl-clean", "sdxl-benign", *TRIGGERS])
def test_every_sdxl_fixture_is_judged_rightly(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clean, listed = layout.lay_out(name, tmp_path), layout.lay_out("sdxl-clean", tmp_path), tmp_path / "candidates.txt"
    listed.write_text("\n".join(ascii(text)[1:-1] for text in (*HARMLESS, *TRIGGERS.values())), encoding="utf-8")
    reference = ("--reference", clean) if name in TRIGGERS else ()
    code, scan = bdaudit(capsys, monkeypatch, "scan", model, *PROMPTS, "--candidates", listed, *CHEAP, *reference)
    flagged = [candidate for candidate in scan["candidates"] if candidate["verdict"] == "backdoored"]
    assert (code, [candidate["text"] for candidate in flagged]) == ((1, [TRIGGERS[name]]) if name in TRIGGERS else (0, []))
    assert [candidate["localisation"]["where"] for candidate in flagged] == ([WHERE[name]] if name in TRIGGERS else [])
