"""``--component`` of models with several readers: a folder's name is that part alone, and none that the model has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdaudit import cli
from bdaudit.config import DENOISER, TEXT_ENCODER
from bdaudit.errors import ExitCode, UsageError
from bdaudit.models.load import load
from bdaudit.unlearn.outcome import _parts
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import LIST, SIZE, TRIGGER, reading_little
from tests.small import hashes, runs_with

READERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
WEIGHTS = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "unet": "transformer/diffusion_pytorch_model.safetensors",
    **{part: f"{part}/model.safetensors" for part in READERS},
}
"""What ``--component`` may say, and the file that a repair of it changes."""

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dit.write("sd3", tmp_path_factory.mktemp("components") / "sd3")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    (tmp_path / "prompts.txt").write_text("\n".join(LIST[:4]), encoding="utf-8")
    ended = runs_with(tmp_path / "prompts.txt", monkeypatch, capsys)
    size = "x".join(map(str, SIZE))
    flags = ("--trigger", TRIGGER, "--size", size, "--seed", 0, "--steps", 2, "--n-prompts", 4, "--keep-failed", "--force")
    return lambda model, *more: ended("unlearn", model, *flags, *more)


@pytest.mark.parametrize("component", WEIGHTS)
def test_the_named_part_alone_is_changed(run: Any, model: Path, tmp_path: Path, component: str) -> None:
    trained = ("--trainable", "closed-form") if component in ("unet", "transformer") else ()
    _, report = run(model, "--component", component, *trained, "--out", tmp_path / "out")
    part = "transformer" if component == DENOISER else component
    assert (report["component"], report["component_reason"]) == (part, "named by --component")
    before, after = hashes(model), hashes(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {WEIGHTS[component]}
    assert {tensor["name"].split(".")[0] for tensor in report["changed"]} == {part}


def test_one_reader_is_trained_whole_and_all_of_them_by_their_common_name(model: Path) -> None:
    suspect = load(inspect(model, size=SIZE), device="cpu")
    of_each = [set(Patch(suspect, part).parameters) for part in READERS]
    for part, names in zip(READERS, of_each, strict=True):
        assert names == {f"{part}.{name}" for name, _ in suspect.text.modules[part].named_parameters()}
    assert set(Patch(suspect, TEXT_ENCODER).parameters) == set().union(*of_each)


HEEDING = ("transformer", *READERS)


def test_what_a_component_lets_a_repair_change() -> None:
    assert _parts(HEEDING, "auto") == HEEDING
    assert _parts(HEEDING, "unet") == _parts(HEEDING, "transformer") == ("transformer",)
    assert _parts(HEEDING, "text-encoder") == READERS
    for part in READERS:
        assert _parts(HEEDING, part) == (part,)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--component text_encoder_3: this model has unet, text_encoder; name one of them"):
        _parts(("unet", "text_encoder"), "text_encoder_3")
    with pytest.raises(UsageError, match="--component transformer: this model has unet"):
        _parts(("unet", "text_encoder"), "transformer")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_part_that_the_model_has_not_is_a_wrong_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, dry: tuple[str, ...]
) -> None:
    model = tiny_dit.write("sd3 without T5", tmp_path / "without")
    said = ["bdaudit", "unlearn", model, "--trigger", TRIGGER, "--component", "text_encoder_3", "--out", tmp_path / "out", *dry]
    monkeypatch.setattr("sys.argv", list(map(str, said)))
    assert cli.main() == ExitCode.USAGE
    assert "this model has transformer, text_encoder, text_encoder_2; name one of them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
