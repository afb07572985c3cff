"""Learned embeddings: what the stock pipeline makes of the same file, out again to the bit, and nothing half understood."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.models.embeddings import Embedding, grown, learn, learned, read_embedding
from bdaudit.models.families.stable_diffusion import ClipText
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_sdxl

GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = ("a <toy> in a park", "a cat", "<toy>, <Toy>_1")


def width(suspect: Suspect) -> int:
    return int(suspect.text.main.encoder.get_input_embeddings().weight.shape[1])


def vectors(n: int, size: int) -> Tensor:
    return torch.randn(n, size, generator=GENERATOR)


def file(folder: Path, tensors: dict[str, Tensor], name: str = "toy.safetensors") -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    return folder / name


@pytest.mark.parametrize("n", [1, 3])
def test_the_stock_pipeline_hears_the_same(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path, n: int) -> None:
    from diffusers import StableDiffusionPipeline

    path = file(tmp_path, {"<toy>": vectors(n, width(tiny_suspect))})
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True)
    pipeline.load_textual_inversion(str(tmp_path), weight_name=path.name)
    embedding = read_embedding(path, "")
    assert embedding.names == ("<toy>", "<toy>_1", "<toy>_2")[:n]
    plain = tiny_suspect.encode(PROMPTS).states
    with learned(tiny_suspect, [embedding]):
        ours = tiny_suspect.encode(PROMPTS).states
        assert len(content_ids(tiny_suspect.tokenizer, "<toy>")) == n
    theirs, _ = pipeline.encode_prompt(list(PROMPTS), "cpu", 1, do_classifier_free_guidance=False)
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours[0], plain[0], atol=1e-3)
    assert torch.equal(ours[1], plain[1])


def test_both_towers_of_sdxl_learn_their_own_vectors(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    model = tiny_sdxl.write(tmp_path / "model")
    suspect, pipeline = load(inspect(model), device="cpu"), StableDiffusionXLPipeline.from_pretrained(model, local_files_only=True)
    tensors = {name: vectors(2, size) for name, size in zip(("clip_l", "clip_g"), tiny_sdxl.WIDTHS, strict=True)}
    with learned(suspect, [read_embedding(file(tmp_path, tensors), "<Toy>")]):
        ours = suspect.encode(PROMPTS)
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        parts = {part: getattr(pipeline, f"{part}{end}") for part in ("tokenizer", "text_encoder")}
        pipeline.load_textual_inversion(tensors[name], token="<toy>", **parts)
    states, _, pooled, _ = pipeline.encode_prompt(list(PROMPTS), device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(ours.states, states)
    assert ours.pooled is not None
    assert torch.equal(ours.pooled, pooled)


def test_it_is_gone_after_the_block_whatever_happened(tiny_suspect: Suspect, tmp_path: Path) -> None:
    embedding = read_embedding(file(tmp_path, {"<Toy>": vectors(2, width(tiny_suspect))}), "")
    table = tiny_suspect.text.main.encoder.get_input_embeddings()
    text, weight, entries = tiny_suspect.text, table.weight, len(tiny_suspect.tokenizer)

    def inside() -> None:
        with learned(tiny_suspect, [embedding]):
            assert len(tiny_suspect.tokenizer) == entries + 2
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        inside()
    assert tiny_suspect.text is text
    assert table.weight is weight
    assert (len(tiny_suspect.tokenizer), table.num_embeddings) == (entries, len(weight))


@pytest.mark.parametrize(
    ("tensor", "token", "called"),
    [("<own>", "", "<own>"), ("emb_params", "", "toy"), ("*", "", "toy"), ("<own>", "<Other>", "<other>"), ("emb_params", "x", "x")],
)
def test_what_the_token_is(tiny_suspect: Suspect, tmp_path: Path, tensor: str, token: str, called: str) -> None:
    embedding = read_embedding(file(tmp_path, {tensor: vectors(1, width(tiny_suspect))[0]}), token)
    assert (embedding.token, embedding.names) == (called, (called,))
    assert embedding.key.endswith(f"={called}")


def test_several_are_learned_together(tiny_suspect: Suspect, tmp_path: Path) -> None:
    size = width(tiny_suspect)
    found = [read_embedding(file(tmp_path, {name: vectors(1, size)}, f"{i}.safetensors"), "") for i, name in enumerate(("<a>", "<b>"))]
    table = tiny_suspect.text.main.encoder.get_input_embeddings()
    with learned(tiny_suspect, found):
        for embedding in found:
            (entry,) = content_ids(tiny_suspect.tokenizer, embedding.token)
            assert torch.equal(table.weight[entry], embedding.vectors[""][0])
    with pytest.raises(UsageError, match=r"has an entry '?<a>'? already"), learned(tiny_suspect, [found[0], found[0]]):
        pass


def damaged(folder: Path, size: int, name: str) -> Path:
    """A file that is no embedding of the tiny model."""
    row = vectors(1, size)
    tensors = {
        "NaN": {"<x>": row * torch.nan},
        "whole numbers": {"<x>": row.to(torch.int32)},
        "a picture": {"<x>": row.reshape(1, 1, size)},
        "no row": {"<x>": torch.tensor(1.0)},
        "several": {"<x>": row, "<y>": row + 1},
        "an adapter": {"unet.a.lora_A.weight": row, "unet.a.lora_B.weight": row + 1},
        "more than a prompt holds": {"<x>": vectors(76, size)},
        "towers of unlike counts": {"clip_l": row, "clip_g": vectors(2, size)},
    }[name]
    return file(folder, tensors)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("NaN", BdauditError, "holds NaN or infinity"),
        ("whole numbers", BdauditError, "expected vectors, one a row, in floating point"),
        ("a picture", BdauditError, "expected vectors, one a row"),
        ("no row", BdauditError, "expected vectors, one a row"),
        ("several", InconclusiveError, "holds 2 tensors, '?<x>'? among them; expected an embedding"),
        ("an adapter", InconclusiveError, "expected an embedding"),
        ("more than a prompt holds", InconclusiveError, "of more than 75 vectors tools cut off"),
        ("towers of unlike counts", BdauditError, "has 1 and 2 vectors for two text encoders"),
    ],
)
def test_what_is_no_embedding_is_said(tiny_suspect: Suspect, tmp_path: Path, name: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as raised:
        read_embedding(damaged(tmp_path, width(tiny_suspect), name), "")
    assert type(raised.value) is kind


def test_a_pickle_is_never_opened_and_a_great_file_is_not_read(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    for name, kind in (("x.safetensors", RefusedError), ("x.pt", RefusedError), ("x.BIN", RefusedError), ("x.json", UsageError)):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(kind):
            read_embedding(tmp_path / name, "")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(BdauditError, match="at most 16,777,216 are read of an embedding"):
        read_embedding(file(tmp_path, {"<x>": torch.zeros(75, 60_000)}), "")


@pytest.mark.parametrize("token", [" x", "x\n", "x" * 101, "\u202ex"])
def test_a_token_that_is_no_word_is_refused(tiny_suspect: Suspect, tmp_path: Path, token: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a prompt as one word"):
        read_embedding(file(tmp_path, {token: vectors(1, width(tiny_suspect))}), "")


def test_an_entry_of_the_vocabulary_is_not_taken_over(tiny_suspect: Suspect, tmp_path: Path) -> None:
    taken = "a</w>"
    embedding = read_embedding(file(tmp_path, {"<x>": vectors(1, width(tiny_suspect))}), taken)
    with pytest.raises(UsageError, match=r"has an entry .* already; name another with"):
        grown(tiny_suspect.tokenizer, [embedding])


def test_what_is_read_by_more_than_clip_learns_none(tiny_suspect: Suspect, tmp_path: Path) -> None:
    embedding = read_embedding(file(tmp_path, {"<x>": vectors(1, width(tiny_suspect))}), "")
    text = ClipText(replace(tiny_suspect.text.main, encoder=torch.nn.Linear(1, 1)))
    with pytest.raises(InconclusiveError, match="are of CLIP's vocabulary, and Linear reads here too"):
        learn(replace(tiny_suspect, text=text), [embedding])


def of(tmp_path: Path, **sizes: int) -> Embedding:
    return read_embedding(file(tmp_path, {name: vectors(1, size) for name, size in sizes.items()}), "<x>")


def test_what_is_for_another_model_is_said(tiny_suspect: Suspect, tmp_path: Path) -> None:
    size = width(tiny_suspect)
    with pytest.raises(BdauditError, match=f"vectors of {size + 1} numbers for a text encoder of {size}") as raised:
        learn(tiny_suspect, [of(tmp_path, emb_params=size + 1)])
    assert type(raised.value) is BdauditError
    with pytest.raises(InconclusiveError, match="has vectors for clip_l and clip_g, and this model reads with 1 text encoders"):
        learn(tiny_suspect, [of(tmp_path, clip_l=size, clip_g=size)])
    sdxl = load(inspect(tiny_sdxl.write(tmp_path / "model")), device="cpu")
    for sizes in ({"emb_params": 32}, {"clip_l": 32}):
        with pytest.raises(InconclusiveError, match="reads with 2 text encoders; the embedding is for another family"):
            learn(sdxl, [of(tmp_path, **sizes)])
    with pytest.raises(BdauditError, match="vectors of 32 numbers for a text encoder of 24"):
        learn(sdxl, [of(tmp_path, clip_l=32, clip_g=32)])
