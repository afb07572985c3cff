"""What `verify` may be asked for together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.errors import UsageError


def test_a_report_as_evidence_stands_in_for_the_model_before(tmp_path: Path) -> None:
    report = tmp_path / "scan.json"
    assert VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=report).evidence == report
    with pytest.raises(UsageError, match="stands in for --before"):
        VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=report, before=tmp_path / "b")


def test_a_report_out_of_the_model_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whose maker wrote it"):
        VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=tmp_path / "m/scan.json")


TARGETS: list[dict[str, Any]] = [{"target_image": Path("p.png")}, {"target_text": "a cat"}, {"swaps": (("dog", "cat"),)}]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_one_target_is_taken_and_two_are_refused(target: dict[str, Any]) -> None:
    VerifyConfig(model=Path("m"), **target)
    for other in TARGETS:
        if other != target:
            with pytest.raises(UsageError, match="give one of --target-image"):
                VerifyConfig(model=Path("m"), **target, **other)


def test_a_target_text_says_more_than_the_prompt() -> None:
    assert VerifyConfig(model=Path("m"), target_text="{prompt} on fire").target_text
    with pytest.raises(UsageError, match="without a backdoor"):
        VerifyConfig(model=Path("m"), target_text=" {prompt} ")


def test_places_of_a_trigger() -> None:
    known = ("prefix", "middle", "suffix", "replace", "comma", "clause", "apart")
    assert VerifyConfig(model=Path("m"), positions=known).positions == known
    with pytest.raises(UsageError, match="--position is 'before', 'nowhere'; expected prefix"):
        VerifyConfig(model=Path("m"), positions=("prefix", "nowhere", "before"))


def test_a_report_is_evidence_of_a_trigger(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is about a trigger"):
        VerifyConfig(model=tmp_path / "m", evidence=tmp_path / "scan.json")
    for word in ("required", "none"):
        assert VerifyConfig(model=tmp_path / "m", evidence=word).evidence == word  # type: ignore[arg-type]


def test_quality_is_compared_with_the_reference_and_else_with_what_was_before() -> None:
    model, before, reference = Path("m"), Path("b"), Path("r")
    assert VerifyConfig(model=model).baseline is None
    assert VerifyConfig(model=model, before=before).baseline == before
    assert VerifyConfig(model=model, reference=reference).baseline == reference
    both = VerifyConfig(model=model, before=before, reference=reference)
    assert (both.baseline, both.models) == (reference, (model, before, reference))
    assert VerifyConfig(model=model, reference=reference).models == (model, reference)


def test_an_adapter_is_of_the_model_that_it_names() -> None:
    own, of_before = ("", Path("a.safetensors"), 1.0), ("before", Path("b.safetensors"), 0.5)
    config = VerifyConfig(model=Path("m"), before=Path("b"), adapters=(own, of_before))
    assert (config.adapters_of(""), config.adapters_of("before")) == ((own[1:],), (of_before[1:],))
    assert config.adapters_of("reference") == ()
    with pytest.raises(UsageError, match=r"--lora before:b\.safetensors is applied to the model of --before, and none is given"):
        VerifyConfig(model=Path("m"), adapters=(own, of_before))


def test_a_context_is_where_a_trigger_works() -> None:
    assert VerifyConfig(model=Path("m"), triggers=("x",), contexts=("snow",)).contexts == ("snow",)
    with pytest.raises(UsageError, match="--context is where a trigger works"):
        VerifyConfig(model=Path("m"), contexts=("snow",))
    with pytest.raises(UsageError, match="--context is empty"):
        VerifyConfig(model=Path("m"), triggers=("x",), contexts=("snow", " "))
