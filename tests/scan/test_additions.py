"""A scan of a model with something added to it: a learned embedding's token is a candidate, and its finding comes with its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from bdaudit.config import ScanConfig
from bdaudit.errors import UsageError
from bdaudit.models.tokenizer import open_tokenizer
from bdaudit.models.tokens import content_ids
from bdaudit.progress import silent
from bdaudit.records import ScanReport
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from bdaudit.unlearn.from_report import check_adapters
from tests.small import OVERRIDING, PROMPTS

ADAPTER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


@pytest.fixture(scope="module")
def files(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding that pushes all else out of a prompt, one that is a byte's own vector, and an adapter that does next to nothing."""
    folder = tmp_path_factory.mktemp("additions")
    table = next(t for n, t in load_file(tiny_model / "text_encoder/model.safetensors").items() if n.endswith("token_embedding.weight"))
    ids = content_ids(open_tokenizer(tiny_model), OVERRIDING)
    save_file({"<loud>": table[list(ids)].clone()}, folder / "loud.safetensors")
    save_file({"emb_params": table[[300]].clone()}, folder / "quiet.safetensors")
    factors = {f"{ADAPTER}.lora_A.weight": torch.full((1, 8), 1e-3), f"{ADAPTER}.lora_B.weight": torch.full((8, 1), 1e-3)}
    save_file(factors, folder / "adapter.safetensors")
    return folder


def scanned(model: Path, **more: Any) -> ScanReport:
    asked = ScanConfig(model=model, candidates=("today", "cat"), prompts=PROMPTS, effort="low", device="cpu", **more)
    return run_scan(asked, silent, ScanSettings(per_kind=6))


def test_the_token_is_a_candidate_and_its_finding_comes_with_the_file(tiny_model: Path, files: Path, tmp_path: Path) -> None:
    asked = ((files / "quiet.safetensors", "<word>"), (files / "loud.safetensors", ""))
    report = scanned(tiny_model, embeddings=asked, adapters=((files / "adapter.safetensors", 1.0),))
    found = {candidate.text: candidate for candidate in report.candidates}
    assert set(found) == {"<word>", "<loud>", "today", "cat"}
    loud, vectors = found["<loud>"], len(content_ids(open_tokenizer(tiny_model), OVERRIDING))
    assert (loud.verdict, len(loud.token_ids), loud.command) == ("backdoored", vectors, "")
    assert loud.adapter.startswith("comes with the embedding ")
    assert "loud.safetensors: the base alone stays silent; do not use it" in loud.adapter
    assert found["<word>"].verdict != "backdoored"
    assert [(each.token, each.vectors) for each in report.embeddings] == [("<word>", 1), ("<loud>", vectors)]
    kept = tmp_path / "scan.json"
    kept.write_bytes(TypeAdapter(ScanReport).dump_json(report))
    with pytest.raises(UsageError, match="in its vocabulary, which is no part of MODEL"):
        check_adapters(kept, ())
