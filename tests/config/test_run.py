"""What every command's config takes and refuses: devices, sizes, names of weights, parts, and places that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import CleanConfig, RepairConfig, RunConfig, ScanConfig, VerifyConfig
from bdaudit.config.run import GUIDANCE, need_apart
from bdaudit.errors import UsageError

MODEL: dict[str, Any] = {"model": Path("model")}


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:999"])
def test_a_device_is_taken(device: str) -> None:
    assert RunConfig(**MODEL, device=device).device == device


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:1000", "CPU", "cpu ", "cpu\n"])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="--device is"):
        RunConfig(**MODEL, device=device)


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (-8, 8), (8, 4), (4, 8)])
def test_a_size_is_of_positive_multiples_of_8(size: tuple[int, int]) -> None:
    assert RunConfig(**MODEL, size=(8, 8)).size == (8, 8)
    with pytest.raises(UsageError, match="--size is"):
        RunConfig(**MODEL, size=size)


@pytest.mark.parametrize("variant", ["", "full", "all", "fp16", "non-ema", "v1.0_b"])
def test_a_variant_is_part_of_a_name(variant: str) -> None:
    assert RunConfig(**MODEL, variant=variant).variant == variant
    for wrong in ("/", " ", "\n", "*"):
        with pytest.raises(UsageError, match="--variant is"):
            RunConfig(**MODEL, variant=variant + wrong)


def test_a_part_is_of_a_model_that_is_given() -> None:
    own, other = ("", "vae", Path("v")), ("before", "unet", Path("u"))
    config = VerifyConfig(**MODEL, before=Path("b"), parts=(own, other))
    assert config.parts_of(Path("model")) == {"vae": Path("v")}
    assert config.parts_of(Path("b")) == {"unet": Path("u")}
    assert config.parts_of(Path("elsewhere")) == {}
    for of in ("before", "nobody"):
        with pytest.raises(UsageError, match=f"--part {of}:unet=FILE is of the model of --{of}, and none is given"):
            VerifyConfig(**MODEL, parts=(own, (of, "unet", Path("u"))))


def test_folders_are_written_before_files_and_nothing_that_was_not_asked_for() -> None:
    places = {"out": Path("out"), "patch": Path("p.safetensors"), "state": Path("kept")}
    config = RepairConfig(**MODEL, triggers=("x",), **places)
    assert [flag for flag, _ in config.written] == ["--out", "--state", "--patch"]
    assert dict(config.written) == {"--out": Path("out"), "--state": Path("kept"), "--patch": Path("p.safetensors")}
    assert ScanConfig(**MODEL).written == ()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([("--report", Path("/"))], "is the root of the disk"),
        ([("--out", Path("a")), ("--report", Path("a/r.json"))], "--report a/r.json lies in --out a, which is written whole"),
        ([("--report", Path("a/r.json")), ("--state", Path("a"))], "--report a/r.json lies in --state a"),
        ([("--out", Path("a")), ("--patch", Path("b/../a"))], "lies in --out a"),
        ([("--report", Path("r.json")), ("--save-images", Path("r.json"))], "are one place; name another"),
    ],
)
def test_two_places_that_would_be_one_are_refused(written: list[tuple[str, Path]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        need_apart(written)


@pytest.mark.parametrize(
    "written",
    [
        [],
        [("--report", Path("a"))],
        [("--out", Path("a")), ("--report", Path("ab/r.json")), ("--state", Path("a.state"))],
        [("--save-images", Path("a")), ("--report", Path("a/r.json"))],
    ],
)
def test_places_apart_are_taken_and_a_report_beside_pictures(written: list[tuple[str, Path]]) -> None:
    need_apart(written)


def test_a_trigger_is_not_empty() -> None:
    assert VerifyConfig(**MODEL, triggers=(" ", "x")).triggers == (" ", "x")
    with pytest.raises(UsageError, match="a trigger is the empty string"):
        VerifyConfig(**MODEL, triggers=("x", ""))


def test_a_cleaning_is_of_the_text_encoder() -> None:
    for component in ("auto", "text-encoder"):
        assert CleanConfig(**MODEL, out=Path("o"), pairs=Path("p.tsv"), component=component).component == component
    for component in ("unet", "transformer", "text_encoder_2"):
        with pytest.raises(UsageError, match=f"--component says {component}"):
            CleanConfig(**MODEL, out=Path("o"), pairs=Path("p.tsv"), component=component)


def test_a_template_is_trusted_by_its_whole_digest() -> None:
    digest = "0123456789abcdef" * 4
    assert RunConfig(**MODEL, trusted_templates=(digest,)).trusted_templates == (digest,)
    for wrong in (digest[:-1], digest + "0", digest.upper(), digest[:-1] + "g", digest + "\n", ""):
        with pytest.raises(UsageError, match="--trust-template is"):
            RunConfig(**MODEL, trusted_templates=(digest, wrong))


def test_a_guidance_scale_that_is_given_is_taken_and_else_the_default() -> None:
    assert [RunConfig(**MODEL, guidance_scale=scale).guidance for scale in (None, 0.0, 7.5)] == [GUIDANCE, 0.0, 7.5]


def test_places_are_told_apart_through_links_and_a_link_to_itself_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    need_apart([("--report", tmp_path / "loop"), ("-o", tmp_path / "file")])
    for one, other in (("loop", "loop"), ("link", "file")):
        with pytest.raises(UsageError, match="are one place"):
            need_apart([("--report", tmp_path / one), ("-o", tmp_path / other)])
