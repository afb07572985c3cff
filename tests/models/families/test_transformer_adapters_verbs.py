"""Adapters of FLUX and Stable Diffusion 3 in ``unlearn`` and ``verify``: what is repaired and drawn is the model with the adapter in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.models import sample as sampling
from bdaudit.models.lora import read_adapter
from bdaudit.models.suspect import Suspect
from tests.models import tiny_dit
from tests.models.families.test_transformer import GUIDANCE, STEPS, drawn, ready
from tests.models.families.test_transformer_adapters import BLOCKS, OWN, XLABS, factors, original, shape_of, written
from tests.models.families.test_transformer_verbs import LIST, SIZE, TOKENS, TRIGGER, opened, reading_little
from tests.models.families.test_transformer_verify import CLOSE, SIGMAS
from tests.small import runs_with

FAMILIES = ("sd3", "flux")
SCALE = 0.5
COMMON = ("--size", "x".join(map(str, SIZE)), "--seed", 0)

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, few_tokens: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    (tmp_path / "prompts.txt").write_text("\n".join(LIST[:4]), encoding="utf-8")
    return runs_with(tmp_path / "prompts.txt", monkeypatch, capsys)


def diffusers_names(suspect: Suspect) -> dict[str, Tensor]:
    """On the text's entrance, on layers that the repair leaves, and on a reader."""
    tensors = dict[str, Tensor]()
    for module in OWN:
        tensors |= factors(f"transformer.{module}", shape_of(suspect, "transformer", (module,)), None, ("lora_A", "lora_B"))
    tensors |= factors("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", (16, 16), None, ("lora_A", "lora_B"))
    return {key: 0.3 * tensor for key, tensor in tensors.items()}


def xlabs_names(suspect: Suspect) -> dict[str, Tensor]:
    tensors = dict[str, Tensor]()
    for module, modules in XLABS.items():
        tensors |= factors(module, shape_of(suspect, "transformer", modules), None, ("down", "up"))
    return {key: 0.3 * tensor for key, tensor in tensors.items()}


def kohya_names(suspect: Suspect) -> dict[str, Tensor]:
    layers: Mapping[str, tuple[str, ...]] = BLOCKS | {"txt_in": ("context_embedder",)}
    return {key: tensor if key.endswith("alpha") else 0.3 * tensor for key, tensor in original(suspect, "lora_unet_", layers).items()}


def state_of(folder: Path) -> dict[tuple[str, str], Tensor]:
    return {(part, key): tensor for part, module in opened(folder).heeding.items() for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize("spelling", [diffusers_names, kohya_names])
def test_a_repair_is_of_the_model_with_the_adapter_in_it(run: Any, model: Path, name: str, spelling: Any, tmp_path: Path) -> None:
    if (name, spelling) == ("sd3", kohya_names):
        pytest.skip("of kohya's file for Stable Diffusion 3 diffusers takes nothing: test_transformer_adapters holds it")
    suspect = opened(model)
    (tmp_path / "in").mkdir()
    path = written(spelling(suspect), tmp_path / "in/style.safetensors")
    deltas = read_adapter(path, SCALE, suspect).deltas
    flags = ("--trigger", TRIGGER, "--trainable", "closed-form", "--force", "--keep-failed", "--n-prompts", 4)
    _, report = run("unlearn", model, "--lora", f"{path}:{SCALE}", *flags, *COMMON, "--out", tmp_path / "out")
    (adapter,) = report["adapters"]
    assert ([file["path"] for file in adapter["files"]], adapter["scale"]) == ([str(path)], SCALE)
    solved = {("transformer", entrance) for entrance in suspect.denoiser.entrances()}
    before, after = state_of(model), state_of(tmp_path / "out")
    moved = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert moved == solved | deltas.keys()
    for key in deltas.keys() - solved:
        assert torch.allclose(after[key], before[key] + deltas[key], atol=1e-6), key
    assert all(not torch.allclose(after[key], before[key] + deltas.get(key, torch.zeros(())), atol=1e-4) for key in solved)


@pytest.mark.parametrize("spelling", [diffusers_names, xlabs_names])
def test_verify_draws_what_the_stock_pipeline_draws_with_the_adapter(
    run: Any, model: Path, name: str, spelling: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    if (name, spelling) == ("sd3", xlabs_names):
        pytest.skip("XLabs publish adapters of FLUX alone")
    found: list[tuple[Suspect, str, Tensor, Tensor]] = []

    def kept(suspect: Suspect, texts: Any, seeds: Any, **options: Any) -> Tensor:
        pictures = sampling.sample(suspect, texts, seeds, **options)
        found.extend((suspect, *each) for each in zip(texts, suspect.noise(seeds).split(1), pictures, strict=True))
        return pictures

    monkeypatch.setitem(sampling.denoise.__wrapped__.__kwdefaults__, "spacing", 1.0)
    monkeypatch.setattr("bdaudit.verify.model.sample", kept)
    (tmp_path / "in").mkdir()
    path = written(spelling(opened(model)), tmp_path / "in/style.safetensors")
    other = shutil.copytree(model, tmp_path / "other")
    flags = ("--n", 2, "--reach", 0, "--steps", STEPS, "--guidance-scale", GUIDANCE, "--trigger", TRIGGER, *COMMON)
    _, report = run("verify", model, "--before", other, "--lora", f"before:{path}", *flags)
    assert report["status"] == "completed", report["exit"]
    pipeline, told = ready(model), {"sigmas": SIGMAS, "max_sequence_length": TOKENS}
    suspect, text, latents, picture = found[0]
    (twin,) = [each[3] for each in found if each[0] is not suspect and each[1] == text and torch.equal(each[2], latents)]
    without, _ = drawn(pipeline, latents, prompt=text, **told)
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    having, _ = drawn(pipeline, latents, prompt=text, **told)
    pictures = sorted((picture, twin), key=lambda picture: float((picture - without[0]).abs().max()))
    assert torch.allclose(pictures[0], without[0], atol=CLOSE)
    assert torch.allclose(pictures[1], having[0], atol=CLOSE)
    assert float((pictures[0] - pictures[1]).abs().max()) > 10 * CLOSE
