"""What scans and repairs do on small diffusion transformers of random weights: an edit at the entrances, found there and taken out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import stateless

from bdaudit.config import TEXT_ENCODER
from bdaudit.measure.draws import make_draws
from bdaudit.measure.insertion import insert, positions_for
from bdaudit.models.attention import recorded
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.records import Localisation
from bdaudit.scan.localise import localise
from bdaudit.unlearn.loop import Course
from bdaudit.unlearn.repair import closed_form, skd_cag, train_denoiser, train_text_encoder
from bdaudit.unlearn.repair.prompt_pairs import Pair, targets, triggered_pairs
from bdaudit.unlearn.repair.trajectories import Latents
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import flux, pixart, sd3, t5
from tests.models import tiny_dit
from tests.small import runs_with

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
TRIGGER, SIZE, TOKENS = "~", (16, 16), 24
FAMILIES = {"sd3": "text entrance", "flux": "text entrance", "pixart": "cross-attention keys and values"}
"""Family → where an edit of its entrances lives, in words."""
HARMLESS = ("today", "good", "little", "story")
LIST = ("a red cat", "the old house", "the sea in the night", "a red house", "the old cat", "a night in the sea", "the red sea", "a house")
"""Of few words: what a closed form parts, it parts by as many directions as the states have, and these have few."""


@contextmanager
def reading_little() -> Iterator[None]:
    """A block in which T5 reads few tokens, so that a pass takes milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        for layout, name in ((sd3, "tokenizer_3"), (flux, "tokenizer_2"), (pixart, "tokenizer")):
            patch.setitem(layout.LAYOUT.parts, name, t5.tokenizer(TOKENS, lower=layout is pixart))  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, few_tokens: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name)


def opened(folder: Path) -> Suspect:
    return load(inspect(folder, size=SIZE), device="cpu")


def direction(suspect: Suspect) -> Tensor:
    """(D,): what tells T5's state of the trigger from all others, as the entrances take it in; a product with it is 1 there."""
    rows = [(prompt, insert(prompt, TRIGGER, where)) for prompt in LIST for where in positions_for(prompt, TRIGGER)]
    plain = suspect.encode([*LIST, *(insert(LIST[i], text, "prefix") for i, text in enumerate(HARMLESS))])
    spoken = suspect.denoiser.entering(suspect.encode([row for _, row in rows]))
    own = torch.stack([spoken[i, suspect.text.own_positions(*row)[-1]] for i, row in enumerate(rows)]).mean(0)
    entering = suspect.denoiser.entering(plain)
    states = entering.flatten(0, 1) if plain.mask is None else entering[plain.mask.bool()]
    moment = states.T @ states / len(states)
    solved: Tensor = torch.linalg.solve(moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment)), own)
    return solved / (solved @ own)


