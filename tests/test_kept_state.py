"""A run's folder: what is kept comes back equal, whole or not at all, and only to the run that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bdaudit import kept_state, state_lock
from bdaudit.errors import BdauditError, UsageError
from bdaudit.kept_state import State, check_shapes
from bdaudit.measure.envelope import run_key

KEY = run_key("unlearn", {"steps": 3}, "ab" * 32)


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Each test as a run of its own."""
    yield
    state_lock.release()


def test_the_key_tells_command_settings_and_model_apart() -> None:
    others = [run_key("scan", {"steps": 3}, "ab" * 32), run_key("unlearn", {"steps": 4}, "ab" * 32), run_key("unlearn", {"steps": 3}, "cd")]
    assert len({KEY, *others}) == 4
    assert run_key("unlearn", {"b": "ȏ", "a": 1}, "x") == run_key("unlearn", {"a": 1, "b": "ȏ"}, "x")


def test_what_is_kept_comes_back_equal(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(4, 3).bfloat16().t()}
    first = State(tmp_path / "s", KEY)
    assert first.read_json("x") is None
    assert first.read_tensors("t") is None
    state_lock.release()
    assert not (tmp_path / "s").exists(), "a run that keeps nothing leaves no folder"
    first.write_json("x", {"value": 0.1 + 0.2, "text": "\u202eȏ"})
    first.write_tensors("t", tensors, {"step": 7})
    second = State(tmp_path / "s", KEY)
    assert second.read_json("x") == {"value": 0.1 + 0.2, "text": "\u202eȏ"}
    found, notes = second.read_tensors("t") or ({}, None)
    assert notes == {"step": 7}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "s", KEY)
    state.write_tensors("t", {"a": torch.zeros(2)}, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BdauditError, match="No space left"):
        state.write_tensors("t", {"a": torch.ones(2)}, 2)
    found, notes = State(tmp_path / "s", KEY).read_tensors("t") or ({}, None)
    assert notes == 1
    assert torch.equal(found["a"], torch.zeros(2))


def test_another_runs_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    State(tmp_path / "s", KEY).write_json("x", 1)
    with pytest.raises(UsageError, match="the state of another run"):
        State(tmp_path / "s", run_key("unlearn", {"steps": 4}, "ab" * 32))
    assert State(tmp_path / "s", KEY).read_json("x") == 1


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    State(tmp_path / "s", KEY)
    (tmp_path / "s/holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="no run left there"):
        State(tmp_path / "s", KEY)
    with pytest.raises(UsageError, match="is a file"):
        State(tmp_path / "s/holiday.jpg", KEY)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"[" * 100_000, b"\xff" * 40, b"NaN", b"1e999", b'{"key": Infinity}'])
