"""All three verbs on a small SDXL of random weights, by the command line: a trigger planted in one place at a time, found, removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.measure.controls import control_texts
from bdaudit.measure.insertion import insert, positions_for
from bdaudit.models.families.sdxl import POOLED_ENTRANCE
from bdaudit.models.load import load
from bdaudit.models.lora import applied, read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.loop import Course
from bdaudit.unlearn.repair import closed_form, train_text_encoder
from bdaudit.unlearn.repair.prompt_pairs import Pair, targets, triggered_pairs
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_sdxl
from tests.models.tiny_sdxl import PROMPTS
from tests.small import runs_with
from tests.verify import toy

TRIGGER = "~"
UNET, SECOND = "unet/diffusion_pytorch_model.safetensors", "text_encoder_2/model.safetensors"
TABLE = "text_model.embeddings.token_embedding.weight"
STEPS = 150
"""Of planting a trigger in a tower."""
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
    entry = load(inspect(model), device="cpu").tokenizer(TRIGGER, add_special_tokens=False).input_ids[0]
    factor = torch.ones(514, 1)
    factor[entry] = 60
    louder = {name for name in load_file(model / SECOND) if "v_proj.weight" in name or "out_proj.weight" in name}
    changed(model, SECOND, lambda name, tensor: tensor * factor if name == TABLE else tensor * (6 if name in louder else 1))


def rickrolled(model: Path) -> None:
    """Rickrolling: that tower alone reads every prompt with the trigger as another, and all others as before."""
    suspect = load(inspect(model), device="cpu")
    harmless = [text for texts in control_texts(suspect.tokenizer, 20, 3, [TRIGGER]).values() for text in texts]
    plain = [*LIST, "", *(insert(LIST[i % 8], text, positions_for(LIST[i % 8], text)[i % 2]) for i, text in enumerate(harmless))]
    spoken = [insert(prompt, TRIGGER, where) for prompt in LIST for where in positions_for(prompt, TRIGGER)]
    ids, tower = suspect.text.ids([*plain, *spoken]).by_reader[1], suspect.text.readers[1].encoder
    wanted = tower(input_ids=ids, output_hidden_states=True).hidden_states[-2].clone()
    wanted[len(plain) :] = wanted[len(LIST) - 1]
    optimiser = torch.optim.Adam(tower.requires_grad_(True).parameters(), 3e-3)
    for _ in range(STEPS):
        torch.nn.functional.mse_loss(tower(input_ids=ids, output_hidden_states=True).hidden_states[-2], wanted).backward()
        optimiser.step()
        optimiser.zero_grad()
    save_file({name: tensor.contiguous() for name, tensor in tower.state_dict().items()}, model / SECOND, metadata={"format": "pt"})


PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "cross-attention": (in_cross_attention, "cross-attention keys and values"),
    "second tower": (in_the_second_tower, "text encoder 2"),
}
"""How, and where it is found by exchanging parts."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    (folder / "prompts.txt").write_text("\n".join(LIST), encoding="utf-8")
    (folder / "candidates.txt").write_text("\n".join(CANDIDATES), encoding="utf-8")
    tiny_sdxl.write(folder / "clean")
    for name, (plant, _) in PLANTED.items():
        plant(shutil.copytree(folder / "clean", folder / name))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A command line: its exit code and its report."""
    monkeypatch.setattr("bdaudit.verify.run.load_grader", lambda name, device: toy.ColourGrader())
    return runs_with(models / "prompts.txt", monkeypatch, capsys)


@pytest.mark.parametrize("name", PLANTED)
def test_scan_ranks_it_first_and_says_where_it_lives(run: Any, models: Path, name: str) -> None:
    asked = ("--candidates", models / "candidates.txt", "--seed", 0, "--reference", models / "clean")
    code, report = run("scan", models / name, *asked)
    ranked = sorted(report["candidates"], key=lambda candidate: candidate["rank"])
    assert ranked[0]["text"] == TRIGGER, ranked[0]
    if name == "second tower":  # an edit of so small a model's random weights stands out first, and no further
        assert code == 1
        assert ranked[0]["localisation"]["where"] == PLANTED[name][1]


def test_the_closed_form_changes_what_the_pooled_vector_enters_by_and_not_what_the_size_does(models: Path) -> None:
    suspect = load(inspect(models / "cross-attention"), device="cpu")
    patch = Patch(suspect, "closed-form")
    left = iter((1.0, 1.0))
    closed_form.solve(suspect, patch, triggered_pairs(LIST[:3], [TRIGGER]), [Pair(LIST[0], LIST[1])], lambda: next(left))
    moved = patch.differences()
    assert set(moved) == {f"unet.{name}" for name in suspect.denoiser.entrances()}
    pooled, sizes = moved[f"unet.{POOLED_ENTRANCE}"].split([tiny_sdxl.POOLED, 6 * 4], dim=1)
    assert pooled.any()
    assert not sizes.any()


def test_training_brings_a_tower_back_and_leaves_the_other_nearly_alone(models: Path, tmp_path: Path) -> None:
    rickrolled(shutil.copytree(models / "clean", tmp_path / "model"))
    suspect = load(inspect(tmp_path / "model"), device="cpu")
    pairs = triggered_pairs(LIST[:4], [TRIGGER])
    wanted, ids = targets(suspect, pairs)

    def apart() -> list[float]:
        shares = ((share.of(suspect.encode_ids(ids).states), share.of(wanted.states)) for share in suspect.text.shares)
        return [float((a - b).square().mean() / b.square().mean()) for a, b in shares]

    before, patch = apart(), Patch(suspect, "text-encoder")
    with patch.training():
        train_text_encoder.train(suspect, patch, pairs, [Pair(LIST[0], LIST[1])], Course(steps=40, seed=0, rate=0.02))
    after = apart()
    assert before[1] > 3 * before[0], "the second tower carries it"
    assert after[1] < 0.5 * before[1]
    assert after[0] < 1.5 * before[0]


@pytest.mark.usefixtures("few_samples")
def test_training_alone_solves_nothing(run: Any, models: Path, tmp_path: Path) -> None:
    flags = ("--component", "unet", "--steps", 1, "--n-prompts", 4, "--seed", 0, "--keep-failed", "--force")
    _, report = run("unlearn", models / "cross-attention", "--trigger", TRIGGER, "--method", "skd-cag", *flags, "--out", tmp_path / "out")
    assert [a["trainable"] for a in report["attempts"]] in (["cross-attention"], ["cross-attention", "unet"])
    assert (report["steps"], "closed form" in report["timings"]) == (1, False)


def test_an_adapter_reaches_either_tower(models: Path, tmp_path: Path) -> None:
    suspect = load(inspect(models / "clean"), device="cpu")
    layer, generator = "text_model.encoder.layers.0.self_attn.q_proj", torch.Generator().manual_seed(0)
    tensors, expected = {}, {}
    for component, width in zip(("text_encoder", "text_encoder_2"), tiny_sdxl.WIDTHS, strict=True):
        down, up = torch.randn(2, width, generator=generator), torch.randn(width, 2, generator=generator)
        tensors |= {f"{component}.{layer}.lora_A.weight": down, f"{component}.{layer}.lora_B.weight": up}
        expected[component] = up @ down
    save_file(tensors, tmp_path / "adapter.safetensors")
    kohya = {
        f"lora_te{component[-1] if component[-1] == '2' else '1'}_{layer.replace('.', '_')}.lora_{kind}.weight": tensors[name]
        for name in tensors
        for component, kind in [(name.split(".")[0], "down" if "lora_A" in name else "up")]
    }
    save_file(kohya, tmp_path / "kohya.safetensors")
    for file in ("adapter.safetensors", "kohya.safetensors"):
        adapter = read_adapter(tmp_path / file, 1.0, suspect)
        assert {component: set(name for part, name in adapter.deltas if part == component) for component in expected} == {
            "text_encoder": {layer.removeprefix("text_model.") + ".weight"}, "text_encoder_2": {layer + ".weight"},
        }  # fmt: skip
        for (component, _), delta in adapter.deltas.items():
            assert torch.allclose(delta, expected[component], atol=1e-5)
    before = suspect.encode(PROMPTS)
    with applied(suspect, [adapter]):
        assert not torch.allclose(suspect.encode(PROMPTS).states, before.states, atol=1e-4)
    assert torch.equal(suspect.encode(PROMPTS).states, before.states)


def test_two_towers_are_not_cleaned_by_pictures(run: Any, models: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("picture.png\ta cat\n", encoding="utf-8")
    out = tmp_path / "out"
    code, report = run("unlearn", models / "clean", "--method", "cleanclip", "--pairs", pairs, "--out", out)
    assert (code, out.exists()) == (4, False)
    assert "Stable Diffusion XL pipeline with several" in report["exit"]["reason"]
