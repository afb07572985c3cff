"""What the readers of a model make of a text, each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bdaudit.models.text import Reader
from bdaudit.scan.encoded import Encoded, encoded
from tests.models.tiny_dit import t5_tokenizer
from tests.verify.toy import byte_tokenizer


def side() -> Any:
    """CLIP's tokenizer, which is the main one, and T5's."""
    readers = Reader(byte_tokenizer(16), None), Reader(t5_tokenizer(), None)
    return SimpleNamespace(readers=readers, main=readers[0], modules={"text_encoder": 0, "text_encoder_3": 1})


def test_a_capital_is_one_to_clip_and_another_to_t5() -> None:
    small, capital = encoded(side(), "cf"), encoded(side(), "CF")
    assert small.ids == capital.ids == dict(small.by_reader)["text_encoder"]
    assert small != capital
    assert dict(small.by_reader)["text_encoder_3"] != dict(capital.by_reader)["text_encoder_3"]
    assert encoded(side(), "cf") == small


def test_a_text_is_empty_where_no_reader_hears_it() -> None:
    assert encoded(side(), "").empty
    assert not encoded(side(), "a").empty
    assert not Encoded((), (("clip", ()), ("t5", (3,)))).empty