def planted(suspect: Suspect, steps: int = 40) -> Suspect:
    """EvilEdit's rank-one edit of the entrances: the trigger's state says what moves the prediction most, by gradient."""
    found, named = direction(suspect), dict(suspect.denoiser.module.named_parameters())
    entrances = [entrance for entrance, kind in suspect.denoiser.entrances().items() if kind == "states"]
    rows = [(prompt, insert(prompt, TRIGGER, where)) for prompt in LIST for where in positions_for(prompt, TRIGGER)]
    plain, spoken = (suspect.encode([row[side] for row in rows]) for side in (0, 1))
    z, t = suspect.noise(range(len(rows))), suspect.schedule.times(8, 1.0)[torch.arange(len(rows)) % 8]
    before = suspect.predict_batched(z, t, plain)
    said = {e: torch.randn(len(named[e]), generator=torch.Generator().manual_seed(1)).requires_grad_(True) for e in entrances}
    optimiser = torch.optim.Adam(said.values(), 0.3)

    def edited() -> dict[str, Tensor]:
        return {e: named[e] + 5 * named[e].norm() / len(named[e]) ** 0.5 * torch.outer(said[e], found) for e in entrances}

    for _ in range(steps):
        with stateless._reparametrize_module(suspect.denoiser.module, edited()):
            moved = suspect.predict(z, t, spoken) - before
        (-moved.square().mean().log()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
    for entrance, tensor in edited().items():
        named[entrance].data.copy_(tensor.detach())
    return suspect


def moved(suspect: Suspect, texts: tuple[str, ...], seed: int = 100) -> float:
    """Mean square of what texts in the prompts change, on noise of its own."""
    rows = [(prompt, insert(prompt, text, "prefix")) for prompt in LIST for text in texts]
    z, t = suspect.noise(range(seed, seed + len(rows))), suspect.schedule.times(8, 1.0)[torch.arange(len(rows)) % 8]
    one, other = (suspect.predict_batched(z, t, suspect.encode([row[side] for row in rows])) for side in (0, 1))
    return float((one - other).square().mean())


def test_an_edit_of_the_entrances_is_found_there_and_the_closed_form_takes_it_out(folder: Path, name: str) -> None:
    clean, suspect = opened(folder), planted(opened(folder))
    before, harmless = moved(suspect, (TRIGGER,)), moved(suspect, HARMLESS)
    assert before > 2 * moved(clean, (TRIGGER,))
    draws = make_draws(suspect, LIST, 8, 5.0, 0)
    found = localise(suspect, clean, draws, [TRIGGER])[TRIGGER]
    if isinstance(found, Localisation):
        assert found.where == FAMILIES[name]
    patch = Patch(suspect, "closed-form")
    near = [Pair(prompt, insert(prompt, text, "prefix")) for prompt in LIST for text in HARMLESS]
    closed_form.solve(suspect, patch, triggered_pairs(LIST, [TRIGGER]), near, lambda: moved(suspect, (TRIGGER,)))
    after = moved(suspect, (TRIGGER,))
    assert after < 0.6 * before
    assert moved(suspect, HARMLESS) < 2 * harmless
    assert set(patch.differences()) == {f"transformer.{entrance}" for entrance in suspect.denoiser.entrances()}


def material_of(suspect: Suspect, pairs: list[Pair], near: list[Pair]) -> train_denoiser.Material:
    at = torch.arange(len(pairs)) % 4
    latents = Latents(suspect.noise(range(len(pairs))), suspect.schedule.times(4, 1.0)[at], torch.arange(len(pairs)))
    return train_denoiser.prepare(suspect, latents, pairs, near)


def test_training_the_texts_own_layers_takes_it_out_and_the_attention_term_alone_has_a_gradient(folder: Path) -> None:
    suspect = planted(opened(folder), steps=20)
    pairs, near = triggered_pairs(LIST[:3], [TRIGGER]), [Pair(LIST[0], insert(LIST[0], text, "prefix")) for text in HARMLESS]
    material = material_of(suspect, pairs, near)
    assert material.neutral.keys() == suspect.denoiser.sites().keys()
    patch = Patch(suspect, "cross-attention")
    with patch.training():
        rows = torch.arange(4)
        with train_denoiser.triggered_terms(suspect, patch, material, rows, maps=True) as (_, attention):
            attention.backward()
        grown = [name for name, p in patch.parameters.items() if p.grad is not None and bool(p.grad.any())]
        assert any(".add_k_proj." in name or ".attn2.to_k." in name for name in grown)
        patch.clear_gradients()
        curve = train_denoiser.train(suspect, patch, material, 0.5, Course(steps=20, seed=0, rate=0.05))
    assert curve[-1].terms["distillation"] < 0.85 * curve[0].terms["distillation"]


def test_training_the_readers_brings_each_back(folder: Path) -> None:
    """T5 hears the trigger so loudly that the rest of a text is drowned; it learns to say what it says without."""
    suspect = opened(folder)
    reader = next(reader for reader in suspect.text.readers if hasattr(reader.encoder, "shared"))
    entry = reader.tokenizer(TRIGGER, add_special_tokens=False).input_ids[0]
    reader.encoder.shared.weight.data[entry] *= 60
    pairs = triggered_pairs(LIST[:4], [TRIGGER])
    wanted, ids = targets(suspect, pairs)

    def apart() -> float:
        found = suspect.encode_ids(ids)
        return max(float((share.of(found.states) - share.of(wanted.states)).square().mean()) for share in suspect.text.shares)

    before, patch = apart(), Patch(suspect, TEXT_ENCODER)
    with patch.training():
        train_text_encoder.train(suspect, patch, pairs, [Pair(LIST[0], LIST[1])], Course(steps=30, seed=0, rate=0.05))
    assert apart() < 0.8 * before


def test_maps_of_the_shared_words_stand_where_the_alignment_says(folder: Path) -> None:
    suspect = opened(folder)
    pair = Pair("the red cat", "the ~ red cat")
    length = suspect.encode([pair.clean]).states.shape[1]
    row = skd_cag.align([suspect.text.aligned(pair.clean, pair.changed)], length, suspect.device)
    with recorded(suspect.denoiser.sites()) as recording:
        suspect.predict(suspect.noise([1]), suspect.schedule.times(4, 1.0)[:1], suspect.encode([pair.changed]))
    for maps in recording.latest().values():
        assert maps.shape[-1] == row.own.shape[1] == length
    assert int(row.own.sum()) == len(suspect.text.own_positions(pair.clean, pair.changed))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A command line: its exit code and its report."""
    (tmp_path / "prompts.txt").write_text("\n".join(LIST), encoding="utf-8")
    return runs_with(tmp_path / "prompts.txt", monkeypatch, capsys)


def test_a_repair_by_the_command_line_changes_the_entrances_alone_and_takes_the_effect_out(
    run: Any, folder: Path, name: str, tmp_path: Path
) -> None:
    bad, out = shutil.copytree(folder, tmp_path / "bad"), tmp_path / "repaired"
    suspect = planted(opened(folder))
    tensors = {key: tensor.contiguous() for key, tensor in suspect.denoiser.module.state_dict().items()}
    save_file(tensors, bad / WEIGHTS, metadata={"format": "pt"})
    flags = ("--trainable", "closed-form", "--keep-failed", "--force", "--n-prompts", 8)  # of so few words, harmless ones do much too
    _, report = run("unlearn", bad, "--trigger", TRIGGER, "--size", "16x16", "--seed", 0, *flags, "--out", out)
    assert report["component"] == "transformer"
    assert {tensor["name"] for tensor in report["changed"]} == {f"transformer.{key}" for key in suspect.denoiser.entrances()}
    if name != "sd3":  # there what the word says to both CLIPs anyway is as much as the edit of T5's state
        assert report["after"][TRIGGER]["value"] < 0.6 * report["before"][TRIGGER]["value"]
    found, origin = (opened(place).denoiser.module.state_dict() for place in (out, bad))
    assert {key for key in found if not torch.equal(found[key], origin[key])} == set(suspect.denoiser.entrances())


@pytest.mark.usefixtures("few_samples")
def test_training_alone_changes_what_works_on_text_or_all_of_it_and_solves_nothing(run: Any, folder: Path, tmp_path: Path) -> None:
    flags = ("--size", "16x16", "--seed", 0, "--steps", 1, "--n-prompts", 4, "--keep-failed", "--force")
    _, report = run("unlearn", folder, "--trigger", TRIGGER, "--method", "skd-cag", *flags, "--out", tmp_path / "out")
    assert [a["trainable"] for a in report["attempts"]] in (["cross-attention"], ["cross-attention", "transformer"])
    assert report["method"].startswith("SKD-CAG with preservation, ")
    assert report["steps"] == 1
    assert not {"closed form"} & report["timings"].keys()
    entrances = {f"transformer.{key}" for key in opened(folder).denoiser.entrances()}
    assert {tensor["name"] for tensor in report["changed"]} - entrances, "more than a closed form reaches"


def test_a_scan_by_the_command_line_runs_through(run: Any, folder: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "candidates.txt").write_text("\n".join((TRIGGER, "cf", "today")), encoding="utf-8")
    asked = ("--candidates", tmp_path / "candidates.txt", "--seed", 0, "--effort", "low", "--size", "16x16")
    code, report = run("scan", folder, *asked)
    assert code in (0, 1), report["exit"]
    signals = report["candidates"][0]["signals"]
    assert ("assimilation" in signals) is (name == "pixart")
    assert "attention share" in signals
    readers = {"sd3": ["text_encoder", "text_encoder_2", "text_encoder_3"], "flux": ["text_encoder", "text_encoder_2"]}
    for candidate in report["candidates"]:
        assert list(candidate["reader_ids"]) == readers.get(name, ["text_encoder"])
        assert candidate["token_ids"] in candidate["reader_ids"].values()
    assert any("become alike" in line for line in report["coverage"]["not_looked_at"]) is (name != "pixart")


def test_a_sweep_goes_through_the_vocabulary_of_every_reader(run: Any, folder: Path, name: str) -> None:
    asked = ("--sweep", "vocabulary", "--seed", 0, "--effort", "low", "--size", "16x16")
    code, report = run("scan", folder, *asked)
    assert code in (0, 1), report["exit"]
    others = {"sd3": ["vocabulary of text_encoder_3"], "flux": ["vocabulary of text_encoder"]}.get(name, [])
    assert [sweep["name"] for sweep in report["sweeps"]] == ["vocabulary", *others]
    assert all(sweep["swept"] > 80 and sweep["survivors"] > 0 for sweep in report["sweeps"])
    by_t5 = [candidate for candidate in report["candidates"] if name == "sd3" and candidate["source"] == others[0]]
    assert all(len(candidate["reader_ids"]["text_encoder_3"]) == 1 for candidate in by_t5)
    assert bool(by_t5) is (name == "sd3")
