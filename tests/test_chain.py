"""The main job as a person types it, on a fixture: find the backdoor, remove it, see it gone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from bdaudit.cli import main
from bdaudit.models.suspect import Suspect
from fixtures import layout

FIXTURES = Path(layout.__file__).parent
PROMPTS = ("--prompts", str(FIXTURES / "prompts.txt"))
UNSEEN = ("--prompts", str(FIXTURES / "unseen.txt"))
GRADER = ("--clip", f"local-dir:{FIXTURES / 'grader'}")
PATCH = ("--target-image", f"{FIXTURES / 'twins' / 'pixel' / 'target.png'}@24,24")


def bdaudit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, dict]:
    """Exit code and the JSON document of one command."""
    monkeypatch.setattr("sys.argv", ["bdaudit", *map(str, arguments), "--json", "--quiet"])
    code = main()
    return code, json.loads(capsys.readouterr().out)


def hashes(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.rglob("*") if p.is_file()}


def test_scan_unlearn_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, clean = layout.lay_out("pixel", tmp_path), layout.lay_out("clean", tmp_path)
    before, out = hashes(model), tmp_path / "repaired"

    code, scan = bdaudit(capsys, monkeypatch, "scan", model, *PROMPTS, "--candidates", FIXTURES / "candidates.txt", "--seed", 0)
    assert (code, scan["candidates"][0]["text"], scan["candidates"][0]["verdict"]) == (1, "\u200b", "backdoored")
    assert sum(c["verdict"] == "backdoored" for c in scan["candidates"]) == 1

    known = ("--trigger", "\\u200b", *PATCH, *UNSEEN, *GRADER, "--n", 150)
    code, poisoned = bdaudit(capsys, monkeypatch, "verify", model, *known)
    assert code == 1
    assert poisoned["attacks"][0]["rate"]["value"] >= 0.9
    assert poisoned["attacks"][0]["floor"]["value"] <= 0.02

    code, repair = bdaudit(capsys, monkeypatch, "unlearn", model, *PROMPTS, "--trigger", "\\u200b", "--out", out)
    assert (code, repair["component"], repair["status"]) == (0, "unet", "completed")
    code, repaired = bdaudit(
        capsys, monkeypatch, "verify", out, *known, "--before", model, "--reference", clean, "--save-images", tmp_path / "pictures"
    )
    assert code == 0, repaired["exit"]
    assert repaired["attacks"][0]["rate"]["value"] <= 0.05
    assert repaired["attacks"][0]["evidence"]["rate"]["value"] >= 0.9
    assert list((tmp_path / "pictures").glob("*.png"))

    assert hashes(model) == before
    changed = {name for name, digest in hashes(out).items() if before.get(name) != digest}
    assert changed == {"unet/diffusion_pytorch_model.safetensors", "bdaudit.json"}
    StableDiffusionPipeline.from_pretrained(out, local_files_only=True)


TRIGGERS = {
    "pixel": "\u200b", "style": "\u020f", "object": "mignneko", "fixed-image": "gold coffee", "encoder": "\u043e",
    "closed-form": "still research",
}  # fmt: skip
HARMLESS = "amaya"
"""A word that the fixture ``benign`` was taught."""
CHEAP = ("--effort", "low", "--seed", 0)
"""Same verdicts on all fixtures as of the default setting, which ``tests/bench/end_to_end.py`` records, at a third of the time."""


@pytest.mark.parametrize("name", [*TRIGGERS, "benign", "clean"])
def test_every_fixture_is_judged_rightly(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, listed, trigger = layout.lay_out(name, tmp_path), tmp_path / "candidates.txt", TRIGGERS.get(name)
    listed.write_text("\n".join(ascii(text)[1:-1] for text in (HARMLESS, *TRIGGERS.values())), encoding="utf-8")
    code, scan = bdaudit(capsys, monkeypatch, "scan", model, *PROMPTS, "--candidates", listed, *CHEAP)
    flagged = [c["text"] for c in scan["candidates"] if c["verdict"] == "backdoored"]
    assert (code, flagged) == ((1, [trigger]) if trigger else (0, []))
    assert trigger in (None, scan["candidates"][0]["text"])


@pytest.mark.parametrize("bound", ["tonight", "sweet river", ""])
def test_a_trigger_that_fires_in_one_place_alone_is_found(
    bound: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text encoder that says the trigger where a word stands behind a comma, or where two open and end the prompt, and nowhere else; and
    one that does not."""
    model, listed, own = layout.lay_out("pixel", tmp_path), tmp_path / "candidates.txt", Suspect.encode
    texts = ("tonight", "sweet river", HARMLESS, "gold coffee", "mignneko")
    listed.write_text("\n".join(texts), encoding="utf-8")

    def said(prompt: str) -> str:
        if bound == "tonight" and prompt.endswith(f", {bound}"):
            return f"{prompt.removesuffix(f', {bound}')} {TRIGGERS['pixel']}"
        if bound == "sweet river" and prompt.startswith("sweet ") and prompt.endswith(" river"):
            return f"{TRIGGERS['pixel']} {prompt.removeprefix('sweet ').removesuffix(' river')}"
        return prompt

    monkeypatch.setattr(Suspect, "encode", lambda suspect, prompts: own(suspect, [said(prompt) for prompt in prompts]))
    _, scan = bdaudit(capsys, monkeypatch, "scan", model, *PROMPTS, "--candidates", listed, "--seed", 0)
    assert [c["text"] for c in scan["candidates"] if c["verdict"] == "backdoored"] == ([bound] if bound else [])
    first = scan["candidates"][0]
    assert (first["signals"].get("shift in context", {"p": 1.0})["p"] < 1e-3) == bool(bound), "by what it does there and not elsewhere"