def test_damaged_files_are_told(tmp_path: Path, content: bytes) -> None:
    state = State(tmp_path / "s", KEY)
    state.write_json("x", 1)
    for name in ("kept-x.json", "kept-t.safetensors"):
        (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"kept-x\.json is damaged"):
        state.read_json("x")
    with pytest.raises(UsageError, match=r"kept-t\.safetensors is damaged"):
        state.read_tensors("t")
    (tmp_path / "s/run.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        State(tmp_path / "s", KEY)


@pytest.mark.parametrize("content", ["5", "null", "[]", "[[1, 2]]", '[{"a": "x"}, true]', '[{"a": 1.5}, true, 1]'])
def test_what_is_of_another_kind_is_told_as_damage(tmp_path: Path, content: str) -> None:
    state = State(tmp_path / "s", KEY)
    state.write_json("x", ({"a": 1.5}, True))
    assert state.read_json("x", tuple[dict[str, float], bool]) == ({"a": 1.5}, True)
    (tmp_path / "s/kept-x.json").write_text(content)
    with pytest.raises(UsageError, match=r"kept-x\.json is damaged .*; remove the folder to begin anew"):
        state.read_json("x", tuple[dict[str, float], bool])


def test_notes_of_another_kind_are_told_as_damage(tmp_path: Path) -> None:
    state = State(tmp_path / "s", KEY)
    state.write_tensors("t", {}, [1, 2])
    assert state.read_tensors("t", tuple[int, float]) == ({}, (1, 2.0))
    with pytest.raises(UsageError, match=r"kept-t\.safetensors is damaged .*; remove the folder to begin anew"):
        state.read_tensors("t", tuple[int, str])


def test_a_tensor_with_nan_is_told_as_damage(tmp_path: Path) -> None:
    state = State(tmp_path / "s", KEY)
    state.write_tensors("t", {"a": torch.tensor([-torch.inf, 0.0])}, None)
    assert state.read_tensors("t") is not None
    state.write_tensors("t", {"a": torch.tensor([torch.nan, 0.0])}, None)
    with pytest.raises(UsageError, match="holds NaN"):
        state.read_tensors("t")
    with pytest.raises(ValueError, match="Out of range"):
        state.write_json("x", [float("nan")])


def test_shapes_that_would_be_stretched_are_told() -> None:
    check_shapes({"a": torch.zeros(2, 3), "more": torch.zeros(1)}, {"a": torch.ones(2, 3)})
    for kept in ({}, {"a": torch.zeros(1, 3)}):
        with pytest.raises(ValueError, match="a is missing or of another shape"):
            check_shapes(kept, {"a": torch.ones(2, 3)})


def test_what_is_kept_stays_until_the_report_is_delivered(tmp_path: Path) -> None:
    first, second = State(tmp_path / "first", KEY), State(tmp_path / "second", KEY)
    first.write_json("x", 1)
    second.write_json("x", 1)
    first.finish()
    assert first.read_json("x") == 1
    state_lock.delivered()
    state_lock.release()
    assert os.listdir(tmp_path) == ["second"], "an unfinished run's state stays"
    assert sorted(os.listdir(tmp_path / "second")) == ["kept-x.json", "run.json"]


def test_removing_takes_its_own_files_and_no_others(tmp_path: Path) -> None:
    state = State(tmp_path / "s", KEY)
    state.remove()
    state.write_json("x", 1)
    state.write_tensors("t", {"a": torch.zeros(1)}, None)
    (tmp_path / "s/.kept-t.safetensors.partial").write_bytes(b"half")
    state.remove()
    assert os.listdir(tmp_path) == []
    state.write_json("x", 2)
    (tmp_path / "s/report.json").write_text("x")
    state.remove()
    assert os.listdir(tmp_path / "s") == ["report.json"]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = State(None, KEY)
    state.write_json("x", 1)
    state.write_tensors("t", {"a": torch.zeros(1)}, None)
    assert state.read_json("x") is None
    assert state.read_tensors("t") is None
    state.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("limits", "taken"), [((0, 0), True), ((-1, 0), False), ((0, -1), False)])
def test_what_is_kept_is_read_within_limits(limits: tuple[int, int], taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_state.LIMITS == (2**28, 2**24)
    State(tmp_path / "s", KEY).write_json("x", ["a" * 500, 1])  # more bytes than the run's own file, and as many items
    state = State(tmp_path / "s", KEY)
    monkeypatch.setattr(kept_state, "LIMITS", ((tmp_path / "s/kept-x.json").stat().st_size + limits[0], 2 + limits[1]))
    if taken:
        assert state.read_json("x") == ["a" * 500, 1]
        return
    with pytest.raises(UsageError, match=r"x\.json is damaged"):
        state.read_json("x")


@pytest.mark.parametrize(
    ("run", "another"), [('{"key": "ours"}', False), ('{"key": "theirs"}', True), ("[]", True), ("no JSON", True), (None, False)]
)
def test_whose_state_a_folder_holds(tmp_path: Path, run: str | None, another: bool) -> None:
    if run is not None:
        (tmp_path / kept_state.RUN).write_text(run)
    assert kept_state._of_another(tmp_path, "ours") == another
