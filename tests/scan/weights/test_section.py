"""The section on weights of a small real model: what was put into it is named by its text, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch

from bdaudit.models.suspect import Suspect
from bdaudit.records import Weights
from bdaudit.scan.weights import section
from bdaudit.scan.weights.section import weights

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def reference(tiny_suspect: Suspect) -> Suspect:
    """The same weights in modules of their own; ``tiny_suspect`` may then be changed."""
    return copy.deepcopy(tiny_suspect)


def named(found: Weights) -> list[tuple[str, str, str]]:
    return [(each.where, each.text, each.measure) for each in found.apart]


def test_nothing_stands_apart_of_a_model_that_nobody_touched(tiny_suspect: Suspect, reference: Suspect) -> None:
    found = weights(tiny_suspect, reference)
    assert named(found) == []
    assert found.against_reference
    assert found.looked_at.keys() == {"unet", "text_encoder", "text_encoder, rows"}
    assert found.looked_at["text_encoder, rows"] == len(tiny_suspect.text.main.encoder.get_input_embeddings().weight)
    assert not weights(tiny_suspect).against_reference


def test_a_row_is_named_by_what_its_entry_reads_as(tiny_suspect: Suspect, reference: Suspect) -> None:
    row = tiny_suspect.tokenizer("cat", add_special_tokens=False).input_ids[0]
    table = tiny_suspect.text.main.encoder.get_input_embeddings().weight
    before = table.data[row].clone()
    table.data[row] += 0.5
    try:
        found = weights(tiny_suspect, reference)
        alone = weights(tiny_suspect)
    finally:
        table.data[row] = before
    (changed,) = [each for each in found.apart if each.measure == "change"]
    assert (changed.part, changed.where, changed.text) == ("text_encoder", f"row {row}", section.text_of(tiny_suspect.tokenizer, [row]))
    assert not [each for each in alone.apart if each.measure in ("change", "direction")], "no reference, no comparison with one"


def test_rows_that_no_text_reaches_are_not_looked_at(reference: Suspect) -> None:
    """As the tables of T5 and of language models are padded to a round number."""
    entries = reference.text.main.encoder.get_input_embeddings()
    known = len(entries.weight)
    entries.weight = torch.nn.Parameter(torch.cat([entries.weight.data, torch.zeros(40, entries.weight.shape[1])]))
    found = weights(reference)
    assert named(found) == []
    assert found.looked_at["text_encoder, rows"] == known


def test_an_edit_of_a_single_layer_is_named(tiny_suspect: Suspect, reference: Suspect) -> None:
    weight = tiny_suspect.denoiser.module.get_parameter(KEY)
    before = weight.data.clone()
    weight.data += torch.outer(torch.ones(weight.shape[0]), torch.linspace(0, 1, weight.shape[1]))
    try:
        found = weights(tiny_suspect, reference)
    finally:
        weight.data = before
    assert {(each.part, each.where, each.measure) for each in found.apart} >= {("unet", KEY, "direction"), ("unet", KEY, "change")}
    assert all(each.part == "unet" for each in found.apart)


def test_a_reference_of_another_shape_is_said(tiny_suspect: Suspect, reference: Suspect) -> None:
    layer = reference.denoiser.module.conv_out
    layer.weight = torch.nn.Parameter(layer.weight.data[:, :2])
    found = weights(tiny_suspect, reference)
    assert found.not_looked_at == ("the unet beside the reference's, which is of another shape",)


def test_a_table_too_long_is_said(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "LARGEST", 10)
    assert weights(tiny_suspect).not_looked_at == ("neighbours in the text_encoder's table, which has more than 10 rows",)
