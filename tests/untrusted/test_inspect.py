"""Ordinary directories pass, with what is loaded named and hashed; what changes afterwards is seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted.fingerprint import TensorDigests
from bdaudit.untrusted.inspect import inspect, verify_unchanged
from tests.untrusted import tiny
from tests.untrusted.edits import TEXT, UNET, VAE, add, change, code, pickled, put
from tests.untrusted.ordinary import add_variant

MODELS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


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
    add_variant(model, "fp16")
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


def test_the_directory_itself_may_be_a_link(model: Path) -> None:
    os.symlink(model, model.parent / "link")
    found = inspect(model.parent / "link")
    assert found.path == model.parent / "link"
    assert found.digest == inspect(model).digest


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


def test_large_files_that_nothing_opens_are_left_alone(model: Path) -> None:
    for i, path in enumerate(("unet/other.safetensors", "notes.bin.txt", "vae/diffusion_pytorch_model.fp16.safetensors")):
        put(model / path, b"x")
        os.truncate(model / path, 1 << (40 - i))
    started = time.process_time()
    found = inspect(model)
    assert time.process_time() - started < 1
    assert {left.path for left in found.unaudited} == {"unet/other.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"}


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


def test_a_folder_inside_that_is_a_model_is_named(model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(model.parent)
    assert str(caught.value).endswith(f"expected a model in the diffusers format; {model} is one, name that")
    (model / "model_index.json").unlink()
    with pytest.raises(UsageError, match=r"in the diffusers format$"):
        inspect(model.parent)
