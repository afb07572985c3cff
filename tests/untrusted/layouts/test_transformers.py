"""Diffusion transformers at the door: what is run as the stock pipelines run it, what is not supported, and hostile T5 and Qwen readers."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.models.load import load
from bdaudit.models.schedule import Flow
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import LAYOUTS, dit, layout_of, sana
from bdaudit.untrusted.templates import digest
from tests.models import tiny_dit

TRUSTED = (digest(tiny_dit.TEMPLATE),)
NAMES = ("sd3", "flux", "pixart", "z-image", "flux2", "sana", "qwen-image")


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dit")
    for name in NAMES:
        tiny_dit.write(name, folder / name)
    return folder


@pytest.fixture
def model(request: pytest.FixtureRequest, origins: Path, tmp_path: Path) -> Path:
    return shutil.copytree(origins / request.param, tmp_path / "model")


def test_which_pipelines_are_which() -> None:
    names = {
        "StableDiffusion3Pipeline": "sd3", "StableDiffusion3Img2ImgPipeline": "sd3", "FluxPipeline": "flux", "FluxFillPipeline": "flux",
        "QwenImagePipeline": "qwen-image", "QwenImageEditPipeline": None, "SanaPipeline": "sana", "SanaSprintPipeline": None,
        "Flux2Pipeline": None, "Flux2KleinPipeline": "flux2",
        "PixArtSigmaPipeline": "pixart", "PixArtAlphaPipeline": None, "ChromaPipeline": "chroma",
        "ZImagePipeline": "z-image", "ZImageOmniPipeline": None,
    }  # fmt: skip
    for pipeline, name in names.items():
        assert layout_of(pipeline) is (None if name is None else LAYOUTS[name]), pipeline


def change(path: str, **values: Any) -> Callable[[Path], None]:
    """Set what ``values`` name in a JSON file."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        (folder / path).write_text(json.dumps(content | values), encoding="utf-8")

    return edit


def inner(path: str, **values: Any) -> Callable[[Path], None]:
    """The same in the map of a text's settings."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        (folder / path).write_text(json.dumps(content | {"text_config": content["text_config"] | values}), encoding="utf-8")

    return edit


def serialised(path: str, **values: Any) -> Callable[[Path], None]:
    """Set what ``values`` name in a ``tokenizer.json``, of its model those that begin with ``model_``."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        for key, value in values.items():
            place = content["model"] if key.startswith("model_") else content
            place[key.removeprefix("model_")] = value
        (folder / path).write_text(json.dumps(content), encoding="utf-8")

    return edit


def solver(**values: Any) -> Callable[[Path], None]:
    """DPM-Solver in place of Euler's steps, as Sana's repositories have it."""
    settings = {"_class_name": sana.SOLVER, "prediction_type": "flow_prediction", "flow_shift": 3.0}

    def edit(folder: Path) -> None:
        change("scheduler/scheduler_config.json", **settings | values)(folder)
        change("model_index.json", scheduler=["diffusers", sana.SOLVER])(folder)

    return edit


def table(longest: int) -> str:
    """A table of characters that puts so many bytes in a character's place."""
    return base64.b64encode((4).to_bytes(4, "little") + b"\0" * 4 + b"x" * longest + b"\0").decode()


def without(file: str, *names: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = {name: tensor for name, tensor in load_file(folder / file).items() if name not in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})

    return edit


def doubled(file: str, name: str, other: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / file)
        save_file({**tensors, other: tensors[name].copy()}, folder / file, metadata={"format": "pt"})

    return edit


def put(path: str) -> Callable[[Path], None]:
    """A template of somebody's own."""

    def edit(folder: Path) -> None:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("{{ 7 * 7 }}", encoding="utf-8")

    return edit


