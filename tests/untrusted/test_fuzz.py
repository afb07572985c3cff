"""Mutated models and texts: only the declared errors, each within a second.

``BDAUDIT_FUZZ`` sets the number of examples a test; the suite's few are for every run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bdaudit.cli.outcome import failed
from bdaudit.config import ScanConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.models.embeddings import learned, read_embedding
from bdaudit.models.lora import read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.report.document import dumps, loads
from bdaudit.spelling.escapes import unescape
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.text_files import read_texts
from bdaudit.untrusted.torch_file import read_torch
from bdaudit.untrusted.tree import Reader
from tests.untrusted import hostile_files
from tests.untrusted.edits import TEXT, UNET, VAE, safetensors
from tests.untrusted.hostile import BIN, rebuilt, torch_archive
from tests.untrusted.tiny import write_model

SETTINGS = settings(
    max_examples=int(os.environ.get("BDAUDIT_FUZZ", "60")),
    deadline=None,  # each input is held to a second of computing instead: the machine may be busy
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON_FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
    "unet/diffusion_pytorch_model.safetensors.index.json",
)
WORDS = (
    "diffusers",
    "transformers",
    "../x",
    "auto_map",
    "weight_map",
    "metadata",
    "model",
    "vocab",
    "BPE",
    "config.json",
    "a.safetensors",
    "",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=6) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("fuzz") / "model")


def declared(call: Callable[[], object], kind: type[BdauditError] = BdauditError) -> str:
    """The message of the declared error that ``call`` ends in, empty where it ends well; any other error fails the test."""
    started, message = time.process_time(), ""
    try:
        call()
    except kind as error:
        message = str(error)
    assert time.process_time() - started < 1
    return message


def check(model: Path, path: str, content: bytes) -> None:
    """Inspect the model with ``content`` for one file, and put the file back."""
    file = model / path
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(content)
    try:
        assert declared(lambda: inspect(model)).isprintable()
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """``original`` with a few bytes replaced, inserted, removed, or its end cut off."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        until = min(len(content), at + draw(st.integers(0, 8)))
        content[at:until] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


def places(value: object) -> Iterator[tuple[object, object]]:
    """Every (container, key) inside a JSON value."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from places(inner)


@SETTINGS
@given(data=st.data(), path=st.sampled_from(JSON_FILES))
def test_json_of_other_values(model: Path, data: st.DataObject, path: str) -> None:
    file = model / path
    value = json.loads(file.read_text()) if file.exists() else data.draw(VALUES)
    spots = list(places(value))
    if spots and data.draw(st.booleans()):
        container, key = data.draw(st.sampled_from(spots))
        container[key] = data.draw(VALUES)  # type: ignore[index]
    else:
        value = data.draw(VALUES)
    check(model, path, json.dumps(value).encode())


@SETTINGS
@given(data=st.data(), path=st.sampled_from([p for p in JSON_FILES if "index.json" not in p and p != "tokenizer/tokenizer.json"]))
def test_mutated_bytes(model: Path, data: st.DataObject, path: str) -> None:
    check(model, path, data.draw(mutations((model / path).read_bytes())))


@SETTINGS
@given(data=st.data(), path=st.sampled_from([UNET, VAE, TEXT]))
def test_mutated_headers(model: Path, data: st.DataObject, path: str) -> None:
    content = (model / path).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = data.draw(mutations(content[:end]) | st.builds(lambda v: safetensors(v), VALUES) | st.binary(max_size=64))
    check(model, path, header + (content[end:] if data.draw(st.booleans()) else b""))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A single file beside its settings, and what it holds."""
    folder = tmp_path_factory.mktemp("single")
    hostile_files.lay_out(folder)
    return folder / "model.safetensors", (folder / "model.safetensors").read_bytes()


PIECES = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.model.",
    "input_blocks.",
    "transformer.resblocks.0.",
    "999",
    "0",
    "",
)
"""What names of single files are made of."""


