"""What crosses is data: to the bit, bounded, and of its kind."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.config import RunConfig, ScanConfig, VerifyConfig
from bdaudit.errors import BdauditError
from bdaudit.workers import wire
from bdaudit.workers.wire import Answer, Hello, ModelAsked, Setup, packed, unpacked
from tests.workers.here import HELLO


def test_every_message_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    asked = ModelAsked.of(ScanConfig(model=tmp_path / "m", adapters=((Path("a.safetensors"), 0.5),), size=(64, 32)))
    assert unpacked(packed(HELLO), Hello, "x") == HELLO
    setup = Setup(bench="scan", model=asked, settings={"prompts": ["a\ud800"]}, threads=2)
    assert unpacked(packed(setup), Setup, "x") == setup
    assert asked.adapters == ((Path("a.safetensors").absolute(), 0.5),)
    assert asked.config().size == (64, 32)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_a_float_crosses_to_the_bit(values: list[float]) -> None:
    answer = Answer(value=values)
    assert repr(unpacked(packed([answer]), list[Answer], "x")[0].value) == repr(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_none_crosses_in_neither_direction(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        packed([Answer(value=value)])
    with pytest.raises(BdauditError, match="is no figure"):
        unpacked(f'[{{"value": {value}}}]'.replace("nan", "NaN").replace("inf", "Infinity").encode(), list[Answer], "x")


@pytest.mark.parametrize(
    "data", [pickle.dumps([1]), b"", b"[1]", b'[{"passes": "many"}]', b'[{"value": 1, "value": 2}]', b"[" * 100, [Answer()]]
)
def test_what_is_no_message_is_told_with_its_sender(data: Any) -> None:
    with pytest.raises(BdauditError, match="worker 7"):
        unpacked(data, list[Answer], "worker 7")


def test_a_message_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (wire.MOST_BYTES, wire.MOST_ITEMS) == (2**28, 2**24)
    data = packed([Answer(value="x" * 100)])
    monkeypatch.setattr(wire, "MOST_BYTES", len(data))
    assert unpacked(data, list[Answer], "x")
    monkeypatch.setattr(wire, "MOST_BYTES", len(data) - 1)
    with pytest.raises(BdauditError, match="expected at most"):
        unpacked(data, list[Answer], "x")


def test_a_worker_opens_its_model_by_every_setting_that_the_run_does(tmp_path: Path) -> None:
    others = {"prompts", "prompts_file", "seed"}  # those do not open it
    assert set(ModelAsked.__dataclass_fields__) == {*RunConfig.__dataclass_fields__} - others | set(wire.ADDED)
    asked = ModelAsked.of(ScanConfig(model=tmp_path, trusted_templates=("ab" * 32,), strict=True))
    assert unpacked(packed(asked), ModelAsked, "x").config() == RunConfig(model=tmp_path, trusted_templates=("ab" * 32,), strict=True)


@pytest.mark.parametrize("most", [1000, 999])
def test_a_message_holds_so_many_things(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed([0] * 1000)
    monkeypatch.setattr(wire, "MOST_ITEMS", most)
    if most == 1000:
        assert unpacked(data, list[int], "x") == [0] * 1000
        return
    with pytest.raises(BdauditError, match="x"):
        unpacked(data, list[int], "x")


def test_workers_are_told_of_the_main_model_s_parts_alone() -> None:
    parts = (("", "vae", Path("v.safetensors")), ("before", "vae", Path("b.safetensors")))
    config = VerifyConfig(model=Path("m"), before=Path("b"), parts=parts)
    assert ModelAsked.of(config).parts == (("", "vae", Path("v.safetensors").absolute()),)


def test_a_hubs_name_stays_a_name() -> None:
    assert ModelAsked.of(ScanConfig(model=Path("org/model"))).model == Path("org/model")