PIECES = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -1.0]]
T5, READER, FLOW = "tokenizer_3/tokenizer.json", "text_encoder_3/config.json", "scheduler/scheduler_config.json"
QWEN_VL = "text_encoder/config.json"
DENOISER, WEIGHTS = "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"
LANGUAGE = "text_encoder/config.json"
TEMPLATES, QWEN = "tokenizer/additional_chat_templates/x.jinja", "tokenizer/tokenizer.json"
BACKTRACKS = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
YARN = {"rope_type": "yarn", "rope_theta": 1e6}
LONG = [*PIECES, ["b" * 1_000_000, 0.0]]
BROKEN = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
HALF = {"type": "Precompiled", "precompiled_charsmap": table(9)[:8]}
GROWING = {"type": "Precompiled", "precompiled_charsmap": table(500)}
CASES: dict[str, tuple[str, type[BdauditError], str, Callable[[Path], None]]] = {
    "another kind of vocabulary": ("sd3", BdauditError, "expected a Unigram model", serialised(T5, model_type="BPE")),
    "pieces without scores": ("sd3", BdauditError, "each with its score", serialised(T5, model_vocab=["a", "b"])),
    "a score that is none": ("sd3", BdauditError, "each with its score", serialised(T5, model_vocab=[*PIECES, ["b", "high"]])),
    "a piece twice": ("sd3", BdauditError, "share a text", serialised(T5, model_vocab=[*PIECES, ["a", -2.0]])),
    "an unknown piece beyond all": ("sd3", BdauditError, "unk_id is 999999", serialised(T5, model_unk_id=999_999)),
    "a piece of a million letters": ("sd3", BdauditError, "1,000,000 characters", serialised(T5, model_vocab=LONG)),
    "more pieces than rows": (
        "sd3", BdauditError, "no row among", serialised(T5, model_vocab=[*PIECES, *([f"a{i}", 0.0] for i in range(999))])
    ),
    "a broken table": ("sd3", BdauditError, "table of characters", serialised(T5, normalizer=BROKEN)),
    "a table that lets a text grow": ("sd3", BdauditError, "500 times as long", serialised(T5, normalizer=GROWING)),
    "half a table": ("sd3", BdauditError, "table of characters", serialised(T5, normalizer=HALF)),
    "SentencePiece alone": (
        "sd3", InconclusiveError, "make its tokenizer.json",
        lambda folder: (folder / "tokenizer_3/tokenizer.json").rename(folder / "tokenizer_3/spiece.model"),
    ),
    "code beside a reader": ("sd3", RefusedError, "auto_map", change(READER, auto_map={"AutoModel": "x.Y"})),
    "wider heads than its weights": ("sd3", BdauditError, "d_kv is 4096", change(READER, d_kv=4096)),
    "more layers than its weights": ("sd3", BdauditError, "num_layers is 250", change(READER, num_layers=250)),
    "layers beyond all": ("sd3", BdauditError, "of 1 to 256", change(READER, num_layers=10**9)),
    "gates that are not there": ("sd3", BdauditError, "of the other kind", change(READER, feed_forward_proj="relu")),
    "another function than is named": ("sd3", BdauditError, "dense_act_fn is relu, which loaders", change(READER, dense_act_fn="relu")),
    "no gates by another name": ("sd3", BdauditError, "is_gated_act is False", change(READER, is_gated_act=False)),
    "a reader that decodes": ("sd3", BdauditError, "is_decoder is True", change(READER, is_decoder=True)),
    "two tables of tokens": (
        "sd3", InconclusiveError, "which of them embeds",
        doubled("text_encoder_3/model.safetensors", "shared.weight", "encoder.embed_tokens.weight"),
    ),
    "no third tokenizer": ("sd3", InconclusiveError, "tokenizer_3 is missing", change("model_index.json", tokenizer_3=2 * [None])),
    "a reader of another width": (
        "flux", BdauditError, "do not belong together",
        lambda folder: shutil.copytree(tiny_dit.written_reader(folder.parent), folder / "text_encoder_2", dirs_exist_ok=True),
    ),
    "rotations of no head": ("flux", BdauditError, "axes_dims_rope", change(DENOISER, axes_dims_rope=[4, 2, 4])),
    "guidance that is not there": ("flux", BdauditError, "guidance_embeds", change(DENOISER, guidance_embeds=False)),
    "no entrance": ("flux", BdauditError, "lack context_embedder", without(WEIGHTS, "context_embedder.weight")),
    "a flow that runs backwards": ("flux", InconclusiveError, "invert_sigmas", change(FLOW, invert_sigmas=True)),
    "a shift beyond all": ("flux", BdauditError, "shift is 1e\\+30", change(FLOW, shift=1e30)),
    "no line between sizes": (
        "flux", BdauditError, "base_image_seq_len and max_image_seq_len are equal",
        change(FLOW, base_image_seq_len=4096, use_dynamic_shifting=True),
    ),
    "a size to be told": ("pixart", InconclusiveError, "use_additional_conditions", change(DENOISER, use_additional_conditions=True)),
    "axes of no head": ("flux2", BdauditError, "axes_dims_rope", change(DENOISER, axes_dims_rope=[2, 2, 2, 4])),
    "a norm of other channels": ("flux2", BdauditError, "norms 16 channels", change("vae/config.json", patch_size=[1, 1])),
    "a way up of another length": (
        "flux2", BdauditError, "not as many", change("vae/config.json", decoder_block_out_channels=[8, 8, 8])
    ),
    "heads of no width": ("sana", BdauditError, "heads are 48 and 32", change(DENOISER, num_attention_heads=6)),
    "a guidance that nobody tells": ("sana", InconclusiveError, "guidance_embeds", change(DENOISER, guidance_embeds=True)),
    "a shift by a size that nobody says": ("sana", InconclusiveError, "use_dynamic_shifting", change(FLOW, use_dynamic_shifting=True)),
    "a solver along no flow": ("sana", InconclusiveError, "only a flow", solver(use_flow_sigmas=False)),
    "a solver's own levels": ("sana", InconclusiveError, "it has use_karras_sigmas", solver(use_flow_sigmas=True, use_karras_sigmas=True)),
    "blocks of another kind": (
        "sana", BdauditError, "of the kinds", change("vae/config.json", decoder_block_types=["ResBlock", "ResBlock", "MadeUp"])
    ),
    "a way up of another depth": ("sana", BdauditError, "its decoder 2", change("vae/config.json", decoder_block_out_channels=[8, 8])),
    "more heads than its weights": ("sana", BdauditError, "heads are 64", change("text_encoder/config.json", num_attention_heads=4)),
    "a layer that looks nowhere": (
        "sana", InconclusiveError, "layer_types", change("text_encoder/config.json", layer_types=["full_attention", "other_attention"])
    ),
    "Gemma's places rotated otherwise": (
        "sana", InconclusiveError, "rotated by yarn", change("text_encoder/config.json", rope_parameters=YARN)
    ),
    "a tokenizer of another vocabulary": (
        "sana", RefusedError, "tiktoken.model", lambda folder: (folder / "tokenizer/tiktoken.model").write_bytes(b"")
    ),
    "no map of a text's settings": ("qwen-image", InconclusiveError, "has no text_config", change(QWEN_VL, text_config={})),
    "settings said twice": ("qwen-image", InconclusiveError, "rms_norm_eps is 0.5", change(QWEN_VL, rms_norm_eps=0.5)),
    "layers that the weights have not": ("qwen-image", BdauditError, "num_hidden_layers is 4", inner(QWEN_VL, num_hidden_layers=4)),
    "layers out of all range, in a map": ("qwen-image", BdauditError, "1 to 256", inner(QWEN_VL, num_hidden_layers=10**9)),
    "sections of no head": ("qwen-image", BdauditError, "mrope_section is", inner(QWEN_VL, rope_parameters={"mrope_section": [2, 3, 2]})),
    "sections that are no numbers": (
        "qwen-image", BdauditError, "mrope_section is", inner(QWEN_VL, rope_parameters={"mrope_section": ["2", 3, 3]})
    ),
    "a mask that is opened, in a map": ("qwen-image", InconclusiveError, "is_causal is off", inner(QWEN_VL, is_causal=False)),
    "FLUX.2 dev": (
        "flux2", InconclusiveError, "Flux2Pipeline \\(FLUX.2 dev, which Mistral reads for\\) is not supported; expected",
        change("model_index.json", _class_name="Flux2Pipeline"),
    ),
    "a pipeline of somebody's own": (
        "flux2", InconclusiveError, "OtherPipeline is not supported; expected", change("model_index.json", _class_name="OtherPipeline")
    ),
    "an edit's transformer": ("qwen-image", InconclusiveError, "zero_cond_t is set", change(DENOISER, zero_cond_t=True)),
    "levels without a halving": ("qwen-image", BdauditError, "expected one less", change("vae/config.json", dim_mult=[1, 2, 4])),
    "means of other channels": ("qwen-image", BdauditError, "not of 4 channels", change("vae/config.json", latents_mean=[0.0])),
    "a walk that ends beyond noise": ("qwen-image", BdauditError, "shift_terminal is 2", change(FLOW, shift_terminal=2)),
    "Jinja of its own": ("z-image", RefusedError, "--trust-template", put("tokenizer/chat_template.jinja")),
    "a second template": (
        "z-image", RefusedError, "additional_chat_templates",
        put(TEMPLATES),
    ),
    "no template": ("z-image", InconclusiveError, "no chat template", lambda folder: (folder / "tokenizer/chat_template.jinja").unlink()),
    "a pattern that runs for ever": (
        "z-image", BdauditError, "run for ever",
        serialised(QWEN, pre_tokenizer=BACKTRACKS),
    ),
    "a window of the text": ("z-image", InconclusiveError, "window", change(LANGUAGE, use_sliding_window=True)),
    "places rotated otherwise": (
        "z-image", InconclusiveError, "rotated by yarn", change(LANGUAGE, rope_parameters=YARN)
    ),
    "places rotated otherwise, as of old": (
        "z-image", InconclusiveError, "rotated by linear", change(LANGUAGE, rope_scaling={"type": "linear", "factor": 8.0})
    ),
    "two bases of rotations": ("z-image", InconclusiveError, "10000.0, and which of them", change(LANGUAGE, rope_theta=5.0)),
    "words that see what follows": ("z-image", InconclusiveError, "is_causal is off", change(LANGUAGE, is_causal=False)),
    "a template among special tokens": (
        "z-image", RefusedError, "special_tokens_map.json: an unknown chat template",
        lambda folder: (folder / "tokenizer/special_tokens_map.json").write_text('{"chat_template": "{{ 7 * 7 }}"}', encoding="utf-8"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "kind", "said", "edit"), CASES.values(), ids=CASES, indirect=["model"])
def test_hostile_and_unsupported_directories(model: Path, kind: type[BdauditError], said: str, edit: Callable[[Path], object]) -> None:
    edit(model)
    with pytest.raises(BdauditError, match=said) as error:
        inspect(model, trusted=TRUSTED)
    assert type(error.value) is kind


@pytest.mark.parametrize("model", NAMES, indirect=True)
def test_what_the_stock_pipeline_wrote_passes(model: Path) -> None:
    found = inspect(model, trusted=TRUSTED)
    assert set(found.weights) == set(found.layout.models)
    assert found.tensors is not None
    assert all(not unknown for unknown in found.unknown.values()), found.unknown


@pytest.mark.parametrize("model", ["sana"], indirect=True)
def test_a_repository_of_sana_has_a_solver_and_a_vocabulary_for_old_loaders(model: Path) -> None:
    solver(use_flow_sigmas=True)(model)
    (model / "tokenizer/tokenizer.model").write_bytes(b"\x0a\x00")
    found = inspect(model)
    assert found.components["scheduler"] == ("diffusers", sana.SOLVER)
    assert any("tokenizer.model is read by old loaders alone" in note for note in found.notes)
    assert load(found, device="cpu").schedule == Flow(1000.0, 3.0)


@pytest.mark.parametrize(("gives", "fits"), [(4, True), (8, True), (12, False)])
def test_a_sana_predicts_its_latents_or_those_and_a_variance(tmp_path: Path, gives: int, fits: bool) -> None:
    tiny_dit.sana(gives).save_pretrained(tmp_path)
    with contextlib.nullcontext() if fits else pytest.raises(BdauditError, match="channels"):
        inspect(tmp_path)


@pytest.mark.parametrize("model", ["qwen-image"], indirect=True)
def test_what_a_map_holds_beside_its_settings_reaches_no_library(model: Path) -> None:
    inner(QWEN_VL, made_up=7, num_hidden_layers=2)(model)
    found = inspect(model, trusted=TRUSTED)
    assert "made_up" not in found.settings[QWEN_VL]["text_config"]
    assert found.settings[QWEN_VL]["text_config"]["num_hidden_layers"] == 2
    assert found.unknown[QWEN_VL] == ("text_config.made_up",)


def test_how_wide_a_block_is_counts() -> None:
    vae = {"block_out_channels": [8, 8]}
    dit.check_cost(1 << 14, 2, 512, vae, (128, 128))
    with pytest.raises(BdauditError, match="transformer: a latent of 128 × 128 becomes"):
        dit.check_cost(1 << 14, 2, 512, vae, (128, 128), widest=16.0)


def test_a_reader_with_fewer_layers_than_are_heard(tmp_path: Path) -> None:
    tiny_dit.flux2(layers=26).save_pretrained(tmp_path)
    with pytest.raises(BdauditError, match="has 26 layers, and the pipeline hears the 27th"):
        inspect(tmp_path, trusted=TRUSTED)


@pytest.mark.parametrize("model", ["flux"], indirect=True)
def test_latents_are_cut_into_whole_patches(model: Path) -> None:
    assert inspect(model).latents == (128, 128)
    assert inspect(model, size=(24, 16)).latents == (8, 12)
    with pytest.raises(UsageError, match="not cut into patches of 2 × 2"):
        inspect(model, size=(26, 16))
