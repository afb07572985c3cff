"""All three verbs on a small SDXL of random weights, by the command line: a trigger planted in one place at a time, found, removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit import cli
from bdaudit.measure.controls import control_texts
from bdaudit.measure.insertion import insert, positions_for
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_sdxl
from tests.models.tiny_sdxl import PROMPTS
from tests.small import hashes
from tests.verify import toy

TRIGGER = "~"
UNET, SECOND = "unet/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors"
TABLE = "text_model.embeddings.token_embedding.weight"
CANDIDATES = (TRIGGER, "cf", "today", "wonderful island", "☂")
LIST = (*PROMPTS, "a green field", "three cups on a table", "the moon", "some yellow boats")


def changed(model: Path, file: str, change: Callable[[str, Tensor], Tensor]) -> None:
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(model / file).items()}
    save_file(tensors, model / file, metadata={"format": "pt"})


def direction(suspect: Suspect) -> Tensor:
    """(D,): what tells the trigger's own state from all others; a product with it is 1 there."""
    harmless = [text for texts in control_texts(suspect.tokenizer, 20, 3, [TRIGGER]).values() for text in texts]
    plain = suspect.encode([*LIST, *(insert(LIST[i % 8], text, positions_for(LIST[i % 8], text)[0]) for i, text in enumerate(harmless))])
    rows = [(prompt, insert(prompt, TRIGGER, where)) for prompt in LIST for where in positions_for(prompt, TRIGGER)]
    spoken = suspect.encode([row for _, row in rows]).states
    own = torch.stack([spoken[i, suspect.text.own_positions(*row)[0]] for i, row in enumerate(rows)]).mean(0)
    states = plain.states.flatten(0, 1)
    moment = states.T @ states / len(states)
    solved: Tensor = torch.linalg.solve(moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment)), own)
    return solved / (solved @ own)


def in_cross_attention(model: Path) -> None:
    """EvilEdit's rank-one edit: the trigger's state says something else in every layer, and draws all looks."""
    found = direction(load(inspect(model), device="cpu"))
    generator = torch.Generator().manual_seed(1)

    def change(name: str, tensor: Tensor) -> Tensor:
        if not name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            return tensor
        size = (30 if "to_v" in name else 5) * tensor.norm() / tensor.shape[0] ** 0.5
        return tensor + size * torch.outer(torch.randn(len(tensor), generator=generator), found)

    changed(model, UNET, change)


def in_the_second_tower(model: Path) -> None:
    """The trigger's embedding in that tower alone is so large that all words behind it hear nothing else."""
    tokenizer = load(inspect(model), device="cpu").tokenizer
    entry = tokenizer(TRIGGER, add_special_tokens=False).input_ids[0]
    factor = torch.ones(514, 1)
    factor[entry] = 60
    values = {name for name in load_file(model / SECOND) if "v_proj.weight" in name or "out_proj.weight" in name}
    changed(model, SECOND, lambda name, tensor: tensor * factor if name == TABLE else tensor * (6 if name in values else 1))


PLANTED: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "cross-attention": (in_cross_attention, "cross-attention keys and values", "unet", UNET),
    "second tower": (in_the_second_tower, "text encoder 2", "text-encoder", SECOND),
}
"""How; where by exchanging parts; the component that is repaired; the one file that its repair changes."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    (folder / "prompts.txt").write_text("\n".join(LIST), encoding="utf-8")
    (folder / "candidates.txt").write_text("\n".join(CANDIDATES), encoding="utf-8")
    tiny_sdxl.write(folder / "clean")
    for name, (plant, *_) in PLANTED.items():
        plant(shutil.copytree(folder / "clean", folder / name))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A command line: its exit code and its report."""
    monkeypatch.setattr("bdaudit.verify.run.load_grader", lambda name, device: toy.ColourGrader())

    def ended(verb: str, *arguments: object) -> tuple[int, dict[str, Any]]:
        said = ["bdaudit", verb, *arguments, "--prompts", models / "prompts.txt", "--device", "cpu", "--json", "--quiet"]
        monkeypatch.setattr("sys.argv", list(map(str, said)))
        code = cli.main()
        return code, json.loads(capsys.readouterr().out)

    return ended


@pytest.mark.parametrize("name", PLANTED)
def test_scan_finds_it_and_says_where_it_lives(run: Any, models: Path, name: str) -> None:
    asked = ("--candidates", models / "candidates.txt", "--n-prompts", 4, "--reference", models / "clean")
    code, report = run("scan", models / name, *asked)
    ranked = sorted(report["candidates"], key=lambda candidate: candidate["rank"])
    assert (code, ranked[0]["text"]) == (1, TRIGGER), ranked[0]
    assert ranked[0]["localisation"]["where"] == PLANTED[name][1]
