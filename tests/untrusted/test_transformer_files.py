"""Single files of Stable Diffusion 3 and FLUX: the directory again, to the bit, and what is not read is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdaudit.errors import BdauditError, ExitCode, InconclusiveError
from bdaudit.models.rounding import rounded
from bdaudit.models.save import check_writable, write_model
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import reading_little
from tests.untrusted import one_file
from tests.untrusted.test_inspect_file import refused, rewritten, tensors_of

SIZE = (16, 16)
SHAPES = {
    "sd3": (one_file.SD3, one_file.SD3_WHOLE, one_file.BARE),
    "sd35": (one_file.SD3,),
    "flux": (one_file.FLUX, one_file.FLUX_WHOLE, one_file.BARE),
    "schnell": (one_file.FLUX,),
}
CELLS = [(name, i) for name, spellings in SHAPES.items() for i in range(len(spellings))]
KEY = "transformer_blocks.0.attn.add_k_proj.weight"


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name) for name in SHAPES}


@pytest.mark.parametrize(("name", "spelling"), CELLS)
def test_it_is_the_directory_again(models: dict[str, Path], tmp_path: Path, name: str, spelling: int) -> None:
    file = one_file.write(models[name], tmp_path / "model.safetensors", SHAPES[name][spelling])
    mine, theirs = inspect(file, config=models[name], size=SIZE), inspect(models[name], size=SIZE)
    assert mine.tensors == theirs.tensors
    assert (mine.pipeline_class, mine.latents, mine.unaudited) == (theirs.pipeline_class, theirs.latents, ())
    held, other = tensors_of(mine), tensors_of(theirs)
    assert held.keys() == other.keys()
    assert all(torch.equal(held[key], tensor) for key, tensor in other.items())


CHANGED = {
    "flux": {
        KEY: "double_blocks.0.txt_attn.qkv.weight",
        "single_transformer_blocks.0.proj_mlp.bias": "single_blocks.0.linear1.bias",
        "norm_out.linear.weight": "final_layer.adaLN_modulation.1.weight",
    },
    "sd3": {
        KEY: "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
        "transformer_blocks.1.norm1_context.linear.bias": "model.diffusion_model.joint_blocks.1.context_block.adaLN_modulation.1.bias",
    },
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_repair_is_written_where_its_tensors_lie_and_every_other_byte_stays(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    file = one_file.write(models[name], tmp_path / "model.safetensors", SHAPES[name][0])
    before = inspect(file, config=models[name], size=SIZE)
    own = tensors_of(before)
    differences = {key: torch.randn_like(own[f"transformer.{key}"]) for key in CHANGED[name]}
    write_model(before, tmp_path / "out", {"transformer": differences}, {})
    after = tensors_of(inspect(tmp_path / "out/model.safetensors", config=models[name], size=SIZE))
    for key, tensor in own.items():
        change = differences.get(key.removeprefix("transformer."), torch.zeros(()))
        assert torch.equal(after[key], tensor + change), key
    old, new = (load_file(path) for path in (file, tmp_path / "out/model.safetensors"))
    assert {key for key in old if not torch.equal(old[key], new[key])} == set(CHANGED[name].values())
    rows = (old[CHANGED[name][KEY]] != new[CHANGED[name][KEY]]).any(1)
    assert rows.nonzero().flatten().tolist() == list(range(16, 32)), "queries and values beside the changed keys stay"
    assert 0 < len(one_file.differing(file, tmp_path / "out/model.safetensors")) <= 4 * sum(d.numel() for d in differences.values())


def test_a_scale_that_several_tensors_share_is_never_changed_for_one(models: dict[str, Path], tmp_path: Path) -> None:
    stored = CHANGED["flux"][KEY]
    tensors = one_file.tensors_of(models["flux"], one_file.FLUX)
    scaled = {stored: (tensors[stored] * 64).to(torch.float8_e4m3fn), stored.replace(".weight", ".scale_weight"): torch.tensor(1 / 64)}
    with pytest.raises(InconclusiveError, match=r"has scales, .* and no mark scaled_fp8, without which loaders leave them out"):
        inspect(one_file.write(models["flux"], tmp_path / "plain.safetensors", one_file.FLUX, **scaled), config=models["flux"], size=SIZE)
    scaled |= {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    file = one_file.write(models["flux"], tmp_path / "model.safetensors", one_file.FLUX, **scaled)
    inspection = inspect(file, config=models["flux"], size=SIZE)
    write_model(inspection, tmp_path / "small", {"transformer": {KEY: torch.full((16, 16), 0.25)}}, {})
    with pytest.raises(BdauditError, match=r"other tensors in double_blocks\.0\.txt_attn\.qkv\.weight have the same scale"):
        write_model(inspection, tmp_path / "large", {"transformer": {KEY: torch.full((16, 16), 50.0)}}, {})
    assert not (tmp_path / "large").exists()
    with pytest.raises(BdauditError, match="have the same scale"):
        rounded(inspection, {"transformer": {KEY: torch.full((16, 16), 50.0)}})


def test_a_reader_in_several_files_stands_in_the_way_of_its_own_repair_alone(models: dict[str, Path], tmp_path: Path) -> None:
    made = tiny_dit.flux()
    made.save_pretrained(tmp_path / "model", max_shard_size="60KB")
    file = one_file.write(models["flux"], tmp_path / "model.safetensors", one_file.FLUX)
    inspection = inspect(file, config=tmp_path / "model", size=SIZE)
    assert len(inspection.weights["text_encoder_2"]) > 1
    check_writable(inspection, None, "bdaudit.json", ("transformer",))
    with pytest.raises(InconclusiveError, match=r"--part text_encoder_2=FILE, or repair the denoiser alone, by --component transformer"):
        check_writable(inspection, None, "bdaudit.json")


def test_settings_and_tokenizers_come_from_a_directory_alone(models: dict[str, Path], tmp_path: Path) -> None:
    file = one_file.write(models["flux"], tmp_path / "model.safetensors", one_file.FLUX_WHOLE)
    code, said = refused(file, size=SIZE)
    assert code == ExitCode.USAGE
    assert "is of a FLUX.1 pipeline, and holds neither its settings nor its tokenizers; say --config DIR" in said
    code, said = refused(file, config=models["sd3"], size=SIZE)
    assert code == ExitCode.USAGE
    assert "--config is of a Stable Diffusion 3 pipeline, and model.safetensors is of a FLUX.1 pipeline" in said
    code, said = refused(file, config=models["schnell"], size=SIZE)
    assert code == ExitCode.ERROR
    assert "guidance_embeds" in said


def test_a_reader_that_the_directorys_pipeline_has_not_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    without = tiny_dit.write("sd3 without T5", tmp_path / "without")
    file = one_file.write(models["sd3"], tmp_path / "model.safetensors", one_file.SD3_WHOLE)
    code, said = refused(file, config=without, size=SIZE)
    assert code == ExitCode.INCONCLUSIVE
    assert "holds a text_encoder_3, which the pipeline of --config has not" in said


def test_a_clip_without_the_projection_that_is_heard_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    file = one_file.write(models["sd3"], tmp_path / "model.safetensors", one_file.SD3_WHOLE)
    missing = rewritten(file, {"text_encoders.clip_l.transformer.text_projection.weight": None})
    code, said = refused(missing, config=models["sd3"], size=SIZE)
    assert code == ExitCode.INCONCLUSIVE
    assert "the text_encoder has no text_projection.weight" in said
    assert "--part text_encoder=FILE" in said


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"double_blocks.0.img_mod.lin.bias": None}, ExitCode.ERROR, "transformer_blocks.0.norm1.linear.bias first"),
        ({"single_blocks.0.linear1.weight": torch.ones(48, 16)}, ExitCode.ERROR, "rows, in which 4 tensors are to lie"),
        ({"single_blocks.0.linear1.weight": torch.ones(0, 16)}, ExitCode.ERROR, "holds nothing"),
        ({"img_in.weight": None}, ExitCode.ERROR, "rows, in which 3 tensors are to lie"),
        ({"final_layer.adaLN_modulation.1.bias": torch.ones(31)}, ExitCode.ERROR, "expected two halves"),
        ({"final_layer.adaLN_modulation.1.bias": torch.ones(())}, ExitCode.ERROR, "expected two halves"),
        ({"double_blocks.999999999.img_mod.lin.bias": torch.ones(1)}, ExitCode.ERROR, "more blocks than any model has"),
        ({"distilled_guidance_layer.in_proj.weight": torch.ones(1)}, ExitCode.INCONCLUSIVE, "is Chroma"),
        ({"double_stream_modulation_img.lin.weight": torch.ones(1)}, ExitCode.INCONCLUSIVE, "is FLUX.2"),
        ({"vector_in.in_layer.weight": None}, ExitCode.INCONCLUSIVE, "is a kin of FLUX"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": torch.ones(1)}, ExitCode.INCONCLUSIVE, "is a kin of Stable Diffusion 3"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)}, ExitCode.INCONCLUSIVE, "a UNet beside another denoiser"),
        ({"double_blocks.0.img_attn.qkv.weight": torch.ones(48, 16, dtype=torch.int8)}, ExitCode.INCONCLUSIVE, "quantised weights"),
    ],
)
def test_what_is_not_the_whole_transformer_is_named(
    models: dict[str, Path], tmp_path: Path, change: dict[str, Any], code: ExitCode, said: str
) -> None:
    file = rewritten(one_file.write(models["flux"], tmp_path / "model.safetensors", one_file.FLUX), change)
    ended, message = refused(file, config=models["flux"], size=SIZE)
    assert (ended, said in message) == (code, True), message


def test_a_tensor_of_no_part_is_never_passed_over(models: dict[str, Path], tmp_path: Path) -> None:
    file = one_file.write(models["flux"], tmp_path / "model.safetensors", one_file.FLUX, **{"double_blocks.0.odd": torch.ones(1)})
    (left,) = inspect(file, config=models["flux"], size=SIZE).unaudited
    assert "double_blocks.0.odd" in left.path
    whole = one_file.write(models["flux"], tmp_path / "x.safetensors", one_file.FLUX_WHOLE)
    code, said = refused(rewritten(whole, {"model.diffusion_model.odd": torch.ones(1)}), config=models["flux"], size=SIZE)
    assert code == ExitCode.ERROR
    assert "model.diffusion_model.odd first" in said


def test_both_namings_in_one_file_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    tensors = one_file.tensors_of(models["flux"], one_file.FLUX) | one_file.tensors_of(models["flux"], one_file.BARE)
    save_file(tensors, tmp_path / "both.safetensors")
    code, said = refused(tmp_path / "both.safetensors", config=models["flux"], size=SIZE)
    assert code == ExitCode.INCONCLUSIVE
    assert "holds the transformer twice" in said


OTHERS = {
    "pixart": "is a diffusion transformer", "chroma": "is Chroma", "z-image": "holds no denoiser that is known", "flux2": "is FLUX.2",
    "sana": "is a diffusion transformer", "qwen-image": "is a diffusion transformer",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_single_file_of_another_family_is_refused_by_name(tmp_path: Path, name: str) -> None:
    made = tiny_dit.flux2(layers=3) if name == "flux2" else tiny_dit.FAMILIES[name]()
    tensors = {key: tensor.contiguous() for key, tensor in made.transformer.state_dict().items()}
    for prefix in ("", "model.diffusion_model."):
        save_file({f"{prefix}{key}": tensor for key, tensor in tensors.items()}, tmp_path / "x.safetensors")
        code, said = refused(tmp_path / "x.safetensors")
        assert (code, OTHERS[name] in said) == (ExitCode.INCONCLUSIVE, True), said
