"""One small report of each verb, with hostile text wherever a text can stand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bdaudit.records import (
    AttackRecord,
    Calibration,
    CandidateRecord,
    ChangedTensor,
    Check,
    ContributorRecord,
    Coverage,
    Environment,
    Estimate,
    Exit,
    FileRecord,
    LossPoint,
    Metric,
    ModelRecord,
    NotMeasured,
    ScanReport,
    SignalRecord,
    Skipped,
    UnlearnReport,
    VerifyReport,
)

if TYPE_CHECKING:
    from bdaudit.models.suspect import Suspect

os.environ["OMP_NUM_THREADS"] = "1"  # two processes of one thread each are twice as fast as one of two; torch is not yet imported here

ESCAPE, BIDI, ZERO_WIDTH = "\x1b[31mred\x1b[0m\x07", "\u202egnp.exe", "a\u200bb"
MARKUP, SCRIPT, LINK = "[bold]x[/bold][/]", "<script>alert(1)</script>\"'><img src=x onerror=y>", "[click](https://example.org) {0} {{7*7}}"
HOSTILE = (ESCAPE, BIDI, ZERO_WIDTH, MARKUP, SCRIPT, LINK, "\u0301", "\ue000", "\u2028", "\x9b31m", "ȏ")
ALL = " ".join(HOSTILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that no process waits for it at the end."""
    items.sort(key=lambda item: "test_chain" not in item.nodeid)


def _envelope(command: str, code: int, name: str, reason: str) -> dict[str, Any]:
    return {
        "command": command,
        "status": "completed",
        "exit": Exit(code=code, name=name, reason=reason),
        "created_at": "2026-01-02T03:04:05+00:00",
        "timings": {"load": 1.5, "probe": 20.25},
        "model": ModelRecord(
            path="models/suspect", pipeline="StableDiffusionPipeline", digest="ab" * 32,
            files=(FileRecord(path="model_index.json", bytes=541, sha256="cd" * 32),), notes=(f"unused pickle {ALL}",),
            tensors=NotMeasured(reason="weights from a pickle"),
        ),
        "environment": Environment(
            python="3.11.9", torch="2.6.0", diffusers="0.38.0", transformers="4.48.0", device="cpu", dtype="float32",
            batch_size_asked=64, batch_size_used=32,
        ),
        "config": {"model": "models/suspect", "seed": 0, "prompts": [ALL]},
        "coverage": Coverage(
            asked=3, tested=2, skipped=(Skipped(what=ALL, reason="encodes to nothing"),), not_looked_at=("image conditions",)
        ),
        "limitations": ("only what was listed was tested; a pass is no proof of absence",),
        "tool": {"name": "bdaudit", "version": "0.1.0"},
    }  # fmt: skip


def _candidate(rank: int, text: str, verdict: Any) -> CandidateRecord:
    found = verdict != "clean"
    return CandidateRecord(
        rank=rank, text=text, codepoints=tuple(f"U+{ord(c):04X}" for c in text), token_ids=(49406, rank), kind="character",
        signals={
            "noise shift": SignalRecord(value=0.5, score=9.5 - rank, p=0.001),
            "override": SignalRecord(value=0.25, score=-1.5, p=0.5),
        },
        score=10.0 - rank, effect=12.5, p=0.00001, p_adjusted=0.0005 if found else 1.0, verdict=verdict,
        component="unet" if found else "not localised", command=f"bdaudit unlearn models/suspect --trigger {text}" if found else "",
    )  # fmt: skip


