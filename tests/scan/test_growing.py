"""Words of two entries, grown from parts that stand out."""

from __future__ import annotations

import pytest

from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids
from bdaudit.scan import growing
from bdaudit.scan.growing import grown, possible
from bdaudit.scan.halving import Halved
from bdaudit.scan.sources import Probe


def halved(suspect: Suspect, order: list[str], best: int) -> Halved:
    vocabulary = suspect.tokenizer.get_vocab()
    probes = tuple(Probe(piece.removesuffix("</w>"), (vocabulary[piece],)) for piece in order)
    return Halved(probes[:best], (), probes)


def test_the_best_starts_meet_all_ends_and_the_best_ends_all_starts(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "BEST", 1)
    starts = halved(tiny_suspect, ["z", "m", "k", "!"], 2)
    ends = halved(tiny_suspect, ["q</w>", "b</w>", "?</w>"], 1)
    found = grown(tiny_suspect.tokenizer, starts, ends)
    assert {probe.text for probe in found} == {"zq", "zb", "mq", "kq"}, "no punctuation, which would stand beside a word"
    for probe in found:
        assert content_ids(tiny_suspect.tokenizer, probe.text) == probe.ids
    assert possible(tiny_suspect.tokenizer, starts, ends) == 3 * 2 > len(found)


def test_no_more_than_the_limit(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "BEST", 2)
    monkeypatch.setattr(growing, "LIMIT", 6)
    starts = halved(tiny_suspect, list("abcdefgh"), 8)
    ends = halved(tiny_suspect, [f"{c}</w>" for c in "stuvwxyz"], 8)
    assert len(grown(tiny_suspect.tokenizer, starts, ends)) == 2 * 3 + 3 * 2 - 2 * 2


def test_what_encodes_otherwise_is_left_out(tiny_suspect: Suspect) -> None:
    parts = halved(tiny_suspect, ["ã"], 1)
    ends = halved(tiny_suspect, ["ģ</w>"], 1)
    assert all(content_ids(tiny_suspect.tokenizer, probe.text) == probe.ids for probe in grown(tiny_suspect.tokenizer, parts, ends))
