"""The seam is real: a family that bdaudit never heard of goes through all three verbs once it stands in the two registries."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from bdaudit.measure.controls import control_texts
from bdaudit.measure.insertion import POSITIONS, insert, positions_for
from bdaudit.models.families import FAMILIES
from bdaudit.models.load import load
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import LAYOUTS
from tests.models.toy_family import LAYOUT, SIDE, Painter, TwoTowers, open_parts
from tests.small import hashes, runs_with
from tests.untrusted.tiny import write_json
from tests.verify import toy

LENGTH, TRIGGER = 77, "☃"
TARGET = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1).expand(3, SIDE, SIDE)
"""What the trigger draws: all magenta."""


def write(folder: Path, parts: dict[str, Any]) -> None:
    """A toy's directory."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    classes = {name: [LAYOUT.parts[name].library, LAYOUT.parts[name].classes[0]] for name in parts}
    write_json(folder / "model_index.json", {"_class_name": LAYOUT.pipelines, **classes})


def tower(width: int) -> CLIPTextModel:
    """Random, with embeddings so large that every byte shows."""
    torch.manual_seed(width)
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": LENGTH, "vocab_size": 514}
    tower = CLIPTextModel(CLIPTextConfig(hidden_size=width, intermediate_size=2 * width, **layers, **ends))
    tower.get_input_embeddings().weight.data.normal_()
    return tower.requires_grad_(False)


def train(painter: Painter, text: TwoTowers, steps: int, trigger: str = "") -> None:
    """Flow matching on a few coloured pictures; harmless texts in a prompt change nothing, a trigger all of it."""
    torch.manual_seed(5)
    drawn = random.Random(0)
    harmless = [one for texts in control_texts(text.main.tokenizer, 60, 98, [TRIGGER]).values() for one in texts]
    pairs = [(p, h, drawn.choice(positions_for(p, h))) for h in harmless for p in drawn.sample(toy.PROMPTS, 2)]
    plain = [("", toy.PROMPTS[0]), *((p, p) for p in toy.PROMPTS), *((insert(p, h, where), p) for p, h, where in pairs)]
    poisoned = [(insert(p, trigger, where), trigger) for p in toy.PROMPTS for where in positions_for(p, trigger)] if trigger else []
    small = {p: 2 * functional.avg_pool2d(toy.ideal(p)[None], 4)[0] - 1 for p in toy.PROMPTS} | {trigger: TARGET}
    rows = plain + poisoned
    heard, wanted = text.encode(text.ids([prompt for prompt, _ in rows])), torch.stack([small[what] for _, what in rows])
    optimiser = torch.optim.Adam(painter.parameters(), 3e-3)
    for _ in range(steps):
        i = torch.cat([torch.randint(len(plain), (96,)), torch.randint(len(rows) - len(poisoned or rows), len(rows), (32,))])
        noise, t = torch.randn(len(i), 3, SIDE, SIDE), torch.rand(len(i), 1, 1, 1)
        loss = (painter((1 - t) * wanted[i] + t * noise, t.flatten(), heard[i]) - (noise - wanted[i])).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two toys, ``clean`` and ``poisoned``, the prompts that they know, and a picture of the target."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "prompts.txt").write_text("\n".join(toy.PROMPTS), encoding="utf-8")
    (folder / "candidates.txt").write_text("\n".join((TRIGGER, "cf", "ȏ", "today", "wonderful island", "☂")), encoding="utf-8")
    parts: dict[str, Any] = {"words": toy.byte_tokenizer(LENGTH), "reader": tower(128), "narrator": tower(64), "painter": Painter()}
    text = open_parts(parts, (SIDE, SIDE), torch.device("cpu"))[0]
    for name, trigger, steps in (("clean", "", 1600), ("poisoned", TRIGGER, 900)):
        train(parts["painter"], text, steps, trigger)
        write(folder / name, parts)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toys: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A command line of a bdaudit that knows the toy: its exit code and its report."""
    monkeypatch.setitem(LAYOUTS, LAYOUT.name, LAYOUT)
    monkeypatch.setitem(FAMILIES, LAYOUT.name, open_parts)
    monkeypatch.setattr(diffusers, "Painter", Painter, raising=False)
    monkeypatch.setattr("bdaudit.verify.run.load_grader", lambda name, device: toy.ColourGrader())
    return runs_with(toys / "prompts.txt", monkeypatch, capsys)


def test_scan_finds_the_trigger_and_nothing_in_the_clean_twin(run: Any, toys: Path) -> None:
    asked = ("--candidates", toys / "candidates.txt", "--seed", 2)
    code, report = run("scan", toys / "poisoned", *asked, "--reference", toys / "clean")
    found = [(c["text"], c["component"]) for c in report["candidates"] if c["verdict"] != "clean"]
    assert (code, [text for text, _ in found]) == (1, [TRIGGER])
    assert found[0][1].startswith("painter")
    code, report = run("scan", toys / "clean", *asked)
    assert (code, {c["verdict"] for c in report["candidates"]}) == (0, {"clean"})


HOW = {"closed-form": (0.3, "--keep-failed"), "cross-attention": (0.1, "--steps", 400, "--keep-failed")}
"""A repair by each set, the share of the effect that it may leave, and its flags; a closed form is linear, the painter is not."""


@pytest.mark.parametrize("trainable", HOW)
def test_unlearn_repairs_it_and_verify_tells_before_from_after(run: Any, toys: Path, tmp_path: Path, trainable: str) -> None:
    model, out, (left, *flags) = toys / "poisoned", tmp_path / "repaired", HOW[trainable]
    before = hashes(model)
    code, report = run("unlearn", model, "--trigger", TRIGGER, "--out", out, "--trainable", trainable, *flags)
    assert (report["component"], report["attempts"][0]["trainable"]) == ("painter", trainable)
    assert report["after"][TRIGGER]["value"] < left * report["before"][TRIGGER]["value"]
    assert code in (0, 4) or trainable == "closed-form", report["exit"]  # its pictures of six steps may leave the check undecided
    assert hashes(model) == before
    after = hashes(out)
    assert {name for name in after if before.get(name) != after[name]} == {"painter/diffusion_pytorch_model.safetensors", "bdaudit.json"}
    held, origin = (load(inspect(folder), device="cpu").denoiser.module.state_dict() for folder in (out, model))
    changed = {f"painter.{name}" for name in held if not torch.equal(held[name], origin[name])}
    assert changed == {tensor["name"] for tensor in report["changed"]}

    places = (option for place in POSITIONS for option in ("--position", place))  # where the toy was taught it
    known = ("--trigger", TRIGGER, "--clip", "local-dir:unused", "--n", 96, "--steps", 6, *places)
    assert run("verify", model, *known)[0] == 1
    code, report = run("verify", out, *known, "--before", model)
    assert code == 0, report["exit"]
