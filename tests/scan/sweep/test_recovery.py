"""Recovery: a planted trigger is named, of one entry or of two; what is kept is used; sizes are those of all that could be named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bdaudit.config import ScanConfig
from bdaudit.kept_state import State
from bdaudit.measure import draws
from bdaudit.measure.draws import PLACES, REPLACE, make_draws
from bdaudit.measure.soft_token import heard_with, slots
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.progress import silent
from bdaudit.records import EncoderRecord
from bdaudit.scan.context import ScanContext
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.sweep import encoder_search, entry_texts, recovery
from bdaudit.scan.sweep.recovery import objective, pull, recover
from bdaudit.scan.sweep.result import SIZES
from bdaudit.scan.sweep.screen import screened
from bdaudit.scan.sweep.swept_texts import Probe, vocabulary
from tests.scan.sweep.soft_toy import planted
from tests.small import PROMPTS, stopping


def search(suspect: Suspect, state: Path | None = None, progress: Any = silent, seed: int = 0) -> tuple[CandidateGroup, ...]:
    context = ScanContext(suspect, SimpleNamespace(prompts=PROMPTS[:2]), State(state, "key"), progress, seed)  # type: ignore[arg-type]
    return recover(context, ScanConfig(model=Path("unused"), sweeps=("recovery",), seed=seed), PROMPTS)


def test_a_single_entry_is_named_first(tiny_suspect: Suspect) -> None:
    entries, characters, pairs = search(planted(tiny_suspect, content_ids(tiny_suspect.tokenizer, "~")))
    assert entries.texts[0] == "~"
    record = entries.recovery
    assert record is not None
    assert record.text == "~"
    assert min(record.soft_pull, record.text_pull) > 10
    assert record.named_pull == pytest.approx(record.text_pull**2 / record.soft_pull)
    assert record.verdict == "suspicious"
    assert not any("~" in text for text in (*characters.texts, *pairs.texts)), "a pair that pulls no more than its part is that part"


def test_a_character_of_two_entries_is_named_first(tiny_suspect: Suspect) -> None:
    ids = content_ids(tiny_suspect.tokenizer, "ȏ")
    assert len(ids) == 2
    _, characters, _ = search(planted(tiny_suspect, ids))
    assert characters.texts[0] == "ȏ"


def test_two_letters_that_are_no_character_are_named_as_a_pair(tiny_suspect: Suspect) -> None:
    _, _, pairs = search(planted(tiny_suspect, content_ids(tiny_suspect.tokenizer, "zq")))
    assert pairs.texts[0] == "zq"


def test_p_is_adjusted_for_all_that_could_have_been_named(tiny_suspect: Suspect) -> None:
    groups = search(planted(tiny_suspect, (97,), strength=0.0))
    assert groups[0].recovery is not None
    assert groups[0].recovery.verdict == "clean", "nothing is planted"
    assert isinstance(groups[0].recovery.encoder, EncoderRecord)
    assert groups[0].recovery.encoder.verdict == "clean"
    sizes = {group.name: group.size for group in groups}
    assert sizes["recovered entries"] == len(vocabulary(tiny_suspect.tokenizer).probes)
    assert sizes["recovered pairs"] == 512**2
    assert 140_000 < sizes["recovered characters"] < 0x110000
    for group in groups:
        assert group.record is not None
        assert (group.record.adjusted_for, group.record.survivors) == (group.size, len(group.texts))
        assert len(group.texts) <= recovery.KEPT[-1] + encoder_search.KEPT


@pytest.mark.parametrize("stop", [3, 12])
def test_a_stopped_search_goes_on_and_ends_the_same(tiny_suspect: Suspect, tmp_path: Path, stop: int) -> None:
    ids = content_ids(tiny_suspect.tokenizer, "~")
    whole = search(planted(tiny_suspect, ids))
    with pytest.raises(KeyboardInterrupt):
        search(planted(tiny_suspect, ids), tmp_path / "state", stopping(stop))
    resumed = search(planted(tiny_suspect, ids), tmp_path / "state")
    assert [group.texts for group in resumed] == [group.texts for group in whole]
    again = planted(tiny_suspect, ids)
    assert [group.texts for group in search(again, tmp_path / "state")] == [group.texts for group in whole]
    assert again.forward_passes == 2 * recovery.DRAWS * (2 * draws.STEPS + 2), "nothing but the draws is run again"


def test_it_searches_on_prompts_that_the_scan_does_not_use_where_there_are_enough(tiny_suspect: Suspect) -> None:
    prompts = [f"{prompt} {end}" for prompt in PROMPTS for end in ("so near", "far away", "again")]
    for scanned, expected in ((prompts[:4], set(prompts[4:])), (prompts[:5], set(prompts))):
        context = ScanContext(tiny_suspect, SimpleNamespace(prompts=scanned), State(None, ""), silent, 0)  # type: ignore[arg-type]
        found, _ = recovery._prepared(context, ScanConfig(model=Path("unused")), prompts)
        assert set(found.context.draws.prompts) <= expected
        assert len(found.context.draws) == 8


def test_the_objective_is_the_pull_that_is_screened(tiny_suspect: Suspect) -> None:
    drawn = make_draws(tiny_suspect, PROMPTS, 6, 5.0, 1)
    assert set(drawn.places) == {*PLACES, REPLACE}
    table, places = tiny_suspect.text.main.encoder.get_input_embeddings().weight, slots(tiny_suspect, drawn.prompts, 1, drawn.places)
    values = screened(tiny_suspect, drawn, [Probe("", (300,)), Probe("", (301,))])
    for cap in (-9.0, 9.0):
        found = objective(tiny_suspect, drawn, cap)(heard_with(tiny_suspect, places, table[[300, 301]][:, None]))
        assert found.tolist() == pytest.approx(pull(values, cap, 2.0).tolist(), abs=1e-3)


def test_a_pull_counts_the_larger_shift_and_no_more_of_the_encoding_than_is_usual() -> None:
    values = np.array([[1.0, 0.5, -3.0], [0.0, 2.0, -3.0], [2.0, 0.0, 5.0]])
    assert pull(values, -1.0, 2.0).tolist() == [7.0, 8.0, 4.0]
    assert pull(values, -1.0, 1.0).tolist() == [4.0, 5.0, 3.0]


def test_what_is_named_encodes_to_just_its_entries(tiny_suspect: Suspect) -> None:
    tokenizer = tiny_suspect.tokenizer
    partial = entry_texts.broken(tokenizer)
    first, second = content_ids(tokenizer, "ȏ")
    assert {first, second} <= partial
    assert not partial & {content_ids(tokenizer, c)[0] for c in "az~"}
    made = entry_texts.characters(tokenizer, [first], partial)
    assert "ȏ" in {probe.text for probe in made}
    assert all(content_ids(tokenizer, probe.text) == probe.ids and len(probe.text) == 1 for probe in made)
    beside = entry_texts.partners(tokenizer, content_ids(tokenizer, "z")[0], [tokenizer.get_vocab()[p] for p in ("q", "a</w>", "b")], 1)
    assert all(content_ids(tokenizer, probe.text) == probe.ids for probe in beside)


def test_it_is_one_of_a_scans_sources(tiny_suspect: Suspect) -> None:
    from bdaudit.scan.candidates import collect

    suspect = planted(tiny_suspect, content_ids(tiny_suspect.tokenizer, "~"))
    context = ScanContext(suspect, SimpleNamespace(prompts=PROMPTS[:2]), State(None, ""), silent, 0)  # type: ignore[arg-type]
    config = ScanConfig(model=Path("unused"), sweeps=("recovery",), candidates=("today",))
    groups = collect(context, config, PROMPTS, SIZES)
    assert [group.name for group in groups] == ["list", "recovered entries", "recovered characters", "recovered pairs"]
    assert [group.recovery is None for group in groups] == [True, False, True, True]
    assert groups[1:] == search(planted(tiny_suspect, content_ids(tiny_suspect.tokenizer, "~")))
