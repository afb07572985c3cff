"""Where a scan's seed comes from: a person, a secret and the model, or the system; and an interrupted run keeps its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdaudit.cli.seeds import KEPT, fresh_seed
from bdaudit.errors import UsageError
from bdaudit.scan import run as run_of_scan
from bdaudit.scan.opening import keyed_seed
from tests.cli.conftest import Ended
from tests.small import PROMPTS, stopping

Run = Callable[..., Ended]
SECRET = "BDAUDIT_TEST_SECRET"


def test_a_seed_follows_from_the_secret_and_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {}
    for secret in ("one", "two", "ȏ", "\udcff"):
        monkeypatch.setenv(SECRET, secret)
        for digest in ("ab" * 32, "cd" * 32):
            seeds[secret, digest] = keyed_seed(SECRET, digest)
            assert keyed_seed(SECRET, digest) == seeds[secret, digest]
            monkeypatch.setenv("ANOTHER_NAME", secret)
            assert keyed_seed("ANOTHER_NAME", digest) == seeds[secret, digest]
    assert len(set(seeds.values())) == 8
    assert all(0 <= seed < 2**31 for seed in seeds.values())


def test_it_is_the_keyed_hash_that_the_documentation_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "key")
    # RFC 2104 with SHA-256, of this key and sentence: f7bc83f4 30538424 …
    assert keyed_seed(SECRET, "The quick brown fox jumps over the lazy dog") == 0xF7BC83F4 >> 1


def test_a_seed_from_the_system_where_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for state in (None, tmp_path / "missing", tmp_path / "empty"):
        seeds = {fresh_seed(state) for _ in range(8)}
        assert len(seeds) == 8
        assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("place", ["", "variant-fp16"])
def test_a_kept_seed_is_taken_again(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for kept, seed in (("17", 17), ("0", 0), ("17".ljust(64), 17)):
        (tmp_path / place / KEPT).write_text(kept)
        assert fresh_seed(tmp_path) == seed


@pytest.mark.parametrize("place", ["model", "model/variant-fp16", "variant-fp16/unet"])
def test_a_seed_that_lies_deeper_is_nobodys(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / KEPT).write_text("17")
    assert len({fresh_seed(tmp_path) for _ in range(4)}) == 4


@pytest.mark.parametrize("kept", ["-1", "1.5", "true", '"17"', "[17]", "null", "1" * 80, "seventeen", "", "17".ljust(65)])
def test_what_is_no_seed_is_told(tmp_path: Path, kept: str) -> None:
    (tmp_path / KEPT).write_text(kept)
    with pytest.raises(UsageError):
        fresh_seed(tmp_path)


def test_a_kept_seed_behind_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("17")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / KEPT).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UsageError):
        fresh_seed(tmp_path / "state")


def test_the_flags(bdaudit: Run, verb: Any, model: Path, scan_report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = verb("scan", scan_report)
    monkeypatch.setenv(SECRET, "one")
    for flags in ((), (), ("--seed", 7), ("--seed-from", SECRET)):
        bdaudit("scan", model, *flags)
    drawn, again, given, keyed = seen
    assert drawn.seed != again.seed
    assert (given.seed, given.seed_from) == (7, "")
    assert keyed.seed_from == SECRET


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--seed-from", "NO_SUCH_VARIABLE"), "--seed-from NO_SUCH_VARIABLE: no such environment variable, or it is empty"),
        (("--seed-from", ""), "--seed-from is empty; expected the name of an environment variable"),
        (("--seed-from", SECRET), "no such environment variable, or it is empty; put the secret there"),
        (("--seed-from", "HOME", "--seed", 0), "--seed and --seed-from both say what the seed is; give one"),
        (("--seed", -1), "--seed is -1"),
    ],
)
def test_what_gives_no_seed_is_exit_2_before_any_work(
    bdaudit: Run, verb: Any, model: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[object, ...], said: str
) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    monkeypatch.setenv(SECRET, "")
    monkeypatch.setenv("HOME", "/")
    ended = bdaudit("scan", model, *flags)
    assert (ended.code, seen) == (2, [])
    assert said in ended.last


@pytest.fixture
def scan(bdaudit: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Ended, Any]]:
    """A cheap scan of the small model; how it ended, and its report."""
    monkeypatch.chdir(tmp_path)
    Path("tokens.txt").write_text("cf\n")
    Path("prompts.txt").write_text("\n".join(PROMPTS))

    def run(*more: object) -> tuple[Ended, Any]:
        cheap = ("--effort", "low", "--quiet", "--device", "cpu", "--report", "scan.json")
        ended = bdaudit("scan", tiny_model, "--candidates", "tokens.txt", "--prompts", "prompts.txt", *cheap, *more)
        return ended, json.loads(Path("scan.json").read_text())

    return run


def test_a_secret_makes_the_seed_of_the_run_and_the_last_line_says_it(scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "one")
    ended, report = scan("--seed-from", SECRET)
    seed = keyed_seed(SECRET, report["model"]["digest"])
    assert report["config"]["seed"] == seed
    assert report["exit"]["reason"].endswith(f"; seed {seed}")
    assert f"seed {seed}" in ended.last
    assert "one" not in json.dumps([report["config"], report["exit"]]).replace('"none"', "").split('"'), "the secret stays where it is"
    assert not Path("scan.state").exists()


def test_an_interrupted_run_goes_on_with_its_own_seed(scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_of_scan.run_scan
    monkeypatch.setattr("secrets.randbelow", lambda most: 7)
    monkeypatch.setattr(run_of_scan, "run_scan", lambda config, progress: whole(config, stopping(3)))
    ended, report = scan()
    assert (ended.code, report["status"]) == (130, "interrupted")
    seed = report["config"]["seed"]
    assert seed == 7
    assert json.loads(Path("scan.state", KEPT).read_text()) == seed
    monkeypatch.setattr(run_of_scan, "run_scan", whole)
    monkeypatch.setattr("secrets.randbelow", lambda most: 8)
    ended, report = scan()
    assert ended.code in (0, 1)
    assert report["config"]["seed"] == seed
    assert f"; seed {seed}; report: " in ended.last
    assert not Path("scan.state").exists()
