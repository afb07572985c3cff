"""Which weights of each of a run's models are opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import ScanConfig, VerifyConfig
from bdaudit.errors import UsageError
from bdaudit.measure.opening import inspected, open_state, variants_in
from tests.untrusted.edits import UNET
from tests.untrusted.ordinary import halved, named, store
from tests.untrusted.tiny import write_model


@pytest.fixture
def both(tmp_path: Path) -> Path:
    model = write_model(tmp_path / "both")
    store(model / named(UNET, "fp16"), halved(model / UNET))
    return model


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return write_model(tmp_path / "full")


def test_the_other_model_is_opened_by_the_same_variant_where_it_has_it(both: Path, full: Path, tmp_path: Path) -> None:
    """A backdoor in one set of weights is not looked for in the other set of the model that carried it."""
    config = VerifyConfig(model=tmp_path, variant="fp16")
    assert inspected(config, both).variants["unet"] == "fp16"
    assert inspected(config, full).variants["unet"] == ""


def test_the_model_under_audit_must_have_what_was_chosen(full: Path) -> None:
    with pytest.raises(UsageError, match="no part has such weights"):
        inspected(VerifyConfig(model=full, variant="fp16"), full)


def test_what_can_be_chosen_the_first_first(both: Path, full: Path, tmp_path: Path) -> None:
    assert variants_in(both) == ("full", "fp16")
    assert variants_in(full) == ("full",)
    assert variants_in(tmp_path / "nothing there") == ()


def test_kept_figures_of_two_precisions_do_not_mix(tmp_path: Path) -> None:
    def opened(dtype: str) -> None:
        asked = ScanConfig(model=tmp_path / "model", state=tmp_path / "state", device="cpu", dtype=dtype)  # type: ignore[arg-type]
        open_state("scan", asked, ("model", "state"), "digest").write_json("kept", [1])

    opened("auto")
    opened("float32")
    with pytest.raises(UsageError):
        opened("bfloat16")
