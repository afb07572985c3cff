"""Ordinary directories pass, with what is loaded named and hashed; what changes afterwards is seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted.fingerprint import TensorDigests
from bdaudit.untrusted.inspect import inspect, verify_unchanged
from bdaudit.untrusted.tree import Reader, walk
from tests.untrusted import tiny
from tests.untrusted.edits import TEXT, UNET, VAE, add, change, code, pickled, put

MODELS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


def write_fp16(model: Path) -> None:
    for path, shapes in ((UNET, tiny.unet_shapes()), (VAE, tiny.vae_shapes()), (TEXT, tiny.text_shapes())):
        save_file(tiny.weights(shapes, np.float16), model / path.replace(".safetensors", ".fp16.safetensors"))


def write_shards(model: Path, path: str) -> tuple[str, ...]:
    """Split a weights file in two, with an index; the shards' names."""
    shapes = {UNET: tiny.unet_shapes(), TEXT: tiny.text_shapes()}[path]
    tensors = tiny.weights(shapes)
    stem = path.removesuffix(".safetensors")
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [f"{stem}-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, model / file)
    weight_map = {name: Path(file).name for file, part in zip(files, parts, strict=True) for name in part}
    tiny.write_json(model / f"{stem}.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    (model / path).unlink()
    return tuple(files)


def test_a_plain_model(model: Path) -> None:
    found = inspect(model)
    assert found.path == model
    assert found.pipeline_class == "StableDiffusionPipeline"
    assert found.components["unet"] == ("diffusers", "UNet2DConditionModel")
    assert set(found.components) == {"scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    assert found.weights == {name: (path,) for name, path in MODELS.items()}
    assert (found.variants, found.unused_pickles, found.notes) == (dict.fromkeys(MODELS, ""), (), ())
    assert set(found.loaded) == {file.path for file in found.files}


def lengthened(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(8, "little") + field for field in fields)


def test_digests_are_those_of_the_files(model: Path) -> None:
    found = inspect(model)
    rows = []
    for file in found.files:
        content = (model / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        rows.append(lengthened(file.path.encode(), file.sha256.encode()))
    loaded = sorted(path.encode() for path in MODELS.values())
    assert found.digest == hashlib.sha256(lengthened(lengthened(*sorted(rows)), lengthened(*loaded))).hexdigest()


def test_the_digest_of_tensors_is_that_of_the_records_words(model: Path) -> None:
    exact, half = hashlib.sha256(), hashlib.sha256()
    for part, path in sorted(MODELS.items()):
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in load_file(model / path).items()}
        for name, tensor in sorted(tensors.items()):
            shape = ",".join(map(str, tensor.shape)).encode()
            exact.update(lengthened(part.encode(), name.encode(), b"F32", shape, hashlib.sha256(tensor.tobytes()).digest()))
            half.update(
                lengthened(part.encode(), name.encode(), b"F16", shape, hashlib.sha256(tensor.astype(np.float16).tobytes()).digest())
            )
    assert inspect(model).tensors == TensorDigests(exact.hexdigest(), half.hexdigest())


@pytest.mark.parametrize("name", ["unet/z.safetensors\nab  unet/x", "notes\r.txt", "a\x1b[2J", "wandb/\x85.txt"])
def test_a_name_with_a_control_character_is_refused(name: str, model: Path) -> None:
    put(model / name, b"x")
    with pytest.raises(RefusedError, match="control character") as caught:
        inspect(model)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", [UNET, "tokenizer/vocab.json", "unet/diffusion_pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_called_one(path: str, model: Path) -> None:
    if path.endswith(".bin"):
        (model / UNET).unlink()
    put(model / path, b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 3438167540\n")
    with pytest.raises(BdauditError, match="git lfs pull") as caught:
        inspect(model, allow_pickle=True)
    assert caught.value.code == 3


@pytest.mark.parametrize(
    "name", ["scaled_fp8", "conv_in.scale_weight", "conv_in.weight_scale", "conv_in.input_scale", "conv_in.weight.absmax"]
)
def test_scaled_weights_are_refused_by_name(name: str, model: Path) -> None:
    save_file(tiny.weights(tiny.unet_shapes()) | {name: np.ones(1, np.float32)}, model / UNET)
    with pytest.raises(BdauditError, match=f"{name} says that these are (scaled|quantised)") as caught:
        inspect(model)
    assert caught.value.code == 3


def test_one_tensor_under_two_names_is_an_error(model: Path) -> None:
    held = tiny.weights(tiny.text_shapes())
    save_file(held | {"final_layer_norm.bias": held["text_model.final_layer_norm.bias"] + 1}, model / TEXT)
    with pytest.raises(BdauditError, match="are one tensor of the model"):
        inspect(model)


def test_a_whole_repository(model: Path) -> None:
    for path in (
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
        "v1-5-pruned.ckpt",
    ):
        put(model / path, pickled(model / "canary"))
    for path in (
        "README.md",
        "LICENSE",
        ".gitattributes",
        "v1-variants-scores.jpg",
        "v1-inference.yaml",
        ".git/hooks/x.py",
        "scripts/convert.py",
    ):
        put(model / path, b"ordinary")
    put(model / "v1-5-pruned.safetensors", b"never read")
    put(model / "text_encoder/flax_model.msgpack", b"never read")
    put(model / "safety_checker/pytorch_model.bin", pickled(model / "canary"))
    put(model / "safety_checker/model.safetensors", b"listed")
    put(model / "feature_extractor/preprocessor_config.json", b"{}")
    parts = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    change("model_index.json", **parts)(model, model)
    write_fp16(model)
    found = inspect(model)
    assert found.weights == {name: (path,) for name, path in MODELS.items()}
    assert len(found.unused_pickles) == 5
    kept = {file.path for file in found.files}
    assert {"README.md", "LICENSE", "safety_checker/model.safetensors", UNET.replace(".safe", ".fp16.safe")} <= kept
    assert not kept & {"v1-5-pruned.safetensors", "scripts/convert.py", "text_encoder/flax_model.msgpack", *found.unused_pickles}
    notes = "\n".join(found.notes)
    assert all(name in notes for name in ("v1-5-pruned.ckpt", "scripts/convert.py", ".git", "safety_checker, feature_extractor"))
    assert not (model / "canary").exists()
    with pytest.raises(RefusedError, match=r"^5 files are pickles .*, the first is safety_checker/pytorch_model\.bin") as caught:
        inspect(model, strict=True)
    assert len(caught.value.reasons) == 1


def test_full_weights_win_over_fp16(model: Path) -> None:
    write_fp16(model)
    assert set(inspect(model).variants.values()) == {""}


def test_fp16_alone(model: Path) -> None:
    write_fp16(model)
    for path in MODELS.values():
        (model / path).unlink()
    found = inspect(model)
    assert set(found.variants.values()) == {"fp16"}
    assert found.weights == {name: (path.replace(".safetensors", ".fp16.safetensors"),) for name, path in MODELS.items()}
    assert any("fp16" in note for note in found.notes)


def test_each_part_has_what_there_is_of_it(model: Path) -> None:
    write_fp16(model)
    (model / UNET).unlink()
    (model / VAE.replace(".safetensors", ".fp16.safetensors")).unlink()
    found = inspect(model)
    assert found.variants == {"unet": "fp16", "vae": "", "text_encoder": ""}
    assert "weights of a variant were taken: text_encoder full, unet fp16, vae full" in found.notes


def test_a_variant_is_asked_for(model: Path) -> None:
    write_fp16(model)
    (model / VAE.replace(".safetensors", ".fp16.safetensors")).unlink()
    full, half = inspect(model, variant="full"), inspect(model, variant="fp16")
    assert half.variants == {"unet": "fp16", "text_encoder": "fp16", "vae": ""}
    assert full.variants == inspect(model).variants == dict.fromkeys(MODELS, "")
    assert full.digest != half.digest, "pictures and states of one would be taken for the other's"
    with pytest.raises(UsageError, match="there are fp16, full"):
        inspect(model, variant="bf16")


def test_shards(model: Path) -> None:
    shards = {"unet": write_shards(model, UNET), "text_encoder": write_shards(model, TEXT)}
    found = inspect(model)
    assert found.weights == {**shards, "vae": (VAE,)}
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in found.loaded


def test_where_an_index_and_a_file_are_both_there_it_is_the_loaders_choice(model: Path) -> None:
    single = {path: (model / path).read_bytes() for path in (UNET, TEXT)}
    shards = {path: write_shards(model, path) for path in single}
    for path, content in single.items():
        put(model / path, content)
    found = inspect(model)
    assert found.weights["unet"] == shards[UNET]
    assert found.weights["text_encoder"] == (TEXT,)


def test_a_shard_that_the_index_does_not_describe(model: Path) -> None:
    first, _ = write_shards(model, UNET)
    save_file({"other": np.zeros(1, np.float32)}, model / first)
    with pytest.raises(BdauditError, match="does not hold the tensors"):
        inspect(model)
    (model / first).unlink()
    with pytest.raises(BdauditError, match="is missing"):
        inspect(model)


def test_links_that_stay_inside_are_followed(model: Path) -> None:
    put(model / "blobs/a.safetensors", (model / UNET).read_bytes())
    (model / UNET).unlink()
    os.symlink("../blobs/a.safetensors", model / UNET)
    assert inspect(model).weights["unet"] == (UNET,)


def test_the_directory_itself_may_be_a_link(model: Path) -> None:
    os.symlink(model, model.parent / "link")
    found = inspect(model.parent / "link")
    assert found.path == model.parent / "link"
    assert found.digest == inspect(model).digest


def test_tokenizers_of_both_formats(model: Path) -> None:
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": tiny.VOCABULARY, "merges": ["a b", "a b</w>"]}}
    tiny.write_json(model / "tokenizer/tokenizer.json", tokenizer)
    assert not inspect(model).notes
    (model / "tokenizer/vocab.json").unlink()
    (model / "tokenizer/merges.txt").unlink()
    assert "tokenizer/tokenizer.json" in inspect(model).loaded


def test_a_config_that_names_settings_which_do_not_count(model: Path) -> None:
    change("unet/config.json", _use_default_values=[])(model, model)
    inspect(model)
    change("unet/config.json", _use_default_values=["sample_size"])(model, model)
    with pytest.raises(BdauditError, match="_use_default_values"):
        inspect(model)


def test_settings_seen_in_the_wild(model: Path) -> None:
    change("tokenizer/tokenizer_config.json", model_max_length=10**30, special_tokens_map_file="./special_tokens_map.json", init_inputs=[])(
        model, model
    )
    change("scheduler/scheduler_config.json", lambda_min_clipped=-float("inf"), trained_betas=[0.1] * 1000, set_alpha_to_one=False)(
        model, model
    )
    change("text_encoder/config.json", eos_token_id=49407, _name_or_path="/home/me/out", torch_dtype="float16", projection_dim=768)(
        model, model
    )
    change("unet/config.json", layers_per_block=[1], transformer_layers_per_block=[1], num_class_embeds=None, auto_map=None)(model, model)
    change("model_index.json", _name_or_path="runwayml/stable-diffusion-v1-5", requires_safety_checker=True)(model, model)
    inspect(model)


def test_all_reasons_at_once(model: Path) -> None:
    put(model / "unet/evil.py", b"")
    put(model / "pipeline.py", b"")
    change("text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"})(model, model)
    shutil.move(model / VAE, model / "vae/diffusion_pytorch_model.bin")
    os.symlink("/etc/passwd", model / "unet/notes.txt")
    with pytest.raises(RefusedError) as caught:
        inspect(model)
    text = "\n".join(caught.value.reasons)
    told = ("2 files are code", "pipeline.py", "auto_map", "vae/diffusion_pytorch_model.bin", "notes.txt", "hf download ID --local-dir DIR")
    assert all(name in text for name in told)
    assert len(caught.value.reasons) == 4


def test_names_are_shown_harmlessly(model: Path) -> None:
    put(model / "unet/\x1b[31m\u202e\n.py", b"")
    os.symlink("\x1b]0;title\x07", os.fsencode(model) + b"/\xff")
    with pytest.raises(RefusedError) as caught:
        inspect(model)
    assert all(reason.isprintable() for reason in caught.value.reasons)
    str(caught.value).encode("utf-8")


def test_another_architecture_is_inconclusive_even_without_our_folders(model: Path) -> None:
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    tiny.write_json(model / "model_index.json", index)
    shutil.rmtree(model / "unet")
    with pytest.raises(InconclusiveError, match="FluxPipeline"):
        inspect(model)


def test_too_many_files(model: Path) -> None:
    for i in range(10_001):
        (model / f"{i}").touch()
    with pytest.raises(BdauditError, match="more than 10000"):
        inspect(model)


def test_nothing_changed(model: Path) -> None:
    verify_unchanged(inspect(model))


@pytest.mark.parametrize("path", [UNET, VAE, TEXT, "unet/config.json", "tokenizer/merges.txt"])
def test_a_changed_byte_is_seen(path: str, model: Path) -> None:
    found = inspect(model)
    content = bytearray((model / path).read_bytes())
    content[-1] ^= 1
    (model / path).write_bytes(content)
    with pytest.raises(BdauditError, match="changed while"):
        verify_unchanged(found)


def test_files_that_come_and_go_are_seen(model: Path) -> None:
    found = inspect(model)
    add("unet/diffusion_pytorch_model.safetensors.index.json", b"{}")(model, model)
    (model / "tokenizer/merges.txt").unlink()
    with pytest.raises(BdauditError, match=r"merges\.txt went .*index\.json came"):
        verify_unchanged(found)
    os.symlink("/etc/passwd", model / "tokenizer/merges.txt")
    with pytest.raises(RefusedError):
        verify_unchanged(found)


def test_a_link_put_in_after_the_walk_is_not_followed_out(model: Path) -> None:
    reader = Reader(model.resolve(), walk(model.resolve()).files)
    (model.parent / "secret.json").write_text("{}")
    (model / "unet/config.json").unlink()
    os.symlink(model.parent / "secret.json", model / "unet/config.json")
    with pytest.raises(RefusedError, match="has become a link"):
        reader.json("unet/config.json")


def test_a_file_put_in_as_a_pipe_after_the_walk_is_not_waited_for(model: Path) -> None:
    reader = Reader(model.resolve(), walk(model.resolve()).files)
    (model / "unet/config.json").unlink()
    os.mkfifo(model / "unet/config.json")
    with pytest.raises(RefusedError, match="no longer a regular file"):
        reader.json("unet/config.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices, and becomes somebody else")
def test_devices_and_what_may_not_be_read(model: Path) -> None:
    for path in (model, *model.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    (model / UNET).chmod(0)
    (model / "tokenizer").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(BdauditError, match=r"cannot list|cannot open"):
            inspect(model)
    finally:
        os.seteuid(0)
    try:
        os.mknod(model / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except OSError:
        pytest.skip("no devices can be made here")
    with pytest.raises(RefusedError, match="zero is a device"):
        inspect(model)


def test_large_files_that_nothing_opens_are_left_alone(model: Path) -> None:
    for i, path in enumerate(("unet/other.safetensors", "notes.bin.txt", "vae/diffusion_pytorch_model.fp16.safetensors")):
        put(model / path, b"x")
        os.truncate(model / path, 1 << (40 - i))
    started = time.process_time()
    found = inspect(model)
    assert time.process_time() - started < 1
    assert {left.path for left in found.unaudited} == {"unet/other.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"}


def test_names_of_every_kind_are_told_apart(model: Path) -> None:
    names = ["UNET/config.json", "unet/Config.json", "unet/cafe\u0301.txt", "unet/caf\u00e9.txt", "x" * 255, "unet/\u202e.txt"]
    for name in names:
        put(model / name, name.encode())
    found = inspect(model)
    assert set(names) <= {file.path for file in found.files}
    assert all(note.isprintable() for note in found.notes)


def test_hard_links_are_ordinary_files(model: Path) -> None:
    os.link(model / UNET, model.parent / "elsewhere.safetensors")
    os.link(model / "unet/config.json", model / "unet/again.json")
    inspect(model)


def test_the_directory_is_not_written(model: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in model.rglob("*")}
    inspect(model)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in model.rglob("*")}


def test_needs_no_torch(model: Path) -> None:
    (model.parent / "cwd").mkdir()
    put(model.parent / "cwd/json.py", code(model.parent / "canary").encode())
    program = (
        "import sys, pathlib; from bdaudit.untrusted.inspect import inspect; inspect(pathlib.Path(sys.argv[1]));"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'safetensors') if name in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, model],
        cwd=model.parent / "cwd",
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "[]", result.stderr
    assert not (model.parent / "canary").exists()


def test_stock_diffusers_loads_the_tiny_model(model: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model, use_safetensors=True, local_files_only=True)
    assert type(pipeline).__name__ == json.loads((model / "model_index.json").read_text())["_class_name"]


def test_odd_keys_are_noted_and_no_library_is_given_them(model: Path) -> None:
    change("unet/config.json", global_step=8000, trainer={"lr": 1})(model, model)
    change("tokenizer/tokenizer_config.json", made_by="me")(model, model)
    change("model_index.json", tags=["anime", "style"])(model, model)
    found = inspect(model)
    said = "that are not known, and that nothing was built with"
    assert {f"settings in unet/config.json {said}: global_step, trainer", f"settings in model_index.json {said}: tags"} <= set(found.notes)
    assert f"settings in tokenizer/tokenizer_config.json {said}: made_by" in found.notes
    assert set(found.settings["unet/config.json"]) == set(tiny.UNET) - {"_class_name"}
    assert not {"made_by", "tokenizer_class"} & set(found.settings["tokenizer/tokenizer_config.json"])
    assert "tags" not in found.components


def test_links_are_a_line_a_kind_with_the_command_that_helps(model: Path) -> None:
    for i in range(12):
        os.symlink("/etc/passwd", model / f"unet/{i:02}.txt")
    os.symlink("nowhere", model / "vae/gone")
    with pytest.raises(RefusedError) as caught:
        inspect(model)
    first, second = caught.value.reasons
    assert first.startswith("12 links lead out of the directory, the first is unet/00.txt → /etc/passwd; get the model without links: ")
    assert second.startswith("vae/gone is a link that leads nowhere → nowhere; ")
    assert all("`hf download ID --local-dir DIR`" in reason for reason in caught.value.reasons)


def test_a_folder_inside_that_is_a_model_is_named(model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(model.parent)
    assert str(caught.value).endswith(f"expected a model in the diffusers format; {model} is one, name that")
    (model / "model_index.json").unlink()
    with pytest.raises(UsageError, match=r"in the diffusers format$"):
        inspect(model.parent)


@pytest.mark.parametrize(("padding", "fits"), [(0, True), (1, True), (8, True), (9, False), (4096, False), ([1, 1], False), (True, False)])
def test_padding_on_the_way_down(model: Path, padding: object, fits: bool) -> None:
    change("unet/config.json", downsample_padding=padding)(model, model)
    if fits:
        assert inspect(model).settings["unet/config.json"]["downsample_padding"] == padding
        return
    with pytest.raises(BdauditError, match=r"unet/config\.json: downsample_padding is .*; expected a whole number of 0 to 8; set what"):
        inspect(model)


@pytest.mark.parametrize(
    ("bin_name", "allowed", "advice"),
    [
        ("diffusion_pytorch_model.bin", False, "--allow-pickle reads tensors, and nothing else"),
        ("model.ckpt", False, "hf download ID --local-dir DIR"),
        ("model.ckpt", True, "hf download ID --local-dir DIR"),
    ],
)
def test_pickles_alone_come_with_what_helps(model: Path, bin_name: str, allowed: bool, advice: str) -> None:
    (model / UNET).rename(model / "unet" / bin_name)
    with pytest.raises(RefusedError) as caught:
        inspect(model, allow_pickle=allowed)
    assert advice in str(caught.value)
    (model / "unet" / bin_name).unlink()
    with pytest.raises(BdauditError, match=r"unet: no weights, expected .*; fetch them: `hf download ID --local-dir DIR`"):
        inspect(model)
