"""Every job of `unlearn` is run by something, after the targets are known to be free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit import config
from bdaudit.errors import UsageError
from bdaudit.unlearn.run import JOBS, run_unlearn


def test_each_job_is_run_by_its_own() -> None:
    assert JOBS.keys() == config.JOBS.keys()
    assert len(set(JOBS.values())) == len(JOBS)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
@pytest.mark.parametrize(("name", "said"), [("out", "--out"), ("patch", "--patch")])
def test_a_target_that_is_not_free_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Any, name: str, said: str
) -> None:
    monkeypatch.setitem(JOBS, job, lambda *_: pytest.fail("work was done"))
    (tmp_path / "taken.safetensors").write_text("x")
    needed = {
        config.RepairConfig: {"triggers": ("x",)},
        config.ApplyConfig: {"from_patch": Path("p")},
        config.MergeConfig: {"base": Path("base"), "merge_with": ((Path("other"), 1.0),)},
        config.CleanConfig: {"pairs": Path("pairs")},
    }
    if name not in job.__dataclass_fields__:
        return
    with pytest.raises(UsageError, match=said):
        run_unlearn(job(model=tmp_path, **{name: tmp_path / "taken.safetensors"}, **needed[job]))
