"""The fast decoder takes nothing that Python's guarded one would not, and makes the same of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.untrusted import json_text
from bdaudit.untrusted.json_text import decoded, texts_in

DEPTHS = {"1": 0, "[]": 1, '{"a": [1, {"b": []}]}': 4, "[[], [[2]], {}]": 3}
TAKEN = (
    '{"a": {"b": 1, "c": "b"}, "b": [1.5e308, 1.5e308]}',
    r'"a\\"',
    r'{"\\": "\\\"", "\"": "a"}',
    r'["\ud800", "\u0022"]',
    "-0",
    "1e-400",
)
REFUSED = {
    '{"a": 1, "a": 1}': "a key occurs twice",
    r'{"a": 1, "\u0061": 1}': "a key occurs twice",
    r'{"\\": 1, "\\": 1, "b": "c"}': "a key occurs twice",
    r'[{"\"": 1, "\"": {"x": "y"}}, "a\"b\"c"]': "a key occurs twice",
    '{"a": {"x": 1, "x": 2}, "a": 3}': "a key occurs twice",
    '{"a": 1,}': "double quotes", '["a\nb"]': "Invalid control", "[1 2]": "delimiter", "": "Expecting value", "\ufeff1": "BOM",
    "9" * 4301: "4300 digits", r'"\x41"': "escape", "01": "Extra data", "'a'": "Expecting value", "[1]\0": "Extra data",
}  # fmt: skip
NO_FIGURES = ("NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[1, -1e400]", "9" * 400 + ".0", "[1e999, -1e999]")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("text", [*DEPTHS, *TAKEN])
def test_what_is_sound_is_taken_as_python_takes_it(text: str) -> None:
    value, depth = decoded(text.encode(), finite=True)
    assert repr(value) == repr(json.loads(text))
    assert depth == DEPTHS.get(text, depth)


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("finite", [True, False])
def test_what_is_not_is_refused_in_pythons_words(text: str, finite: bool) -> None:
    with pytest.raises(ValueError, match=REFUSED[text]):
        decoded(text.encode(), finite=finite)


@pytest.mark.parametrize("data", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"'])
def test_what_is_no_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decoded(data, finite=True)


@pytest.mark.parametrize("text", NO_FIGURES)
def test_a_number_that_is_none_is_refused_only_where_figures_are_asked_for(text: str) -> None:
    with pytest.raises(ValueError, match="is no figure"):
        decoded(text.encode(), finite=True)
    assert repr(decoded(text.encode(), finite=False)[0]) == repr(json.loads(text))


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(RecursionError):
        decoded(b"[" * 100_000, finite=True)
    assert decoded(b"[" * 300 + b"]" * 300, finite=True)[1] == 300


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_value_comes_back_to_the_bit(value: Any, plain: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=plain, indent=indent)
    assert repr(decoded(text.encode("utf-8", "surrogatepass"), finite=True)[0]) == repr(json.loads(text))


@given(st.floats() | st.from_regex(r"-?(0|[1-9][0-9]{0,40})\.[0-9]{1,40}([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_a_fraction_is_pythons_to_the_bit(number: float | str) -> None:
    text = number if isinstance(number, str) else repr(number)
    if math.isfinite(float(text)):
        assert repr(decoded(text.encode(), finite=True)[0]) == repr(float(text))


@given(values)
def test_a_pair_that_is_written_twice_is_never_taken(value: Any) -> None:
    pairs = "".join(f"{json.dumps(key)}: {json.dumps(inner)}, " for key, inner in (("k", value), ('\\"k', [value])))
    decoded(f'{{{pairs}"last": 1}}'.encode(), finite=True)
    with pytest.raises(ValueError, match="a key occurs twice"):
        decoded(f'{{{pairs}{pairs}"last": 1}}'.encode(), finite=True)


@pytest.mark.parametrize(("text", "texts"), [("[]", 0), ('{"a": "b"}', 2), (r'"\"\u0022\n"', 1), (r'"\\"', -1)])
def test_texts_are_counted_by_their_quotes(text: str, texts: int) -> None:
    assert texts_in(text.encode()) == texts


def test_pythons_decoder_is_asked_only_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bytes]()
    guarded = json_text._guarded
    monkeypatch.setattr(json_text, "_guarded", lambda data, *, finite: asked.append(data) or guarded(data, finite=finite))
    assert decoded(rb'{"a": "\"\u200b", "b": [1.5, 2]}', finite=True)[0]["b"] == [1.5, 2]
    assert not asked
    decoded(rb'"\\"', finite=True)
    assert asked
