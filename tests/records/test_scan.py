"""When two texts are the same to a model."""

from __future__ import annotations

import pytest

from bdaudit.records import encoding_of

READERS = {"text_encoder": (3, 4), "text_encoder_2": (3, 4), "text_encoder_3": (3, 4)}


def test_readers_that_read_alike_are_one() -> None:
    assert encoding_of([3, 4], READERS) == encoding_of([3, 4], {}) == ((3, 4), ())


@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_reads_otherwise_tells_texts_apart(name: str) -> None:
    one, other = encoding_of([3, 4], READERS | {name: (5,)}), encoding_of([3, 4], READERS | {name: (6,)})
    assert len({one, other, encoding_of([3, 4], READERS)}) == 3
    assert one == encoding_of([3, 4], dict(reversed((READERS | {name: (5,)}).items()))), "whatever the order"
