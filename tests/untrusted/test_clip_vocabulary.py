"""CLIP's vocabulary, made of open_clip's list: open_clip's own tokenizer is the reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted import clip_vocabulary


def test_transformers_reads_it_as_open_clip_reads_its_own(tmp_path: Path) -> None:
    from open_clip import SimpleTokenizer
    from transformers import CLIPTokenizer

    for name, content in clip_vocabulary.files().items():
        (tmp_path / name).write_bytes(content)
    ours = CLIPTokenizer.from_pretrained(tmp_path, pad_token="!", model_max_length=77)
    for text in ("a photo of a cat", "phȏto, ünïcode 😀 it's", "\u200b weird", "Hello   World 123", ""):
        padded = ours(text, padding="max_length", truncation=True).input_ids
        assert padded == SimpleTokenizer()([text])[0].tolist()


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be opened"), (b"another list", "not CLIP's vocabulary")])
def test_another_list_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(content)
    monkeypatch.setattr(clip_vocabulary, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(BdauditError, match=said):
        clip_vocabulary.files.__wrapped__()