@SETTINGS
@given(data=st.data())
def test_mutated_single_files(single: tuple[Path, bytes], data: st.DataObject) -> None:
    file, content = single
    end = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:end])
    if data.draw(st.booleans()):
        chosen = data.draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=3, unique=True))
        for name in chosen:
            parts = st.lists(st.sampled_from([*PIECES, *name.split(".")]) | st.text(max_size=3), max_size=4)
            cut = name[: data.draw(st.integers(0, len(name)))]
            header["".join(data.draw(parts)) if data.draw(st.booleans()) else cut] = header.pop(name)
        file.write_bytes(safetensors(header) + content[end:])
    else:
        file.write_bytes(data.draw(mutations(content[:end])) + content[end:])
    assert declared(lambda: inspect(file, config=file.parent / "directory")).isprintable()


@SETTINGS
@given(data=st.data(), pickle=st.booleans())
def test_mutated_torch_archives(tmp_path: Path, data: st.DataObject, pickle: bool) -> None:
    plain, path = rebuilt(b"K\x00K\x04\x85K\x01\x85"), tmp_path / BIN
    (tmp_path / UNET).parent.mkdir(exist_ok=True)
    (tmp_path / UNET).touch()
    torch_archive(data.draw(mutations(plain)) if pickle else plain)(tmp_path, tmp_path)
    if not pickle:
        path.write_bytes(data.draw(mutations(path.read_bytes())))
    assert declared(lambda: read_torch(Reader(tmp_path, {BIN: 1}), BIN)).isprintable()


@SETTINGS
@given(data=st.data())
def test_mutated_reports(data: st.DataObject, model: Path) -> None:
    value = json.loads(dumps(failed("scan", ScanConfig(model=model), ExitCode.ERROR, "broken")))
    container, key = data.draw(st.sampled_from(list(places(value))))
    container[key] = data.draw(VALUES)  # type: ignore[index]
    declared(lambda: loads(json.dumps(value if data.draw(st.booleans()) else data.draw(VALUES))), UsageError)
    declared(lambda: loads(data.draw(mutations(json.dumps(value).encode()))), UsageError)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"command": ["scan"]}', '{"command": {}}', "null", "", "\ud800", '{"command": "scan"}'])
def test_reports_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        loads(text)


@SETTINGS
@given(data=st.data())
def test_mutated_adapters(tiny_suspect: Suspect, tmp_path: Path, data: st.DataObject) -> None:
    name, path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", tmp_path / "adapter.safetensors"
    plain = save({f"{name}.lora_A.weight": np.ones((2, 8), np.float32), f"{name}.lora_B.weight": np.ones((8, 2), np.float32)})
    path.write_bytes(data.draw(mutations(plain) | st.builds(lambda value: safetensors(value), VALUES)))
    declared(lambda: read_adapter(path, 1.0, tiny_suspect))


@SETTINGS
@given(data=st.data())
def test_mutated_embeddings(tiny_suspect: Suspect, tmp_path: Path, data: st.DataObject) -> None:
    path, entries = tmp_path / "embedding.safetensors", len(tiny_suspect.tokenizer)
    plain = save({data.draw(st.sampled_from(["<toy>", "emb_params", "clip_l"])): np.ones((2, 8), np.float32)})
    path.write_bytes(data.draw(mutations(plain) | st.builds(lambda value: safetensors(value), VALUES)))

    def put_in() -> None:
        with learned(tiny_suspect, [read_embedding(path, data.draw(st.sampled_from(["", "<x>"]) | st.text(max_size=5)))]):
            assert len(tiny_suspect.tokenizer) > entries

    declared(put_in)
    assert len(tiny_suspect.tokenizer) == entries


@SETTINGS
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_texts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content)
    texts: list[str] = []
    message = declared(lambda: texts.extend(read_texts(path)), UsageError)
    assert message.isprintable()
    assert bool(texts) != bool(message)
    assert len(set(texts)) == len(texts)
    assert all(text.encode("utf-8") and "\0" not in text for text in texts)


@SETTINGS
@given(text=st.text(alphabet=st.sampled_from("\\uUx0123456789abcdefDF{}\n") | st.characters(), max_size=30))
def test_escapes(text: str) -> None:
    assert declared(lambda: unescape(text), UsageError).isprintable()
    assert unescape(text.replace("\\", "\\\\")) == text
