"""Where texts go, and seeds that depend on nothing but what they are for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.measure.draws import PLACES
from bdaudit.measure.insertion import POSITIONS, codepoints, insert, item_seed, positions_for, replaceable, slips

PROMPT = "a photo of a dog"


@pytest.mark.parametrize(
    ("text", "position", "wanted"),
    [
        ("x", "prefix", "x a photo of a dog"),
        ("x", "suffix", "a photo of a dog x"),
        ("x", "comma", "a photo of a dog, x"),
        ("x y", "clause", "x y , a photo of a dog"),
        ("x y", "middle", "a photo x y of a dog"),
        ("ȏ", "replace", "a phȏto of a dog"),
        ("о", "replace", "a phоto of a dog"),
        ("ā", "replace", "a photo of ā dog"),
        ("ꓳ", "replace", "a phꓳto of a dog"),
    ],
)
def test_positions(text: str, position: str, wanted: str) -> None:
    assert insert(PROMPT, text, position) == wanted


def test_replace_falls_back_to_the_first_word() -> None:
    assert insert("photo by me", "ȏ", "replace") == "phȏto by me"


@pytest.mark.parametrize(
    ("prompt", "text", "wanted"),
    [
        (PROMPT, "ȏ", ("a phpto of a dog", "a phòto of a dog", "a phóto of a dog", "a phôto of a dog")),
        (PROMPT, "ò", ("a phpto of a dog", "a phóto of a dog", "a phôto of a dog", "a phõto of a dog")),
        (PROMPT, "а", ("a photo of b dog", "a photo of à dog", "a photo of á dog", "a photo of â dog")),
        ("a zoo", "ź", ("a aoo", "a żoo", "a žoo", "a ƶoo")),
        ("a quiz", "ԛ", ("a ruiz", "a ɋuiz")),
        ("a cat, a dog", "‚", ("a cata a dog",)),
        ("a pair of 7", "𝟕", ("a pair of 8",)),
        ("photo by me", "ȏ", ("phpto by me", "phòto by me", "phóto by me", "phôto by me")),
    ],
)
def test_slips_stand_where_the_look_alike_would(prompt: str, text: str, wanted: tuple[str, ...]) -> None:
    assert slips(prompt, text) == wanted
    changed = insert(prompt, text, "replace")
    for slip in wanted:
        assert [i for i, (a, b) in enumerate(zip(prompt, slip, strict=True)) if a != b] == [changed.index(text)]


def test_a_slip_needs_a_letter() -> None:
    with pytest.raises(ValueError, match="holds no character"):
        slips(PROMPT, "x")


@pytest.mark.parametrize(("text", "position"), [("x", "replace"), ("ź", "replace"), ("x", "nowhere")])
def test_what_cannot_be_inserted(text: str, position: str) -> None:
    with pytest.raises(ValueError, match=r"holds no character|unknown position"):
        insert(PROMPT, text, position)


@given(st.text(min_size=1), st.sampled_from((*POSITIONS, *PLACES)))
def test_the_text_is_whole_and_so_is_the_rest(text: str, position: str) -> None:
    changed = insert(PROMPT, text, position)
    assert len(changed) == len(PROMPT) + len(text) + {"comma": 2, "clause": 3}.get(position, 1)
    assert text in changed


def test_a_scan_puts_texts_where_all_else_does_and_in_clauses_of_their_own() -> None:
    assert (*POSITIONS, "comma", "clause") == PLACES


def test_replace_is_a_position_only_where_there_is_something_to_replace() -> None:
    assert positions_for(PROMPT, "ȏ") == (*POSITIONS, "replace")
    assert positions_for("a red cat", "ȏ") == POSITIONS
    assert not replaceable(PROMPT, "word")


def test_seeds_depend_on_run_and_item_alone() -> None:
    assert item_seed(1, "picture", 2) == item_seed(1, "picture", 2)
    assert len({item_seed(run, what, i) for run in (0, 1) for what in ("a", "b") for i in range(50)}) == 200
    assert item_seed(0, "ab", "c") != item_seed(0, "a", "bc")
    assert 0 <= item_seed(3) < 2**63


def test_codepoints() -> None:
    assert codepoints("ȏ😀") == ("U+020F", "U+1F600")
