"""A table of beginnings, read both ways."""

from __future__ import annotations

import pytest

from bdaudit.untrusted.formats.names.renaming import Renaming, Source

TABLE = Renaming({"a.b": "x", "a.b.c": "y.z", "d": "w"})


WHOLE = [("a.b", "x"), ("a.b.weight", "x.weight"), ("a.b.c.weight", "y.z.weight"), ("d.bias", "w.bias")]


@pytest.mark.parametrize(("stored", "own"), [*WHOLE, ("a.bc", ""), ("a", ""), ("", "")])
def test_the_longest_whole_beginning_counts(stored: str, own: str) -> None:
    assert TABLE.own(stored) == own
    if own:
        assert TABLE.stored(own) == stored


def test_what_has_no_place_is_left_out() -> None:
    assert TABLE.sources(["a.b.weight", "e"]) == {"x.weight": Source("a.b.weight")}
