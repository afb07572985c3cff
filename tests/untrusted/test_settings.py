"""Each kind of setting from both sides of its range."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.settings import (
    FLAG,
    NAME,
    NULL,
    TOKEN,
    TOKENS,
    WORD,
    Setting,
    check_settings,
    either,
    listed,
    number,
    optional,
    token_text,
    unknown_keys,
    whole,
)

CASES: list[tuple[Setting, list[Any], list[Any]]] = [
    (whole(1, 8), [1, 8], [0, 9, 10**400, True, 2.0, "2", None, [2], float("nan")]),
    (number(0, 1), [0, 1, 0.5, 1e-5], [-1e-9, 1.0001, True, float("nan"), float("inf"), "0", None, [0.5]]),
    (number(float("-inf"), 1), [float("-inf"), 1], [float("inf"), float("nan")]),
    (FLAG, [True, False, None], [0, 1, "true", []]),
    (NULL, [None], [False, 0, ""]),
    (NAME, ["silu", "UNetMidBlock2DCrossAttn", "a" * 100], ["", "a b", "a.b", "../a", "a\n", "é", "a" * 101, None, ["silu"]]),
    (WORD, ["dpmsolver++", "a" * 100], ["", "a" * 101, 1, None]),
    (listed(whole(1, 2), 2), [[], [1], [1, 2]], [[1, 2, 1], [3], 1, "12", {"1": 1}, None]),
    (listed(whole(1, 2), 2, 2), [[1, 2]], [[1], [1, 1, 1]]),
    (either(whole(1, 2), NAME), [1, "a"], [3, None]),
    (optional(whole(1, 2)), [1, None], [3]),
    (
        TOKEN,
        ["a", "", None, {"content": "a", "lstrip": False}, "a" * 1000],
        [1, ["a"], {}, {"content": 1}, "a" * 1001, {"content": "a" * 1001}],
    ),
    (TOKENS, [None, [], ["a", {"content": "a"}], {"boi": "a"}], ["a", 5, [1], [["a"]], {"boi": 1}, ["a" * 1001]]),
]


@pytest.mark.parametrize(("setting", "fitting", "others"), CASES, ids=lambda each: each.expected[:20] if isinstance(each, Setting) else "")
def test_a_setting_takes_its_range_and_nothing_else(setting: Setting, fitting: list[Any], others: list[Any]) -> None:
    assert all(setting.fits(value) for value in fitting), [value for value in fitting if not setting.fits(value)]
    assert not any(setting.fits(value) for value in others), [value for value in others if setting.fits(value)]


def test_what_is_out_of_range_is_named_with_what_was_expected() -> None:
    allowed = {"padding": whole(0, 8), "width": whole(1, 16_384), "name": NAME}
    check_settings({"padding": 8, "more": object()}, allowed, "unet/config.json")
    with pytest.raises(BdauditError, match=r"^unet/config\.json: padding is 4096; expected a whole number of 0 to 8; set what ") as caught:
        check_settings({"padding": 4096, "width": 1}, allowed, "unet/config.json")
    assert caught.value.code == 3
    with pytest.raises(BdauditError, match=r"expected a whole number of 1 to 16,384 \(and 1 more settings there are out of range\)"):
        check_settings({"width": 0, "name": "x" * 10**6}, allowed, "unet/config.json")


def test_keys_that_no_list_has() -> None:
    config = {"_class_name": "A", "width": 1, "architectures": [], "odd": {"deep": 1}, "global_step": 5}
    assert unknown_keys(config, {"width"}, {"architectures"}) == ("odd", "global_step")


def test_a_tokens_text() -> None:
    assert (token_text("a"), token_text({"content": "b"}), token_text(["a"]), token_text("a" * 1001)) == ("a", "b", None, None)
