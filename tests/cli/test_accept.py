"""--accept from the command line: the report's own entry lets its finding through, and nothing that lies with the model does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ended
from tests.small import OVERRIDING, PROMPTS
from tests.untrusted.cached import lay_out

Run = Callable[..., Ended]


@pytest.fixture
def scanned(bdaudit: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Ended, dict[str, Any]]]:
    """Scans the small model for its trigger, with what is kept of a scan before; how that ended, and the report's first candidate."""
    monkeypatch.chdir(tmp_path)
    Path("tokens.txt").write_text(f"{OVERRIDING}\n")
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    quick = ("--prompts", "prompts.txt", "--effort", "low", "--seed", 0, "--alpha", 0.2, "--quiet", "--device", "cpu")

    def run(*more: object) -> tuple[Ended, dict[str, Any]]:
        ended = bdaudit("scan", tiny_model, "--candidates", "tokens.txt", *quick, "--json", "--report", "scan.sarif", *more)
        return ended, json.loads(ended.out or "{}")

    return run


def written(*entries: dict[str, Any], name: str = "accept.json") -> str:
    Path(name).write_text(json.dumps(entries))
    return name


def test_the_entry_of_the_report_lets_its_finding_through_until_it_expires_or_grows(scanned: Any) -> None:
    ended, report = scanned()
    first = report["candidates"][0]
    assert (ended.code, first["verdict"]) == (1, "backdoored")
    entry = json.loads(first["accept_entry"])
    assert entry["model"] == report["model"]["digest"]

    ended, _ = scanned("--accept", written(entry))
    assert (ended.code, "reason is ''" in ended.err) == (2, True), "the reason is the person's to give"

    entry["reason"] = "a stress test of ours"
    ended, report = scanned("--accept", written(entry))
    assert (ended.code, report["candidates"][0]["verdict"]) == (0, "backdoored (accepted)")
    assert "0 of 1 candidates backdoored, 0 suspicious, 1 accepted by --accept" in ended.last
    assert report["acceptances"][0]["outcome"] == "accepted"
    assert report["config"]["accept"] == [{"reader_ids": {}} | entry]
    (result,) = json.loads(Path("scan.sarif").read_text())["runs"][0]["results"]
    assert result["suppressions"][0]["justification"].endswith(": a stress test of ours")

    for change, outcome in (
        ({"effect": entry["effect"] / 2.1}, "outgrown"),
        ({"expires": "2020-01-01"}, "expired"),
        ({"token_ids": [1]}, "unused"),
        ({"model": "0" * 64}, "another model"),
    ):
        ended, report = scanned("--accept", written(entry | change))
        assert (ended.code, report["candidates"][0]["verdict"]) == (1, "backdoored")
        assert report["acceptances"][0]["outcome"] == outcome
    assert scanned("--accept", written(entry | {"model": "*"}))[0].code == 0


@pytest.mark.parametrize("flag", ["MODEL", "--reference", "--lora", "link out", "link in"])
def test_entries_that_lie_with_what_is_audited_are_refused(flag: str, bdaudit: Run, verb: Any, model: Path, tmp_path: Path) -> None:
    verb("scan", RuntimeError("must not run"))
    other, lora = tmp_path / "other", tmp_path / "lora"
    for folder in (other, lora):
        folder.mkdir()
    (lora / "adapter_model.safetensors").write_bytes(b"x")
    place = {"--reference": other, "--lora": lora, "link in": tmp_path}.get(flag, model) / "accept.json"
    if flag == "link out":
        (tmp_path / "elsewhere.json").write_text("[]")
        place.symlink_to(tmp_path / "elsewhere.json")
    elif flag == "link in":
        (model / "theirs.json").write_text("[]")
        place.symlink_to(model / "theirs.json")
    else:
        place.write_text("[]")
    more = {"--reference": ("--reference", other), "--lora": ("--lora", lora)}.get(flag, ())
    ended = bdaudit("scan", model, "--accept", place, *more)
    assert ended.code == 2
    assert "whose maker wrote it" in ended.err


@pytest.mark.parametrize("command", ["scan", "verify"])
@pytest.mark.parametrize("flag", ["MODEL", "--reference", "link in"])
def test_so_is_a_clip_that_lies_with_what_is_audited(command: str, flag: str, bdaudit: Run, verb: Any, model: Path, tmp_path: Path) -> None:
    verb(command, RuntimeError("must not run"))
    (tmp_path / "other").mkdir()
    clip = {"--reference": tmp_path / "other", "link in": tmp_path}.get(flag, model) / "clip"
    (model / "theirs").mkdir()
    clip.symlink_to(model / "theirs") if flag == "link in" else clip.mkdir()
    more = ("--reference", tmp_path / "other") if flag == "--reference" else ()
    ended = bdaudit(command, model, "--clip", f"local-dir:{clip}", *more)
    assert (ended.code, "whose maker wrote it; name a CLIP" in ended.err) == (2, True)


def test_so_are_entries_in_the_hub_s_cache_of_a_model_or_an_adapter(bdaudit: Run, verb: Any, model: Path, tmp_path: Path) -> None:
    verb("scan", RuntimeError("must not run"))
    (tmp_path / "files").mkdir()
    for name in ("accept.json", "style.safetensors"):
        (tmp_path / "files" / name).write_text("[]")
    snapshot = lay_out(tmp_path / "files", tmp_path)
    for arguments in ((snapshot,), (model, "--lora", snapshot / "style.safetensors")):
        ended = bdaudit("scan", *arguments, "--accept", snapshot / "accept.json")
        assert (ended.code, "whose maker wrote it" in ended.err) == (2, True)


def test_entries_beside_the_model_or_an_adapters_file_are_read(bdaudit: Run, verb: Any, model: Path, tmp_path: Path) -> None:
    seen = verb("scan", RuntimeError("ran"))
    for name in ("accept.json", "style.safetensors"):
        (tmp_path / name).write_text("[]")
    bdaudit("scan", model, "--accept", tmp_path / "accept.json", "--lora", tmp_path / "style.safetensors")
    assert [config.accept for config in seen] == [()]