def estimate(value: float, n: int = 200) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=min(1.0, value * 1.1), n=n, method="Wilson 95 %")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No run of a test, in whatever process, keeps anything in the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def stays() -> Iterator[None]:
    """No test leaves the process in another directory, where a Ray that is started after it would look for this code."""
    here = os.getcwd()
    yield
    assert os.getcwd() == here


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip directory with random weights."""
    from tests.verify import toy

    return toy.write_clip(tmp_path_factory.mktemp("graders") / "clip")


@pytest.fixture
def hostile() -> tuple[str, ...]:
    """Texts that act on a terminal, a browser, a SARIF viewer or Rich where they are not made inert."""
    return HOSTILE


@pytest.fixture
def scan_report() -> ScanReport:
    """Eleven hostile candidates, then thirty clean words."""
    hostile = [_candidate(k + 1, text, "backdoored" if k % 2 == 0 else "suspicious") for k, text in enumerate(HOSTILE)]
    clean = [_candidate(len(HOSTILE) + k + 1, f"word{k}", "clean") for k in range(30)]
    return ScanReport(
        **_envelope("scan", 1, "finding", f"6 of 41 candidates backdoored, the first: {ALL}"),
        candidates=(*hostile, *clean),
        calibration=Calibration(
            n_controls=120, kinds={"word": 60, "character": 60}, quantiles={"0.5": 1.0, "0.99": 4.0}, tail="generalised Pareto, 20 points",
            alpha=0.01, forward_passes=5000, forward_passes_per_candidate=72,
        ),
    )  # fmt: skip


@pytest.fixture
def unlearn_report() -> UnlearnReport:
    """Two triggers, a curve of five points, one failed check."""
    return UnlearnReport(
        **_envelope("unlearn", 1, "finding", "the repaired model fails its own check"),
        triggers=("ȏ", ALL), method="skd-cag", component="unet", component_reason="the text encoder's states do not move", steps=40,
        loss=tuple(LossPoint(step=10 * k, total=1.0 / (k + 1), terms={"noise": 0.5 / (k + 1), "attention": 0.25}) for k in range(5)),
        changed=(ChangedTensor(name="unet/down.0.attn2.to_k.weight", relative_change=0.01),),
        before={f"effect of {ALL}": estimate(0.95)}, after={f"effect of {ALL}": estimate(0.06)},
        checks=(
            Check(name="trigger removed", status="failed", value=estimate(0.06), bound="≤ 0.05", reason=ALL),
            Check(name="quality kept", status="not measured", value=NotMeasured(reason="no grader"), bound="none"),
        ),
        out="models/suspect-unlearned", written=(FileRecord(path="unet/w.safetensors", bytes=10, sha256="ef" * 32),),
        next_command=f"bdaudit verify models/suspect-unlearned --trigger {ALL}",
        merged=(
            ContributorRecord(
                path=ALL, sha256="ab" * 32, distance=0.1, kept=0.25, shared_mask=1.25, safety_mask=NotMeasured(reason=ALL),
                most_masked=(ALL,), quality=estimate(0.75), soft_token=estimate(0.5), soft_token_after=NotMeasured(reason=ALL),
                triggers={ALL: estimate(0.5)}, backdoor=f"carries {ALL}, and the merge inherits it",
            ),
        ),
    )  # fmt: skip


@pytest.fixture
def verify_report() -> VerifyReport:
    """One trigger that still works, one metric with a reference, one failed check."""
    attack = AttackRecord(
        trigger=ALL, codepoints=("U+020F",), token_ids=(1, 2), rule=f"nearer to {ALL}", rate=estimate(0.5), floor=estimate(0.01),
        reference=NotMeasured(reason="no --reference"), p=1e-9, positions={"prefix": 67, "middle": 67, ALL: 66},
    )  # fmt: skip
    return VerifyReport(
        **_envelope("verify", 1, "finding", "1 of 2 bounds broken"),
        attacks=(attack,),
        metrics={"clip score": Metric(value=estimate(0.31), reference=estimate(0.3), detail="ViT-L-14/openai")},
        checks=(Check(name="attack success", status="failed", value=estimate(0.5), bound="≤ 0.05"),),
        images=("evidence/one.png",),
    )


@pytest.fixture(params=["scan_report", "unlearn_report", "verify_report"])
def any_report(request: pytest.FixtureRequest) -> Any:
    """Each verb's report in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small model's directory; a test that writes to it makes the last one fail that has it."""
    from tests import small

    model = small.write(tmp_path_factory.mktemp("suspect") / "tiny")
    before = small.hashes(model)
    yield model
    assert small.hashes(model) == before, "a test wrote to the model that all tests share; let it take a copy"


@pytest.fixture(scope="session")
def tiny_suspect(tiny_model: Path) -> Suspect:
    """The small model on the CPU in float32, for tests that leave its weights as they are."""
    return _loaded(tiny_model, "float32")


@pytest.fixture
def fresh_suspect(tiny_model: Path) -> Suspect:
    """The same, loaded anew for a test that trains it."""
    return _loaded(tiny_model, "float32")


@pytest.fixture
def half_suspect(tiny_model: Path) -> Suspect:
    """The same in bfloat16."""
    return _loaded(tiny_model, "bfloat16")


def _loaded(directory: Path, dtype: str) -> Suspect:
    from bdaudit.models.load import load
    from bdaudit.untrusted.inspect import inspect

    return load(inspect(directory), device="cpu", dtype=dtype)


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that looks at little: a small null, eight draws, one look at eight prompts."""
    monkeypatch.setattr("bdaudit.unlearn.triggers.N_NULL", 25)
    monkeypatch.setattr("bdaudit.unlearn.triggers.DRAWS", 8)
    monkeypatch.setattr("bdaudit.unlearn.repair.check.LOOKS", (8,))
    monkeypatch.setattr("bdaudit.unlearn.repair.check.LOOKS_UNMOVED", (8,))
