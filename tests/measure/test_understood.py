"""Texts as a model's own tokenizer takes them, known before its weights are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bdaudit.config import ScanConfig, VerifyConfig
from bdaudit.measure.understood import read_both_ways, understood
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.records import NotMeasured


def test_ids_are_the_models(tiny_model: Path, tiny_suspect: Suspect) -> None:
    (found,) = understood(VerifyConfig(model=tiny_model, triggers=("pho\u200bto",)), ("pho\u200bto",))
    assert (found.what, found.text, found.names) == ("trigger", "pho\u200bto", ("U+200B ZERO WIDTH SPACE",))
    assert found.codepoints == ("U+0070", "U+0068", "U+006F", "U+200B", "U+0074", "U+006F")
    assert found.token_ids == content_ids(tiny_suspect.tokenizer, "pho\u200bto")


def test_a_scan_has_its_prompts_and_nothing_opens_no_model(tiny_model: Path, tmp_path: Path) -> None:
    assert [item.what for item in understood(ScanConfig(model=tiny_model, suspected=("a cat",)), ())] == ["prompt"]
    assert understood(ScanConfig(model=tmp_path), ()) == ()


def test_a_model_that_cannot_be_opened_leaves_the_ids_out(tmp_path: Path) -> None:
    (found,) = understood(VerifyConfig(model=tmp_path, triggers=("cf",)), ("cf",))
    assert isinstance(found.token_ids, NotMeasured)
    assert "model_index.json is missing" in found.token_ids.reason


def test_candidates_that_were_read_both_ways_are_told(tmp_path: Path) -> None:
    (said,) = read_both_ways(ScanConfig(model=tmp_path, candidates=("u200b", "\u200b", "cf", "u200c")))
    assert said.startswith("'u200b' is written like a character's code or name (U+200B ZERO WIDTH SPACE)")
    texts = tuple(text for c in map(chr, range(0x200B, 0x200B + 25)) for text in (f"u{ord(c):04x}", c))
    assert read_both_ways(ScanConfig(model=tmp_path, candidates=texts))[-1] == "and 5 more candidates like these"


def test_a_learned_embeddings_token_is_its_entries(tiny_model: Path, tmp_path: Path) -> None:
    save_file({"<toy>": np.ones((2, 8), np.float32)}, tmp_path / "toy.safetensors")
    config = VerifyConfig(model=tiny_model, triggers=("<toy>",), embeddings=((tmp_path / "toy.safetensors", ""),))
    (found,) = understood(config, ("<toy>",))
    assert found.token_ids == (514, 515)


@pytest.mark.parametrize(("candidates", "said"), [(20, 20), (21, 21), (22, 21)])
def test_twenty_candidates_that_were_read_both_ways_are_named(tmp_path: Path, candidates: int, said: int) -> None:
    texts = tuple(text for c in map(chr, range(0x200B, 0x200B + candidates)) for text in (f"u{ord(c):04x}", c))
    told = read_both_ways(ScanConfig(model=tmp_path, candidates=texts))
    assert len(told) == said
    assert told[-1].startswith(f"and {candidates - 20} more") is (candidates > 20)
