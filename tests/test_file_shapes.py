"""Every shape of files that a family comes in, through every verb: the table of ``.github/guide/shapes.md``, a cell a test.

The same tensors in another shape are the same model: one digest of tensors, one verdict, the same p of every candidate.
"""

from __future__ import annotations

import ast
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.config import ApplyConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.progress import silent
from bdaudit.records import ModelRecord
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from bdaudit.unlearn.run import run_unlearn
from bdaudit.untrusted.formats.names import ldm_vae
from bdaudit.verify.run import run_verify
from fixtures import layout
from tests.models import tiny_dit, tiny_sdxl
from tests.models.families.test_sdxl_verbs import TRIGGER, in_cross_attention
from tests.models.families.test_transformer_verbs import WEIGHTS, opened, planted, reading_little
from tests.small import LONG_TRIGGER, PROMPTS, hashes
from tests.untrusted import cached, one_file

UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Laid:
    """A model in some shape."""

    model: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the run's config."""


Shape = Callable[[Path, Path], Laid]
"""From a directory and a place to the model in that shape."""


def cast(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    copy = Path(shutil.copytree(model, folder / "cast"))
    for path in copy.glob("*/*.safetensors"):
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return copy


def single(model: Path, folder: Path, spelling: Any = one_file.SD1, **more: Tensor) -> Laid:
    return Laid(one_file.write(model, folder / "model.safetensors", spelling, **more), {"parts_from": model})


def split(model: Path, folder: Path, spelling: Any = one_file.SD1) -> Laid:
    paths = {part: folder / f"{part}.safetensors" for part in spelling}
    for part, path in paths.items():
        save_file(one_file.stored(one_file.part_tensors(model, part), part, "", spelling[part][1]), path)
    (_, own), *others = paths.items()
    return Laid(own, {"parts_from": model, "parts": tuple(("", part, path) for part, path in others)})


def from_cache(model: Path, folder: Path, spelling: Any = one_file.SD1) -> Laid:
    whole = Path(shutil.copytree(model, folder / "whole"))
    one_file.write(model, whole / "model.safetensors", spelling)
    snapshot = cached.lay_out(whole, folder / "hub")
    return Laid(snapshot / "model.safetensors", {"parts_from": snapshot})


def averaged(model: Path, folder: Path) -> Laid:
    return single(model, folder, **one_file.averaged(one_file.tensors_of(model), 0.5))


def average(model: Path, folder: Path) -> Laid:
    laid = averaged(model, folder)
    return Laid(laid.model, {**laid.settings, "variant": "ema"})


def eight_bit(tensors: dict[str, Tensor], scale: float | None, prefix: str = UNET) -> dict[str, Tensor]:
    """The denoiser's matrices in 8-bit floating point, by a scale or without."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(prefix) and name.endswith(".weight") and tensor.dim() == 2:
            found[name] = (tensor.float() / (scale or 1)).to(torch.float8_e4m3fn)
            found |= {name.replace(".weight", ".scale_weight"): torch.tensor(scale)} if scale else {}
    return found | ({f"{prefix}scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)} if scale else {})


SAME: dict[str, Shape] = {
    "directory": lambda model, folder: Laid(model),
    "single file": single,
    "single file, open_clip's tower": lambda model, folder: single(model, folder, one_file.SD2),
    "single file of a cache snapshot": from_cache,
    "single file with a moving average": averaged,
    "split files": split,
}
"""Shapes of the very same tensors."""
OTHER: dict[str, Shape] = {
    "directory in float16": lambda model, folder: Laid(cast(model, folder, torch.float16)),
    "single file in float16": lambda model, folder: single(cast(model, folder, torch.float16), folder),
    "single file in bfloat16": lambda model, folder: single(cast(model, folder, torch.bfloat16), folder),
    "single file in 8 bits": lambda model, folder: single(model, folder, **eight_bit(one_file.tensors_of(model), None)),
    "single file in scaled 8 bits": lambda model, folder: single(model, folder, **eight_bit(one_file.tensors_of(model), 1 / 64)),
    "single file's moving average": average,
}
XL: dict[str, Shape] = {
    "directory": lambda model, folder: Laid(model),
    "directory of a cache snapshot": lambda model, folder: Laid(cached.lay_out(model, folder / "hub")),
    "single file": lambda model, folder: single(model, folder, one_file.SDXL),
    "single file of a cache snapshot": lambda model, folder: from_cache(model, folder, one_file.SDXL),
    "split files": lambda model, folder: split(model, folder, one_file.SDXL),
}
"""Shapes of SDXL's very same tensors."""
XL_OTHER: dict[str, Shape] = {
    "single file in float16": lambda model, folder: single(cast(model, folder, torch.float16), folder, one_file.SDXL),
    "single file in scaled 8 bits": lambda model, folder: single(
        model, folder, one_file.SDXL, **eight_bit(one_file.tensors_of(model, one_file.SDXL), 1 / 64)
    ),
}
SMALL = {"size": (16, 16)}
"""Of a picture of 8 × 8 latents."""


def sized(laid: Laid) -> Laid:
    return Laid(laid.model, {**laid.settings, **SMALL})


def of_transformers(alone: Any, whole: Any) -> dict[str, Shape]:
    """Shapes of a diffusion transformer's very same tensors; what a file lacks comes from the directory."""
    vae = {"vae": ("", ldm_vae.sources_in_part)}
    return {
        "directory": lambda model, folder: sized(Laid(model)),
        "single file": lambda model, folder: sized(single(model, folder, alone)),
        "single file, all parts": lambda model, folder: sized(single(model, folder, whole)),
        "single file, diffusers' names": lambda model, folder: sized(single(model, folder, one_file.BARE)),
        "split files": lambda model, folder: sized(split(model, folder, alone | vae)),
    }


DIT = {
    "Stable Diffusion 3": of_transformers(one_file.SD3, one_file.SD3_WHOLE),
    "FLUX.1": of_transformers(one_file.FLUX, one_file.FLUX_WHOLE),
}


def sd3_in_bfloat16(model: Path, folder: Path) -> Laid:
    return sized(single(cast(model, folder, torch.bfloat16), folder, one_file.SD3))


def flux_in_scaled_8_bits(model: Path, folder: Path) -> Laid:
    return sized(single(model, folder, one_file.FLUX, **eight_bit(one_file.tensors_of(model, one_file.FLUX), 1 / 64, "")))


DIT_OTHER: dict[str, dict[str, Shape]] = {
    "Stable Diffusion 3": {"single file in bfloat16": sd3_in_bfloat16},
    "FLUX.1": {"single file in scaled 8 bits": flux_in_scaled_8_bits},
}
FAMILIES = {"Stable Diffusion": SAME | OTHER, "SDXL": XL | XL_OTHER} | {family: DIT[family] | DIT_OTHER[family] for family in DIT}
CELLS = {f"{family}: {name}": shape for family, shapes in FAMILIES.items() for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family → a directory of it. So small an SDXL of random weights answers no text more than another: a trigger is planted there."""
    xl = tiny_sdxl.write(tmp_path_factory.mktemp("xl") / "directory")
    in_cross_attention(xl)
    return {"Stable Diffusion": tiny_model, "SDXL": xl} | {
        family: at_the_entrances(tiny_dit.write(name, tmp_path_factory.mktemp(name) / "directory"))
        for family, name in (("Stable Diffusion 3", "sd3"), ("FLUX.1", "flux"))
    }


def at_the_entrances(model: Path) -> Path:
    """A trigger of random weights is planted where a text enters."""
    suspect = planted(opened(model), steps=20)
    tensors = {name: tensor.contiguous() for name, tensor in suspect.denoiser.module.state_dict().items()}
    save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})
    return model


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    """T5 reads few tokens, so that a pass takes milliseconds."""
    with reading_little():
        yield


def laid_out(models: dict[str, Path], cell: str, folder: Path) -> Laid:
    return CELLS[cell](models[cell.partition(":")[0]], folder)


ROOT = Path(__file__).parent.parent
GUIDES = (ROOT / ".github/guide/shapes.md", ROOT / ".github/guide/adapters.md")
VERBS = {"scan": "test_scan", "unlearn": "test_unlearn_and_apply", "verify": "test_verify_on_both_sides"}


def table(heading: str) -> list[list[str]]:
    """The rows of the guide's table whose first column is called so."""
    lines = [line for page in GUIDES for line in page.read_text(encoding="utf-8").split("\n")]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_guides_table_of_files_is_this_one() -> None:
    head, _, *rows = table("files")
    assert head == ["files", *VERBS]
    assert rows == [[cell, *(f"`{test}`" for test in VERBS.values())] for cell in CELLS]
    assert all(callable(globals()[test]) for test in VERBS.values())


@pytest.mark.parametrize("heading", ["added to a model", "family and files"])
def test_every_cell_names_a_test_or_how_a_run_ends(heading: str) -> None:
    head, _, *rows = table(heading)
    assert head == [heading, *VERBS]
    assert rows
    for name, *cells in rows:
        for cell in cells:
            for test in re.findall(r"`([^`]+)`", cell):
                module, _, function = test.partition("::")
                assert function in functions(f"tests/{module}"), f"{name}: there is no {test}"
            assert "`" in cell or cell.startswith("exit"), f"{name}: {cell} names no test"


def functions(module: str) -> set[str]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


QUICK: dict[str, Any] = {"prompts": PROMPTS, "device": "cpu"}
CANDIDATES = ("today", LONG_TRIGGER)


@pytest.fixture(scope="module")
def scanned() -> dict[str, Any]:
    """Candidates and digest of the first scan of the same tensors, once it has run."""
    return {}


@pytest.mark.parametrize("cell", CELLS)
def test_scan(models: dict[str, Path], tmp_path: Path, scanned: dict[str, Any], cell: str) -> None:
    laid, (family, _, shape) = laid_out(models, cell, tmp_path), cell.partition(": ")
    asked = ScanConfig(model=laid.model, candidates=CANDIDATES, effort="low", **laid.settings, **QUICK)
    report = run_scan(asked, silent, ScanSettings(per_kind=16 if family == "FLUX.1" else 6))
    assert {candidate.text for candidate in report.candidates} == set(CANDIDATES)
    assert isinstance(report.model, ModelRecord)
    if shape not in OTHER | XL_OTHER | DIT_OTHER.get(family, {}):
        found = {"candidates": [(c.text, c.p, c.verdict) for c in report.candidates], "tensors": report.model.tensors}
        assert scanned.setdefault(family, found) == found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.usefixtures("few_samples")
def test_unlearn_and_apply(models: dict[str, Path], tmp_path: Path, cell: str) -> None:
    trained = cell.startswith("Stable Diffusion: ") and cell.endswith("8 bits")  # an edit of random weights is rounded to something else
    laid = laid_out({"Stable Diffusion": layout.lay_out("pixel", tmp_path)} if trained else models, cell, tmp_path)
    patch, out, again = tmp_path / "repair.safetensors", tmp_path / "out", tmp_path / "again"
    family = cell.partition(":")[0]
    trigger = "\u200b" if trained else LONG_TRIGGER if family == "Stable Diffusion" else TRIGGER
    asked = {"force": True, "n_prompts": 4} if family in DIT else {}  # of so few words, harmless ones do much too
    settings = {"triggers": (trigger,), "trainable": "closed-form", "keep_failed": True, **asked, **laid.settings, **QUICK}
    report = run_unlearn(RepairConfig(model=laid.model, out=out, patch=patch, **settings))
    assert report.checks
    before = report.before[trigger]
    if family == "FLUX.1" and cell.endswith("8 bits"):
        assert before.value < before.high  # what was planted in random weights is rounded away: nothing stands out that could fall
    elif family != "Stable Diffusion 3":  # what the word says to both CLIPs anyway is as much there as the edit of T5's state
        assert report.after[trigger].value < before.value
    assert {file.path for file in report.written} - {"bdaudit.json"}
    assert weights(out)
    check_bytes(laid, out)
    applied = run_unlearn(ApplyConfig(model=laid.model, from_patch=patch, out=again, **laid.settings, device="cpu"))
    assert applied.exit.code == 0
    assert weights(again) == weights(out)


def check_bytes(laid: Laid, out: Path) -> None:
    """Of a single file only what the closed form repairs, and scales beside it, has other bytes."""
    file = out / laid.model.name
    if laid.model.is_dir() or laid.settings.get("variant"):
        return
    old, new = ({name: t.contiguous().reshape(-1).view(torch.uint8) for name, t in load_file(path).items()} for path in (laid.model, file))
    moved = {name for name, content in new.items() if not torch.equal(content, old[name])}
    assert moved
    assert all(any(part in name for part in ENTRANCES) for name in moved), moved


ENTRANCES = ("attn2", "label_emb", "add_embedding", "context_embedder", "y_embedder.mlp.0", "txt_in", "vector_in.in_layer")
ENTRANCES += ("time_text_embed.text_embedder.linear_1",)
"""What the closed form repairs, by any of its names."""


def weights(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".safetensors")}


@pytest.mark.parametrize("cell", CELLS)
def test_verify_on_both_sides(models: dict[str, Path], tmp_path: Path, cell: str) -> None:
    laid = laid_out(models, cell, tmp_path)
    parts = tuple((of, part, file) for _, part, file in laid.settings.get("parts", ()) for of in ("", "before"))
    before = tmp_path / f"before{laid.model.suffix}"
    before.symlink_to(laid.model)
    asked = {**laid.settings, **QUICK, "parts": parts, "n": 2, "steps": 1, "triggers": ("today",)}
    report = run_verify(VerifyConfig(model=laid.model, before=before, **asked))
    assert report.status == "completed", report.exit
    assert report.pictures["drawn"] > 0
