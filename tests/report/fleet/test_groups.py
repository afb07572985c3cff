"""What reports have in common."""

from __future__ import annotations

from dataclasses import replace

from bdaudit.errors import ExitCode
from bdaudit.records import ScanReport
from bdaudit.report.fleet.groups import families, same_tensors, shared_texts
from tests.report.fleet.reports import clean, entry, scan


def test_families_and_shapes_the_largest_first(scan_report: ScanReport) -> None:
    one = entry(clean(scan_report, "a"))
    small = replace(entry(scan(scan_report, "s", ("t", 0.001, "backdoored"))), shape="unet 1M")
    rows = families([one, replace(one, exact="b"), small, replace(one, family="", shape="never opened", verdict="refused")])
    assert (rows[0].family, rows[0].shape, rows[0].reports, rows[0].models) == ("StableDiffusionPipeline", "unet 860M, vae 83.6M", 2, 2)
    assert {row.shape: row.verdicts for row in rows} == {
        "unet 860M, vae 83.6M": {"pass": 2},
        "unet 1M": {"backdoored": 1},
        "": {"refused": 1},
    }


def test_models_of_the_same_tensors_whose_verdicts_differ_come_first(scan_report: ScanReport) -> None:
    entries = [
        entry(clean(scan_report, "a", digest="same")), entry(clean(scan_report, "b", digest="same")),
        entry(clean(scan_report, "c", digest="x")), entry(scan(scan_report, "d", ("t", 0.001, "backdoored"), digest="x")),
        entry(clean(scan_report, "e", digest="alone")), entry(clean(scan_report, "e", digest="alone")),
        replace(entry(clean(scan_report, "f", digest="cast")), float16="same-16"),
        entry(clean(scan_report, "g", digest="same", code=ExitCode.ERROR)),
    ]  # fmt: skip
    first, second = same_tensors(entries)
    assert (first.models, first.verdicts, first.exactly) == (("c", "d"), {"pass": 1, "backdoored": 1}, True)
    assert (second.models, second.verdicts, second.exactly) == (("a", "b", "f", "g"), {"pass": 3}, False)


def test_a_text_that_sets_off_several_models(scan_report: ScanReport) -> None:
    entries = [
        entry(scan(scan_report, "a", ("ȏ", 0.001, "backdoored"), ("once", 0.001, "backdoored"))),
        entry(scan(scan_report, "b", ("ȏ", 0.02, "suspicious"), ("word", 0.9, "clean"))),
        entry(scan(scan_report, "a again", ("once", 0.001, "backdoored"), digest="a")),
    ]
    (shared,) = shared_texts(entries)
    assert (shared.text, shared.models, shared.backdoored) == ("ȏ", ("a", "b"), 1)
