"""``--settings``: any option of any verb, a flag over it, and nothing in it that a person would not have meant."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdaudit.cli.settings_file import GATE
from bdaudit.config import JOBS, ScanConfig, VerifyConfig
from bdaudit.config.flag import flags
from tests.hostile_doors import DEEP, HOLE
from tests.untrusted.cached import lay_out


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BDAUDIT_SETTINGS", raising=False)
    Path("tokens.txt").write_text("cf\n")


def file(text: str, name: str = "team.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_a_file_is_what_would_be_typed_and_a_flag_wins(bdaudit: Any, verb: Any, model: Path, scan_report: Any) -> None:
    seen = verb("scan", scan_report)
    typed = ("--dtype", "float32", "--candidates", "tokens.txt", "--sweep", "unicode", "--size", "64", "--strict", "--seed", "3")
    bdaudit("scan", model, *typed, "--alpha", "0.02", "--report", "a.json")
    settings = file(
        'dtype = "float32"\nseed = 3\n[scan]\ncandidates = "tokens.txt"\nsweep = ["unicode"]\nsize = 64\nstrict = true\nalpha = 0.02\n'
        'report = "a.json"\nonce = false\n[verify]\nmax-asr = 0.1\n[unlearn]\nlora = ["missing.safetensors"]\n'
    )
    bdaudit("scan", model, "--settings", settings)
    bdaudit("scan", model, "--settings", settings, "--alpha", "0.3", "--sweep", "pairs")
    assert seen[0] == seen[1]
    assert (seen[2].alpha, seen[2].sweeps, seen[2].seed) == (0.3, ("pairs",), 3)


def test_the_environment_names_it_and_a_flag_another(
    bdaudit: Any, verb: Any, model: Path, scan_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = verb("scan", scan_report)
    monkeypatch.setenv("BDAUDIT_SETTINGS", file("seed = 5"))
    bdaudit("scan", model)
    bdaudit("scan", model, "--settings", file("seed = 6", "own.toml"))
    monkeypatch.setenv("BDAUDIT_SETTINGS", "missing.toml")
    ended = bdaudit("scan", model)
    assert ([config.seed for config in seen], ended.code) == ([5, 6], 2)
    assert "missing.toml" in ended.last


def test_no_file_is_looked_for(bdaudit: Any, verb: Any, model: Path, scan_report: Any) -> None:
    seen = verb("scan", scan_report)
    for folder in (Path(), model):
        for name in ("bdaudit.toml", ".bdaudit.toml", "settings.toml", "pyproject.toml"):
            (folder / name).write_text('[scan]\nfail-on = "never"\n[tool.bdaudit.scan]\nfail-on = "never"\n')
    bdaudit("scan", model)
    assert seen[0].fail_on == "backdoored"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[scan]\nfail-in = 'never'", "[scan] 'fail-in' is no option there; expected some of"),
        ("[verify]\nmax-sar = 0.1", "[verify] 'max-sar' is no option there"),
        ("alpha = 0.1", "'alpha' stands above the tables, and is an option of [scan]; put it below that line"),
        ("max_distance = 1", "'max_distance' stands above the tables, and is an option of [verify]; put it below that line"),
        ("clip = 'x'", "'clip' stands above the tables, and is no option of every verb, but of [scan] and"),
        ("alpha-beta = 0.1", "above the tables, 'alpha-beta' is no option there"),
        ("[scam]\nalpha = 0.1", "unknown table 'scam'; expected some of [scan], [unlearn], [verify]"),
        ("[scan]\nmodel = 'x'", "'model' is no option there"),
        ("[scan]\nsettings = 'other.toml'", "'settings' is no option there"),
        ("[scan]\nfail-on = 'never'\nfail_on = 'never'", "stands twice"),
        ("[scan]\nstrict = 'false'", "[scan] strict is 'false'; expected true or false"),
        ("[scan]\nalpha = true", "[scan] alpha is True; expected what would be typed"),
        ("[scan]\nalpha = [0.1]", "[scan] alpha is [0.1]; expected what would be typed"),
        ("[scan]\nsweep = [[1]]", "expected what would be typed"),
        ("[scan.scan]\nalpha = 0.1", "[scan] 'scan' is no option there"),
        ("[scan]\nalpha = 'much'", "It is from --settings team.toml; report: none"),
        ("[scan]\nfail-on = 'always'", "It is from --settings team.toml; report: none"),
        ("[scan]\nalpha = nan", "--alpha is nan"),
        ("[scan]\nalpha = 9", "--alpha is 9.0"),
        ("[scan]\nkeep = ''", "--keep"),
        ('[scan]\nstate = "a\\u0000b"', "NUL"),
        ("[scan]\nseed = 1979-05-27", "expected what would be typed"),
        ("[scan", "expected TOML"),
        ("[scan]\nalpha = 0.1\nalpha = 0.2", "expected TOML"),
        (f"[scan]\nsweep = {DEEP}", "more than 2,000 lines, or one of more than 1,000 characters"),
    ],
)
def test_what_is_not_meant_is_exit_2_before_any_work(bdaudit: Any, verb: Any, model: Path, text: str, said: str) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    ended = bdaudit("scan", model, "--settings", file(text))
    assert (ended.code, ended.out, seen) == (2, "", []), ended.err
    assert said in " ".join(ended.err.split())


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "a hole": lambda path: (path.touch(), os.truncate(path, HOLE)),
    "70 kB": lambda path: path.write_text("#\n" * 35_000),
    "a key of 900 parts and more": lambda path: path.write_text(("a." * 490 + "a = 1\n") * 4),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "nothing at all": lambda path: None,
}


@pytest.mark.parametrize("name", ODD)
def test_a_hostile_file_is_exit_2_and_waits_for_nobody(bdaudit: Any, verb: Any, model: Path, name: str) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    ODD[name](Path("odd.toml"))
    ended = bdaudit("scan", model, "--settings", "odd.toml")
    assert (ended.code, seen) == (2, [])
    assert "Traceback" not in ended.err


def test_never_from_a_folder_that_is_opened(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, verify_report: Any) -> None:
    seen = verb("verify", verify_report)
    for folder in ("photos", "other", "clip", "parts"):
        Path(folder).mkdir()
        file("[verify]\nmax-asr = 1\n", f"{folder}/team.toml")
    file("[verify]\nmax-asr = 1\n", f"{model}/team.toml")
    Path("link.toml").symlink_to(model / "team.toml")
    snapshot = lay_out(model, tmp_path / "cache")
    (snapshot.parents[1] / "team.toml").write_text("[verify]\nmax-asr = 1\n")
    opened = {
        f"{model}/team.toml": (model,),
        "link.toml": (model,),
        "other/team.toml": (model, "--before", "other"),
        "photos/team.toml": (model, "--real-images", "photos"),
        "clip/team.toml": (model, "--clip", "local-dir:clip"),
        "parts/team.toml": (model, "--config", "parts"),
        str(snapshot.parents[1] / "team.toml"): (snapshot,),
    }
    for place, arguments in opened.items():
        ended = bdaudit("verify", *arguments, "--settings", place)
        assert (ended.code, seen) == (2, []), place
        assert f"--settings {place} lies in" in " ".join(ended.err.split())
    assert bdaudit("verify", model, "--settings", "photos/team.toml").code == verify_report.exit.code, "that folder is not opened"


def test_what_touches_the_gate_stands_in_the_last_line_and_the_report(bdaudit: Any, verb: Any, model: Path, scan_report: Any) -> None:
    verb("scan", scan_report)
    settings = file('device = "cpu"\n[scan]\nfail-on = "never"\nalpha = 0.2\nworkers = 1\neffort = "low"\n')
    ended = bdaudit("scan", model, "--settings", settings, "--report", "s.json")
    assert "from --settings team.toml: --fail-on never, --alpha 0.2, --workers 1; report: s.json" in ended.last
    assert "from --settings team.toml: --fail-on never" in json.loads(Path("s.json").read_text())["exit"]["reason"]
    flags = ("--fail-on", "never", "--alpha", "0.2", "--workers", "1")
    assert "from --settings" not in bdaudit("scan", model, "--settings", settings, *flags).last, "a person typed all of it"
    quiet = file('device = "cpu"\n[scan]\neffort = "low"\n')
    assert "from --settings" not in bdaudit("scan", model, "--settings", quiet).last


def test_the_gates_options_are_options() -> None:
    assert {name for kind in (ScanConfig, VerifyConfig, *JOBS) for name in flags(kind)} >= GATE


def test_a_policy_file_is_settings_and_two_files_do_not_argue(bdaudit: Any, verb: Any, model: Path, verify_report: Any) -> None:
    seen = verb("verify", verify_report)
    policy = file("[verify]\nmax_asr = 0.1\nmin_clip_ratio = 0.9\n")
    bdaudit("verify", model, "--policy", policy)
    bdaudit("verify", model, "--settings", policy)
    assert [(config.max_asr, config.min_clip_ratio) for config in seen] == [(0.1, 0.9)] * 2
    ended = bdaudit("verify", model, "--policy", policy, "--settings", file("[verify]\nmax-asr = 1\n", "lax.toml"))
    assert (ended.code, len(seen)) == (2, 2)
    assert "both say max_asr" in ended.last
