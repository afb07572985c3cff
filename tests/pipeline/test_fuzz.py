"""Mutated models and texts: only the declared errors, each within a second.

``BDAUDIT_FUZZ`` sets the number of examples a test; the suite's few are for every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.texts import read_texts, unescape
from bdaudit.pipeline.inspect import inspect
from tests.pipeline.edits import TEXT, UNET, VAE, safetensors
from tests.pipeline.tiny import write_model

SETTINGS = settings(
    max_examples=int(os.environ.get("BDAUDIT_FUZZ", "60")),
    deadline=1000,
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
    try:
        call()
    except kind as error:
        return str(error)
    return ""


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
