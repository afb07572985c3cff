"""The command: what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdaudit.errors import ExitCode
from bdaudit.records import ScanReport
from bdaudit.report.__main__ import main
from tests.report.fleet.reports import scan, unaudited, write


def test_page_json_and_sarif_and_a_last_line(scan_report: ScanReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(scan(scan_report, "bad", ("ȏ", 0.001, "backdoored"), code=ExitCode.FINDING), tmp_path / "in" / "bad.json")
    write(unaudited(scan_report, "half"), tmp_path / "in" / "half.json")
    files = [tmp_path / f"fleet.{end}" for end in ("html", "json", "sarif")]
    flags = [word for flag, path in zip(("--out", "--json", "--sarif"), files, strict=True) for word in (flag, str(path))]
    assert main(["fleet", str(tmp_path / "in"), *flags]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bdaudit: exit 1 (finding): 1 of 2 reports with a finding; 1 reports say nothing of their model")
    document = json.loads(files[1].read_text())
    assert [row["model"] for row in document["reports"]] == ["bad", "half"]
    assert document["reports"][0]["over_all_models"]["holm"] == pytest.approx(0.002)
    assert document["policy"]["max_age_days"] == "not set"
    assert "unet/x.bin: a pickle" in files[0].read_text()
    assert json.loads(files[2].read_text())["version"] == "2.1.0"
    assert main(["fleet", str(tmp_path), *flags]) == 1, "its own files are no reports"
    assert len(json.loads(files[1].read_text())["reports"]) == 2
    assert json.loads(files[1].read_text())["not_read"] == []


def test_a_policy_says_what_passes(scan_report: ScanReport, tmp_path: Path) -> None:
    write(unaudited(scan_report, "half"), tmp_path / "in" / "half.json")
    (tmp_path / "p.toml").write_text("[fleet]\nmax_inconclusive = 1\n")
    assert main(["fleet", str(tmp_path / "in"), "--json", str(tmp_path / "f.json")]) == 4
    assert main(["fleet", str(tmp_path / "in"), "--json", str(tmp_path / "f.json"), "--policy", str(tmp_path / "p.toml")]) == 0


@pytest.mark.parametrize(
    "flags",
    [[], ["--out", "fleet.json"], ["--json", "missing/fleet.json"], ["--json", "a.json", "--policy", "missing.toml"], ["--ou", "a.html"]],
)
def test_a_wrong_command_line_ends_in_2_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fleet", ".", *flags]) == 2
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "--help"]) == 0
    assert "--policy" in capsys.readouterr().out
