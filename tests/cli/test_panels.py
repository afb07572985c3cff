"""Panels of the help: every name on a list is a field's, and a job's own flags stay with the job."""

from __future__ import annotations

import pytest

from bdaudit.cli.commands import SuspectedPrompts
from bdaudit.cli.options import Delivery, options
from bdaudit.cli.panels import ADVANCED, LAST, MACHINE, MODEL, OUTPUT, PANELS, panel_of
from bdaudit.config import JOBS, RunConfig, ScanConfig, VerifyConfig


def test_every_name_on_a_list_is_a_fields_and_on_one_list() -> None:
    fields = set(options(*JOBS, ScanConfig, VerifyConfig, RunConfig, SuspectedPrompts, Delivery))
    named = [field for listed in PANELS.values() for field in listed]
    assert set(named) <= fields
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("field", "heading", "panel"),
    [
        ("device", "Of every command", MACHINE),
        ("variant", "Of every command", MODEL),
        ("candidates", "What to look for", "What to look for"),
        ("report", "Output", OUTPUT),
        ("adapters", "What to look for", MODEL),
        ("adapters", "To remove named triggers", "To remove named triggers"),
        ("n_prompts", "To remove named triggers", ADVANCED),
        ("not on a list", "Tomorrow", "Tomorrow"),
    ],
)
def test_panel_of(field: str, heading: str, panel: str) -> None:
    assert panel_of(field, heading) == panel


def test_nothing_is_left_of_every_command() -> None:
    shared = options(RunConfig, Delivery)
    assert {panel_of(name, "elsewhere") for name in shared} <= {MODEL, *LAST}
