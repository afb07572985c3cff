"""What a single file predicts: by its marks, its metadata, and as ComfyUI tells; never where loaders disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdaudit.errors import InconclusiveError
from bdaudit.untrusted import layouts
from bdaudit.untrusted.formats import prediction
from bdaudit.untrusted.formats.names.renaming import Source
from bdaudit.untrusted.formats.pieces import Piece
from bdaudit.untrusted.formats.reference_settings import REFERENCES, Reference, written
from bdaudit.untrusted.formats.single_file import Held, OneFile
from bdaudit.untrusted.safetensors_header import Header, TensorInfo
from bdaudit.untrusted.tree import Reader

SD1, SD2 = REFERENCES["stable-diffusion"]
(SDXL,) = REFERENCES["sdxl"]
TELLING = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"


def told(reference: Reference, folder: Path, names: tuple[str, ...] = (), said: str | None = None, spread: float = 0.0) -> dict[str, Any]:
    """What is known of a file with these marks, this metadata, and one tensor of that spread."""
    bias = np.float16([-spread, spread])
    (folder / "model.safetensors").write_bytes(bias.tobytes())
    reader = Reader(folder, {"model.safetensors": bias.nbytes})
    metadata = {} if said is None else {"modelspec.prediction_type": said}
    file = OneFile("model.safetensors", reader, "model.safetensors", Header(b"", dict.fromkeys(names, TensorInfo("F16", (1,))), metadata))
    pieces = {TELLING: Piece(file.key, Source("x"), TensorInfo("F16", (2,)))}
    return prediction.settings(file, Held(layouts.LAYOUTS["stable-diffusion"], {"unet": pieces}), reference)


def test_the_first_predicts_noise(tmp_path: Path) -> None:
    assert told(SD1, tmp_path, spread=1.0) == {"prediction_type": "epsilon"}


@pytest.mark.parametrize(("spread", "predicts"), [(0.08, "epsilon"), (0.1, "v_prediction")])
def test_the_second_is_told_as_loaders_tell_it(tmp_path: Path, spread: float, predicts: str) -> None:
    assert told(SD2, tmp_path, spread=spread) == {"prediction_type": predicts}


def test_one_that_predicts_v_draws_768_pixels() -> None:
    unets = [json.loads(written(SD2, {"prediction_type": kind})["unet/config.json"]) for kind in ("epsilon", "v_prediction")]
    assert [unet["sample_size"] for unet in unets] == [64, 96]


@pytest.mark.parametrize(("said", "predicts"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_metadata_count_before_a_guess(tmp_path: Path, said: str, predicts: str) -> None:
    assert told(SD2, tmp_path, said=said, spread=1.0) == {"prediction_type": predicts}


def test_what_loaders_read_differently_is_not_decided(tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="the mark v_pred, which loaders of Stable Diffusion 1 do not all read"):
        told(SD1, tmp_path, names=("v_pred",))
    with pytest.raises(InconclusiveError, match="says that it predicts sample"):
        told(SD1, tmp_path, said="sample")


@pytest.mark.parametrize("said", [None, "v", "epsilon"])
def test_marks_and_metadata_that_contradict_each_other(tmp_path: Path, said: str | None) -> None:
    if said != "epsilon":
        assert told(SDXL, tmp_path, names=("v_pred",), said=said)["prediction_type"] == "v_prediction"
        return
    with pytest.raises(InconclusiveError, match="has the mark v_pred, and says in its header that it predicts epsilon"):
        told(SDXL, tmp_path, names=("v_pred",), said=said)


@pytest.mark.parametrize("marks", [(), ("v_pred",), ("v_pred", "ztsnr")])
def test_sdxls_marks_are_read_by_all_loaders(tmp_path: Path, marks: tuple[str, ...]) -> None:
    found = told(SDXL, tmp_path, names=marks)
    assert found["prediction_type"] == ("v_prediction" if marks else "epsilon")
    assert found.get("rescale_betas_zero_snr", False) == ("ztsnr" in marks)
