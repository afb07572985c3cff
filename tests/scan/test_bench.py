"""A worker measures what the run measures, to the bit; a whole scan with workers ends in the report of one without."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bdaudit.config import ScanConfig
from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws, DrawsOf, draws_like, make_draws
from bdaudit.measure.paths import make_paths
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.report.document import values
from bdaudit.scan.bench import Bench, BenchSettings, canary
from bdaudit.scan.cached import followed, measured
from bdaudit.scan.context import ScanContext
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from bdaudit.scan.sweep.recovery import CHOICES, TOGETHER, Moved
from bdaudit.scan.sweep.result import SweepSizes
from bdaudit.scan.sweep.screen import Round, screen
from bdaudit.scan.sweep.soft_choice import Choices
from bdaudit.scan.sweep.swept_texts import Probe, phrases
from bdaudit.scan.sweep.two_part import crowds_of, interactions
from bdaudit.workers.arrays import Array
from bdaudit.workers.crew import Crew
from bdaudit.workers.wire import packed
from tests.small import OVERRIDING, PROMPTS
from tests.workers.here import HELLO, Here, in_process

TEXTS = [f"t{i}" for i in range(20)]
SEED = 5


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return replace(make_draws(tiny_suspect, PROMPTS, 4, 3.0, SEED), of=DrawsOf())


class OneBench:
    """A worker on a model that is open already."""

    def __init__(self, suspect: Suspect) -> None:
        settings = BenchSettings(first=PROMPTS, pool=PROMPTS, draws=4, soon=0, guidance_scale=3.0, seed=SEED, pair_words=12)
        self._bench = Bench(replace(suspect), asdict(settings))

    def hello(self) -> bytes:
        return packed(HELLO)

    def done(self, tasks: bytes) -> bytes:
        from bdaudit.workers.member import Member

        member = Member(b"")
        member._bench = self._bench
        return member.done(tasks)


@pytest.fixture
def both(tiny_suspect: Suspect, draws: Draws) -> tuple[ScanContext, ScanContext]:
    """A context without workers, and one with two."""
    alone = ScanContext(replace(tiny_suspect, forward_passes=0), draws, State(None, ""), silent, SEED)
    crew = Crew(Here(lambda _: OneBench(tiny_suspect)), 2, HELLO)
    return alone, replace(alone, suspect=replace(tiny_suspect, forward_passes=0), crew=crew)


def test_the_same_figures_and_as_many_passes(both: tuple[ScanContext, ScanContext]) -> None:
    def everything(context: ScanContext) -> list[Any]:
        first = context.draws.part(slice(2))
        there = draws_like(context.suspect, context.draws, 1, 3, SEED)
        paths = make_paths(context.suspect, context.draws, 2, SEED)
        pairing = phrases(context.suspect.tokenizer, 12)
        crowds = [crowd for a in pairing.firsts[:3] for crowd in crowds_of(a, [pairing.seconds[:4], pairing.seconds[4:8]])]
        return [
            measured(context, "first", first, TEXTS, attention=False, said="a"),
            measured(context, "further", context.draws.part(slice(2, None)), TEXTS, attention=True, said="b"),
            measured(context, "context", there, TEXTS[:3], attention=False, said="c"),
            followed(context, paths, TEXTS),
            screen(context, "vocabulary", Round(2), [Probe(text, (70 + i, 71)) for i, text in enumerate(TEXTS * 5)]).tolist(),
            interactions(replace(context, draws=context.draws.at([3, 1])), pairing, "", crowds).tolist(),
        ]

    alone, crew = both
    assert everything(alone) == everything(crew)
    assert alone.suspect.forward_passes == crew.suspect.forward_passes
    assert crew.crew
    assert crew.crew.carrier.given  # type: ignore[attr-defined]


def test_draws_that_nobody_else_can_make_are_measured_here(both: tuple[ScanContext, ScanContext]) -> None:
    alone, crew = both
    others = make_draws(crew.suspect, PROMPTS, 3, 3.0, SEED + 1)
    for draws in (others, others.part(slice(2)), draws_like(crew.suspect, others, 1, 2, SEED)):
        assert measured(crew, "base", draws, TEXTS[:2], attention=False, said="") == measured(
            alone, "base", draws, TEXTS[:2], attention=False, said=""
        )
    assert crew.crew
    assert crew.crew.carrier.given == []  # type: ignore[attr-defined]


def test_a_block_that_kills_every_worker_is_named(both: tuple[ScanContext, ScanContext]) -> None:
    _, context = both
    assert context.crew
    context.crew.carrier.kill = lambda _: True  # type: ignore[attr-defined]
    with pytest.raises(InconclusiveError, match=r"1 block cost every worker .*'t0'"):
        measured(context, "first", context.draws, TEXTS[:2], attention=False, said="a")


def test_what_a_worker_declares_is_raised_here_and_what_cannot_be_is_told(both: tuple[ScanContext, ScanContext]) -> None:
    _, context = both
    assert context.crew
    bench = OneBench(context.suspect)
    context.crew.carrier.made = lambda _: bench  # type: ignore[attr-defined]
    bench._bench.done = lambda task: (_ for _ in ()).throw(BdauditError("NaN in it"))  # type: ignore[method-assign]
    with pytest.raises(BdauditError, match="NaN in it"):
        measured(context, "first", context.draws, TEXTS[:2], attention=False, said="a")
    bench._bench.done = lambda task: []  # type: ignore[method-assign]
    with pytest.raises(BdauditError, match="cannot have come of its block"):
        measured(context, "first", context.draws, TEXTS[:2], attention=False, said="a")


def test_the_canary_tells_models_apart(tiny_suspect: Suspect, draws: Draws) -> None:
    assert canary(tiny_suspect, draws) == canary(tiny_suspect, draws)
    louder = replace(draws, plain=1.5 * draws.plain)
    assert max(abs(a - b) for a, b in zip(canary(tiny_suspect, draws), canary(tiny_suspect, louder), strict=True)) > 0.01


SMALL = ScanSettings(per_kind=8, prompt_words=4, sizes=SweepSizes(kept=(24, 4), sample=8))


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch) -> Here:
    return in_process(monkeypatch)


def told(config: ScanConfig) -> dict[str, Any]:
    """A report, without what may differ: when, how long, and how many workers."""
    report = values(run_scan(config, settings=SMALL))
    for name in ("created_at", "timings"):
        del report[name]
    report["config"] |= {"workers": "", "state": ""}
    return report


def test_a_scan_with_workers_killed_or_not_ends_in_the_same_report(carrier: Here, tiny_model: Path, tmp_path: Path) -> None:
    config = ScanConfig(model=tiny_model, candidates=(OVERRIDING, "cat", "dog"), prompts=PROMPTS, effort="low", seed=SEED)
    alone = told(config)
    assert alone["exit"]["code"] == 1
    assert told(replace(config, workers="2")) == alone
    assert len(carrier.given) > 5
    carrier.kill = lambda number: number % 3 == 0
    killed = told(replace(config, workers="3", state=tmp_path / "state"))
    assert any("was lost" in note for note in killed["coverage"]["notes"])
    killed["coverage"]["notes"] = alone["coverage"]["notes"]
    assert killed == alone


def test_a_search_by_gradients_is_shared_and_ends_in_the_same_report(carrier: Here, tiny_model: Path) -> None:
    config = ScanConfig(model=tiny_model, prompts=PROMPTS, sweeps=("recovery",), effort="low", seed=SEED)
    alone = told(config)
    carrier.kill = lambda number: number % 4 == 0
    shared = told(replace(config, workers="3"))
    kinds = [task["kind"] for data in carrier.given for task in json.loads(data)]
    assert kinds.count("choices") >= 2 * CHOICES / TOGETHER
    assert [json.loads(data)[0]["draws"]["search"] for data in carrier.given].count(True) > 10
    shared["coverage"]["notes"] = alone["coverage"]["notes"]
    assert shared == alone


@pytest.mark.parametrize(
    "wrong",
    [
        {"logs": Array.of(torch.zeros(2, 1, 7)), "values": Array.of(torch.zeros(2))},
        {"logs": Array.of(torch.zeros(2, 1, 512)), "values": Array.of(torch.zeros(1))},
    ],
)
def test_choices_of_another_shape_do_not_count(wrong: dict[str, Array]) -> None:
    good = Moved.of(Choices(torch.full((2, 1, 512), -torch.inf), torch.zeros(2)))
    assert good.choices(2, 1, 512).logs.shape == (2, 1, 512)
    with pytest.raises(ValueError, match="shape"):
        Moved(**wrong).choices(2, 1, 512)
