"""Five runs killed at random moments and run again; ``tests/bench/kills.py`` does it a hundred times and more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.bench import kills


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> kills.Scene:
    kills.prepare()
    made = kills.Scene(tmp_path_factory.mktemp("kills"))
    for verb in kills.VERBS:
        kills.undisturbed(made, verb)
    return made


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("scan", "SIGKILL"),
        ("scan", "SIGTERM"),
        ("unlearn", "SIGKILL"),
        ("unlearn", "SIGHUP"),
        ("verify", "SIGINT"),
    ],
)
def test_the_same_command_again_gives_the_same_result(scene: kills.Scene, verb: str, kind: str) -> None:
    done = kills.killed(scene, verb, kind, random.random())
    assert done["partial"] == [], done
    assert done["same"], done


@pytest.mark.parametrize("verb", kills.VERBS)
def test_a_disk_without_room_is_an_error_and_leaves_nothing_half(scene: kills.Scene, verb: str) -> None:
    scene.clear()
    (scene.work / "report.json").write_text('"the one from before"')
    code = kills.finish(kills.start(scene, verb, most=1000), kills.SECONDS)
    assert code in (1, 3), (scene.root / "log").read_text()[-1000:]
    assert kills.whole(scene, verb) == []
    assert not (scene.work / "out").exists()
    assert (scene.work / "report.json").read_text() == '"the one from before"'
    assert not list(scene.work.glob("images/*"))


def test_what_is_cut_short_is_seen(tmp_path: Path) -> None:
    scene = kills.Scene(tmp_path)
    scene.clear()
    (scene.work / "images").mkdir()
    (scene.work / "images/one.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (scene.work / "report.json").write_text('{"half":')
    assert len(kills.whole(scene, "verify")) == 2


def test_timings_are_set_aside_and_nothing_else() -> None:
    one = {"timings": {"load": 1.0}, "written": [{"path": "bdaudit.json", "sha256": "a", "bytes": 1}], "p": 0.5}
    other = {"timings": {"load": 2.0}, "written": [{"path": "bdaudit.json", "sha256": "b", "bytes": 2}], "p": 0.5}
    assert kills.timeless(one) == kills.timeless(other)
    assert kills.difference(kills.timeless(one), kills.timeless(other | {"p": 0.6})) == ".p: 0.5 against 0.6"
