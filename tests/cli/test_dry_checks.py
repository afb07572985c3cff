"""A dry run ends where the run would end, and says what the run could not do; and how much it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.cli.dry_checks import foreseen
from bdaudit.config import MergeConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.records import ScanReport
from bdaudit.report.document import dumps
from tests.small import hashes, stopping

PROMPTS = ("a cf dog", "a cat", "the cf sea")


def seen(name: str, pipeline: str = "P") -> Any:
    return SimpleNamespace(
        layout=SimpleNamespace(name=name, heeding=("unet",)), pipeline_class=pipeline, settings={"vae": {}}, latents=(8, 8),
        parameters={}, largest={}, components=(),
        digest="ab" * 32,
    )  # fmt: skip


def test_models_of_two_families_are_told_or_refused() -> None:
    scan = ScanConfig(model=Path("m"), reference=Path("r"))
    assert foreseen(scan, [seen("sd"), seen("sd")]) == ()
    (said,) = foreseen(scan, [seen("sd", "Own"), seen("flux", "Other")])
    assert said == "--reference r is a Other, and MODEL a Own: parts cannot be exchanged, so no finding is located"
    (said,) = foreseen(VerifyConfig(model=Path("m"), before=Path("r")), [seen("sd", "Own"), seen("flux", "Other")])
    assert said.startswith("r is a Other, and MODEL a Own: they may read a trigger as other tokens")
    merge = MergeConfig(model=Path("m"), base=Path("b"), merge_with=((Path("."), 1.0),), out=Path("o"))
    with pytest.raises(UsageError, match="b is a Other, and MODEL a Own; only fine-tunes of one base"):
        foreseen(merge, [seen("sd", "Own"), seen("flux", "Other"), seen("sd", "Own")])


def test_prompts_that_hold_what_is_tested_are_named() -> None:
    scan = ScanConfig(model=Path("m"), prompts=PROMPTS, candidates=("xy",))
    assert foreseen(scan, [seen("sd")]) == ()
    (said,) = foreseen(replace(scan, candidates=("cf", "xy")), [seen("sd")])
    assert "'cf' in 2 of 3; take other prompts" in said
    (said,) = foreseen(replace(scan, candidates=("a", "c", "f", "cf")), [seen("sd")])
    assert "and 1 more" in said
    (said,) = foreseen(replace(scan, prompts=(), candidates=("dog",)), [seen("sd")])
    assert "of 240; take other prompts" in said, "the built-in ones, where no others are given"


@pytest.mark.parametrize(
    "config", [ScanConfig(model=Path("m"), clip="local-dir:missing"), VerifyConfig(model=Path("m"), clip="local-dir:missing")]
)
def test_a_graders_folder_that_is_none_is_told(config: Any) -> None:
    with pytest.raises(UsageError, match="--clip local-dir:missing"):
        foreseen(config, [seen("sd")])


@pytest.mark.parametrize(
    ("n", "bound", "said"),
    [(72, 0.05, "73 pictures"), (73, 0.05, ""), (9, 1.0, ""), (200, 0.01, "381 pictures"), (9, 0.0, "no number of pictures")],
)
def test_pictures_that_are_too_few_to_pass_are_told(n: int, bound: float, said: str) -> None:
    verify = VerifyConfig(model=Path("m"), triggers=("~~",), n=n, max_asr=bound, target_text="a cat")
    found = foreseen(verify, [seen("sd")])
    assert [said in note for note in found] == [True] * bool(said)
    assert foreseen(replace(verify, triggers=()), [seen("sd")]) == ()
    if said and bound:
        enough = int(said.split()[0])
        assert foreseen(replace(verify, n=enough), [seen("sd")]) == ()
        assert foreseen(replace(verify, n=enough - 1), [seen("sd")]) != ()


@pytest.mark.parametrize(("positions", "least"), [((), 125), (("prefix",), 73), (("prefix", "middle", "suffix", "replace"), 100)])
def test_without_a_target_each_position_takes_its_pictures(positions: tuple[str, ...], least: int) -> None:
    verify = VerifyConfig(model=Path("m"), triggers=("~~",), n=least, positions=positions)
    assert foreseen(verify, [seen("sd")]) == ()
    (said,) = foreseen(replace(verify, n=least - 1), [seen("sd")])
    assert f"{least} pictures are the least" in said


def test_a_context_that_few_prompts_say_is_told() -> None:
    repair = RepairConfig(model=Path("m"), out=Path("o"), triggers=("~~",), contexts=("sea",), prompts=PROMPTS)
    with pytest.raises(AttributeError):
        foreseen(repair, [seen("sd")])  # its result is looked at first
    (said,) = foreseen(VerifyConfig(model=Path("m"), triggers=("~~",), contexts=("sea",), prompts=PROMPTS), [seen("sd")])
    assert said.startswith("1 of 3 prompts say 'sea'")


def test_a_machine_that_the_weights_do_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.models.memory.room_of", lambda where: 1000)
    large = seen("sd")
    large.parameters = {"unet": 10**9}
    with pytest.raises(BdauditError, match=r"the weights take 4\.0 GB in float32"):
        foreseen(ScanConfig(model=Path("m"), device="cpu"), [large])


def test_workers_without_ray_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--workers needs Ray"):
        foreseen(ScanConfig(model=Path("m"), workers="2"), [seen("sd")])


# --- as typed -----------------------------------------------------------------------------------


@pytest.fixture
def dry(bdaudit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dry run of what is typed: its code, its warnings and its cost, and its last line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, list[str], str, str]:
        ended = bdaudit(*arguments, "--dry-run", "--json", "--device", "cpu")
        plan = json.loads(ended.out) if ended.out else {}
        return ended.code, plan.get("not_measured", []), plan.get("cost", ""), ended.last

    return run


def test_passes_minutes_and_bytes_of_every_job(dry: Any, tiny_model: Path, tmp_path: Path) -> None:
    merge = ("unlearn", tiny_model, "--base", tiny_model, "--merge-with", tiny_model)
    for arguments in (("scan", tiny_model), ("unlearn", tiny_model, "--trigger", "cf"), ("verify", tiny_model), merge):
        code, _, cost, last = dry(*arguments)
        assert code == 0, last
        assert "forward passes" in cost
        assert " passes, by a batch of random weights (" in cost
        assert "bytes of models" in cost
        assert (", writes up to " in cost) is (arguments[0] == "unlearn")
    assert f"keeps up to {12 * 4 * 4 * 200:,} bytes of pictures" in dry("verify", tiny_model, "--state", "s")[2]
    assert not list(tmp_path.iterdir())


def test_a_scans_clip_that_is_not_here_and_a_visions(dry: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bdaudit.measure import open_clip_model

    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: None)
    code, notes, *_ = dry("scan", tiny_model, "--clip", "ViT-L-14/openai")
    assert (code, len(notes)) == (0, 1)
    assert "hf download" in notes[0]
    assert dry("scan", tiny_model, "--clip", "nonsense")[0] == ExitCode.USAGE


def test_candidates_that_encode_to_nothing(dry: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bdaudit.measure import understood

    Path("tokens.txt").write_text("cf\nmn\n")
    monkeypatch.setattr(understood, "content_ids", lambda tokenizer, text: () if text == "cf" else (1,))
    code, notes, *_ = dry("scan", tiny_model, "--candidates", "tokens.txt")
    assert (code, notes) == (0, ["1 of 2 candidates encode to no token of this model, and are skipped: 'cf'"])
    Path("tokens.txt").write_text("cf\n")
    code, _, _, last = dry("scan", tiny_model, "--candidates", "tokens.txt")
    assert (code, "nothing would be tested" in last) == (ExitCode.INCONCLUSIVE, True)
    assert dry("scan", tiny_model, "--candidates", "tokens.txt", "--sweep", "unicode")[0] == 0


def test_an_entry_that_has_run_out(dry: Any, tiny_model: Path) -> None:
    entry = {"model": "*", "token_ids": [1], "reason": "known", "effect": 2.0}
    Path("a.json").write_text(json.dumps([entry | {"expires": "2020-01-31"}, entry | {"expires": "2999-01-31", "token_ids": [2]}]))
    assert dry("scan", tiny_model, "--accept", "a.json")[:2] == (0, ["--accept: 1 of 2 entries have run out, and let nothing through"])


def test_a_report_of_another_model(dry: Any, tiny_model: Path, scan_report: ScanReport) -> None:
    Path("s.json").write_text(dumps(scan_report))
    code, _, _, last = dry("unlearn", tiny_model, "--from-report", "s.json")
    assert (code, "is of abab" in last) == (ExitCode.USAGE, True)
    code, notes, *_ = dry("verify", tiny_model, "--trigger", "cf", "--evidence", "s.json", "--max-asr", "0.5")
    assert code == 0
    assert any("--evidence s.json: the report of scan is of abababababab" in note for note in notes)


@pytest.mark.parametrize(("size", "at", "code"), [((4, 4), "0,0", 0), ((4, 4), "13,0", 2), ((40, 40), "0,0", 2)])
def test_a_target_outside_the_picture(dry: Any, tiny_model: Path, size: tuple[int, int], at: str, code: int) -> None:
    from PIL import Image

    Image.new("RGB", size).save("t.png")
    assert dry("verify", tiny_model, "--trigger", "cf", "--target-image", f"t.png@{at}")[0] == code


def test_what_a_repair_reads_and_writes(dry: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bdaudit.unlearn import outcome

    Path("p.safetensors").write_bytes(b"not a patch")
    Path("pairs.tsv").write_text("a.png\ta cat\n")
    for arguments in (("--from-patch", "p.safetensors"), ("--method", "cleanclip", "--pairs", "pairs.tsv")):
        code, _, _, last = dry("unlearn", tiny_model, *arguments, "--out", "o")
        assert (code, arguments[-1] in last) == (ExitCode.USAGE, True), last
    monkeypatch.setattr(outcome.check_writable.__globals__["targets"], "check_room", no_room)
    assert dry("unlearn", tiny_model, "--trigger", "cf", "--out", "o")[0] == ExitCode.ERROR


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
def test_a_state_of_another_run_and_of_this_one(
    dry: Any, bdaudit: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, clip: Path, name: str
) -> None:
    """What a real run leaves there when it is stopped at its beginning."""
    from bdaudit.cli import verbs

    graded = ("--n", "6", "--steps", "1", "--batch-size", "2", "--clip", f"local-dir:{clip}")
    command = {"scan": ("--seed", "3"), "unlearn": ("--trigger", "~" * 24), "verify": graded}[name]
    whole = verbs.carried_out
    monkeypatch.setattr("bdaudit.cli.outcome.carried_out", lambda config, progress: whole(config, stopping(2)))
    assert bdaudit(name, tiny_model, *command, "--state", "s", "--device", "cpu", "-q").code == ExitCode.INTERRUPTED
    before = hashes(Path("s"))
    assert before
    assert dry(name, tiny_model, *command, "--state", "s")[0] == 0
    other = {"scan": ("--seed", "4"), "unlearn": ("--trigger", "mn"), "verify": ()}[name]
    code, _, _, last = dry(name, tiny_model, *other, "--state", "s")
    assert (code, "holds the state of another run" in last) == ((0, False) if name == "verify" else (ExitCode.USAGE, True))
    assert hashes(Path("s")) == before
    Path("other").mkdir()
    Path("other/x").touch()
    assert dry(name, tiny_model, *command, "--state", "other")[0] == ExitCode.USAGE
    assert [path.name for path in Path("other").iterdir()] == ["x"]


def no_room(folder: Path, needed: int, said: str) -> None:
    raise BdauditError(f"{said} has no room")
