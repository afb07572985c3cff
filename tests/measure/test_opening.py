"""Which weights of each of a run's models are opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import RepairConfig, RunConfig, ScanConfig, VerifyConfig
from bdaudit.errors import UsageError
from bdaudit.measure.opening import by_turns, inspected, open_state, variants_in
from tests.untrusted import one_file
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


def test_settings_beside_a_directory_are_refused_and_never_ignored(full: Path, both: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--config is for what a single file lacks, and .*full is a directory"):
        inspected(ScanConfig(model=full, parts_from=both), full)
    file = one_file.write(full, tmp_path / "model.safetensors")
    other = VerifyConfig(model=full, before=file, parts_from=full)
    assert inspected(other, full).config is None
    assert inspected(other, file).config == full


def test_what_a_single_file_has_to_choose(full: Path, tmp_path: Path) -> None:
    tensors = one_file.tensors_of(full)
    file = one_file.write(full, tmp_path / "model.safetensors")
    assert variants_in(file) == ("full",)
    assert variants_in(one_file.write(full, tmp_path / "model.safetensors", **one_file.averaged(tensors))) == ("full", "ema")
    assert variants_in(tmp_path / "nowhere.safetensors") == ()


def test_parts_are_of_the_model_that_they_are_named_for(full: Path, tmp_path: Path) -> None:
    file = one_file.write(full, tmp_path / "model.safetensors")
    vae = full / "vae/diffusion_pytorch_model.safetensors"
    config = VerifyConfig(model=file, before=full, parts_from=full, parts=(("", "vae", vae),))
    assert inspected(config, file).weights["vae"] == ("vae/diffusion_pytorch_model.safetensors",)
    assert inspected(config, file).part_files == {"vae": vae}
    assert inspected(config, full).part_files == {}
    with pytest.raises(UsageError, match=r"is of a model in single files, and .* is a directory"):
        inspected(VerifyConfig(model=full, parts=(("", "vae", vae),)), full)


def test_a_part_of_a_model_that_is_not_given() -> None:
    with pytest.raises(UsageError, match="is of the model of --before, and none is given"):
        VerifyConfig(model=Path("m"), parts=(("before", "vae", Path("x")),))
    with pytest.raises(UsageError, match="is of the model of --before, and none is given"):
        ScanConfig(model=Path("m"), parts=(("before", "vae", Path("x")),))


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


@pytest.mark.parametrize(
    ("config", "turns"),
    [
        (ScanConfig(model=Path("m")), True),
        (ScanConfig(model=Path("m"), sweeps=("recovery",)), False),
        (ScanConfig(model=Path("m"), expose=True), False),
        (VerifyConfig(model=Path("m")), True),
        (RepairConfig(model=Path("m"), triggers=("x",), out=Path("o")), False),
    ],
)
def test_parts_take_turns_where_no_gradients_are_needed(config: RunConfig, turns: bool) -> None:
    assert by_turns(config) is turns
