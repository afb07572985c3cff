"""Pictures that workers draw are those that the run itself would draw, whoever dies meanwhile."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bdaudit.config import VerifyConfig
from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.load import load
from bdaudit.report.document import values
from bdaudit.untrusted.inspect import inspect
from bdaudit.verify import model as opened
from bdaudit.verify.bench import Bench
from bdaudit.verify.run import run_verify
from bdaudit.workers.arrays import Array
from bdaudit.workers.crew import Lost
from bdaudit.workers.wire import Answer, packed, unpacked
from tests.verify import toy
from tests.workers.here import Here, in_process


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr(opened, "TOGETHER", 4)
    return in_process(monkeypatch)


@pytest.fixture
def config(pipeline: Path, tmp_path: Path) -> VerifyConfig:
    """Two models, evidence, and pictures of both with maps of where the trigger's tokens look; graded by pixels."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    before = Path(shutil.copytree(pipeline, tmp_path / "before"))
    with (before / "model_index.json").open("a") as index:
        index.write(" ")  # so that it has a digest, and pictures, of its own
    return VerifyConfig(
        model=pipeline, before=before, triggers=("zq",), prompts=toy.PROMPTS[:6], n=12, reach=4, steps=2, max_asr=1.0,
        target_image=tmp_path / "red.png", target_at=(0, 0), device="cpu",
    )  # fmt: skip


def told(config: VerifyConfig) -> dict[str, Any]:
    """A report, without what may differ: when, how long, where to, and how many workers."""
    report = values(run_verify(config))
    for name in ("created_at", "timings"):
        del report[name]
    report["config"] |= {"workers": "", "state": "", "save_images": ""}
    report["images"] = [Path(name).name for name in report["images"]]
    return report


def test_a_run_with_workers_killed_or_not_ends_in_the_same_report(carrier: Here, config: VerifyConfig, tmp_path: Path) -> None:
    alone = told(replace(config, save_images=tmp_path / "alone"))
    assert carrier.given == []
    assert alone["pictures"]["drawn"] > 40
    for workers in (2, 3):
        assert told(replace(config, workers=str(workers), save_images=tmp_path / str(workers))) == alone
    assert len(carrier.given) > 20
    carrier.kill = lambda number: number % 3 == 0
    killed = told(replace(config, workers="3", save_images=tmp_path / "killed", state=tmp_path / "state"))
    assert any("was lost" in note for note in killed["coverage"]["notes"])
    killed["coverage"]["notes"] = alone["coverage"]["notes"]
    assert killed == alone
    for image in (tmp_path / "alone").rglob("*.png"):
        assert image.read_bytes() == (tmp_path / "killed" / image.relative_to(tmp_path / "alone")).read_bytes()


def test_a_run_that_was_killed_goes_on_with_another_number_of_workers(carrier: Here, config: VerifyConfig, tmp_path: Path) -> None:
    alone = told(config)

    def stop(number: int) -> bool:
        if number == 5:
            raise KeyboardInterrupt
        return False

    carrier.kill = stop
    config = replace(config, state=tmp_path / "state", workers="2")
    assert told(config)["status"] == "interrupted"
    kept = sorted((tmp_path / "state").rglob("*.safetensors"))
    assert len(kept) == 4 * 4
    kept[0].unlink()  # a run that is killed may have written a part of a block
    carrier.kill = lambda number: False
    again = told(replace(config, workers="3"))
    assert again.pop("pictures")["reused"] == len(kept) - 1
    del alone["pictures"]
    assert again == alone


def test_the_models_take_turns_and_each_worker_opens_its_own(carrier: Here, config: VerifyConfig) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    start = carrier.start

    def started() -> Any:
        setup = json.loads(carrier.setup)
        asked.append((Path(setup["model"]["model"]).name, setup["settings"]))
        return start()

    carrier.start = started  # type: ignore[method-assign]
    told(replace(config, workers="2"))
    assert [name for name, _ in asked[::2]] == [name for name, _ in asked[1::2]], "two of each"
    assert {name for name, _ in asked} == {"before", config.model.name}
    assert asked[0] == ("before", {"steps": 2, "guidance_scale": 5.0})
    assert len(carrier.stopped) == carrier.started


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Array.of(torch.rand(3, 3, 16, 16)), "cannot have come of its block"),
        (Array.of(torch.rand(4, 1, 16, 16)), "cannot have come of its block"),
        (Array.of(torch.full((4, 3, 16, 16), 2.0)), "pictures that are none"),
        ("pictures", "sent what does not fit"),
    ],
)
def test_what_is_no_picture_does_not_count(carrier: Here, config: VerifyConfig, value: Any, said: str) -> None:
    class Forger:
        def __init__(self, member: Any) -> None:
            self._member = member

        def hello(self) -> bytes:
            data: bytes = self._member.hello()
            return data

        def done(self, tasks: bytes) -> bytes:
            return packed([Answer(value=value)])

    made = carrier.made
    carrier.made = lambda n: Forger(made(n))
    with pytest.raises(BdauditError, match=said):
        told(replace(config, workers="2"))


def test_a_block_that_kills_every_worker_ends_the_run_undecided(carrier: Here, config: VerifyConfig) -> None:
    fatal: list[Any] = []

    class Fragile:
        def __init__(self, member: Any) -> None:
            self.hello, self._done = member.hello, member.done

        def done(self, tasks: bytes) -> bytes:
            given = unpacked(tasks, list[Any], "the run")
            if not fatal:
                fatal.append(given[0])
            if fatal[0] in given:
                raise Lost("killed")
            data: bytes = self._done(tasks)
            return data

    made = carrier.made
    carrier.made = lambda n: Fragile(made(n))
    with pytest.raises(InconclusiveError, match="1 block cost every worker"):
        told(replace(config, workers="2"))


def test_workers_that_live_through_no_block_end_the_run_in_an_error(carrier: Here, config: VerifyConfig) -> None:
    carrier.kill = lambda number: True
    with pytest.raises(BdauditError, match="blocks in a row cost 4 workers each"):
        told(replace(config, workers="2"))


def test_no_task_of_ours(pipeline: Path) -> None:
    bench = Bench(load(inspect(pipeline), device="cpu"), {"steps": 1, "guidance_scale": 1.0})
    found = unpacked(packed(bench.done({"texts": ["a", "b"], "seeds": [1, 2]})), Array, "x").tensor((2, 3, None, None))
    assert found.shape[2] == found.shape[3]
    assert bench.passes == 2
    assert len(bench.canary()) == 6
    for task in (None, {"texts": ["a"]}, {"texts": [1], "seeds": [1]}):
        with pytest.raises(BdauditError, match="does not fit"):
            bench.done(task)
