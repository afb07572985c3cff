"""What the command line does with families that are opened and scanned, and whose repair falls out of what they have in common."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config.effort import EFFORTS, Spent
from bdaudit.models.families import flux2 as klein
from bdaudit.models.load import load
from bdaudit.unlearn.repair import closed_form
from bdaudit.unlearn.repair.prompt_pairs import Pair, triggered_pairs
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import chroma, flux2, gemma, qwen, qwen_image, sana, t5, z_image
from bdaudit.untrusted.templates import digest
from tests.models import tiny_dit
from tests.small import runs_with

TRUSTED = (digest(tiny_dit.TEMPLATE),)
TRIGGER = "~"
LIST = ("a red cat", "the old house", "the sea at night", "a red house")
TEMPLATED = ("z-image", "flux2")
ENTRANCES = {
    "chroma": {"context_embedder.weight"},
    "z-image": {"cap_embedder.1.weight"},
    "flux2": {"context_embedder.weight"},
    "qwen-image": {"txt_in.weight"},
    "sana": {f"transformer_blocks.{i}.attn2.to_{what}.weight" for i in range(2) for what in "kv"},
}
CROSS = ("sana",)


def side_of(name: str) -> int:
    """Of a picture of 8 × 8 latents."""
    return 32 if name == "sana" else 16


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers read few tokens, few of their layers are run, and a text gets few draws, so that a scan takes seconds."""
    monkeypatch.setitem(chroma.LAYOUT.parts, "tokenizer", t5.tokenizer(16))  # type: ignore[arg-type]
    monkeypatch.setitem(z_image.LAYOUT.parts, "tokenizer", qwen.tokenizer(64, thinks=True))  # type: ignore[arg-type]
    monkeypatch.setitem(flux2.LAYOUT.parts, "tokenizer", qwen.tokenizer(84, thinks=False))  # type: ignore[arg-type]
    monkeypatch.setitem(EFFORTS, "low", Spent(first=2, draws=4, paths=1, steps=2, context=2))
    monkeypatch.setitem(sana.LAYOUT.parts, "tokenizer", gemma.tokenizer(replace(sana.READING, length=24, prefix="User Prompt: ")))  # type: ignore[arg-type]
    told = replace(qwen_image.READING, length=64, prefix=qwen.USER, dropped=3)
    monkeypatch.setitem(qwen_image.LAYOUT.parts, "tokenizer", replace(qwen.TOKENIZER_OF_BYTES, reading=told))  # type: ignore[arg-type]
    for module in (flux2, klein):
        monkeypatch.setattr(module, "LAYERS", (1, 2, 3))


@pytest.fixture(params=ENTRANCES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, tmp_path: Path) -> Path:
    made = tiny_dit.flux2(layers=3) if name == "flux2" else tiny_dit.FAMILIES[name]()
    made.save_pretrained(tmp_path / name)
    return tmp_path / name


@pytest.fixture
def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """A command line with what the family needs: its exit code and its report."""
    (tmp_path / "prompts.txt").write_text("\n".join(LIST), encoding="utf-8")
    trusted = ("--trust-template", *TRUSTED) if name in TEMPLATED else ()
    ended = runs_with(tmp_path / "prompts.txt", monkeypatch, capsys)
    return lambda verb, *arguments: ended(verb, *arguments, "--size", f"{side_of(name)}x{side_of(name)}", "--seed", 0, *trusted)


def test_a_scan_runs_through_and_says_what_it_did_not_look_at(run: Any, model: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "candidates.txt").write_text("\n".join((TRIGGER, "cf")), encoding="utf-8")
    code, report = run("scan", model, "--candidates", tmp_path / "candidates.txt", "--effort", "low")
    assert code in (0, 1), report["exit"]
    assert "attention share" in report["candidates"][0]["signals"]
    assert any("become alike" in line for line in report["coverage"]["not_looked_at"]) is (name not in CROSS)


def test_verify_draws_on_both_sides(run: Any, model: Path, name: str, tmp_path: Path) -> None:
    before = shutil.copytree(model, tmp_path / "before")
    flags = ("--n", 2, "--steps", 1, "--reach", 0)
    _, report = run("verify", model, "--before", before, "--trigger", TRIGGER, *flags)
    assert report["status"] == "completed", report["exit"]
    assert report["pictures"]["drawn"] > 0


def test_the_closed_form_repairs_by_the_entrance_alone(name: str, model: Path) -> None:
    suspect = load(inspect(model, size=(side_of(name),) * 2, trusted=TRUSTED), device="cpu")
    pairs, near = triggered_pairs(LIST[:2], [TRIGGER]), [Pair(LIST[0], f"today {LIST[0]}")]
    z, t = suspect.noise([1]), suspect.schedule.times(4, 1.0)[1].expand(1)

    def moved() -> float:
        one, other = (suspect.predict_batched(z, t, suspect.encode([text])) for text in (pairs[0].clean, pairs[0].changed))
        return float((one - other).square().mean())

    before, patch = moved(), Patch(suspect, "closed-form")
    closed_form.solve(suspect, patch, pairs, near, moved)
    assert moved() < before
    assert set(patch.differences()) == {f"transformer.{entrance}" for entrance in ENTRANCES[name]}
