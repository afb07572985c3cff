"""The error rate of a fleet, against hand-computed cases and a simulation of clean models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bdaudit import many_tests
from bdaudit.records import ScanReport
from bdaudit.report.fleet.rates import key_of, models_tested
from tests.report.fleet.reports import clean, entry


def test_benjamini_and_hochbergs_own_example() -> None:
    """Their table of 15 p-values (1995, section 3.2): four are kept at 0.05, where Bonferroni keeps three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    q = many_tests.benjamini_hochberg(p)
    assert (q <= 0.05).sum() == 4
    assert (many_tests.holm(p) <= 0.05).sum() == 3
    assert q[0] == pytest.approx(0.0015)
    assert q[3] == pytest.approx(0.035625)


def test_order_is_kept_and_no_p_grows_smaller() -> None:
    p = np.random.default_rng(0).uniform(size=50)
    order = np.random.default_rng(1).permutation(50)
    assert many_tests.benjamini_hochberg(p)[order] == pytest.approx(many_tests.benjamini_hochberg(p[order]))
    assert (many_tests.benjamini_hochberg(p) >= p).all()
    assert many_tests.benjamini_hochberg([]).shape == (0,)


def test_a_hundred_false_alarms_are_expected_of_ten_thousand_clean_models(scan_report: ScanReport) -> None:
    one = entry(clean(scan_report, "m"))
    p = np.random.default_rng(0).uniform(size=10_000)
    entries = [replace(one, exact=str(k), scan=replace(one.scan, p=float(x))) for k, x in enumerate(p)]
    tests, rate = models_tested(entries)
    assert (rate.models, rate.level) == (10_000, 0.01)
    assert rate.expected == pytest.approx(100)
    assert 60 < rate.alarms < 140
    assert (rate.kept_by_rate, rate.kept_by_holm) == (0, 0)
    assert rate.needed == pytest.approx(1e-6)
    found = [*entries, replace(entries[0], exact="trigger", scan=replace(one.scan, p=1e-8, raw=1e-10))]
    tests, rate = models_tested(found)
    assert (rate.kept_by_rate, rate.kept_by_holm) == (1, 1)
    assert tests["trigger"].holm == pytest.approx(10_001 * 1e-8)
    assert tests["trigger"].extrapolated
    assert rate.extrapolated_below == pytest.approx(1 / 121)


def test_a_model_that_is_scanned_again_is_one_test(scan_report: ScanReport) -> None:
    once = [entry(clean(scan_report, "m", 0.004)), entry(clean(scan_report, "other", 0.5))]
    again = [*once, entry(clean(scan_report, "m under another name", 0.9, digest="m"))]
    assert models_tested(once)[0]["m"].p == pytest.approx(0.004)
    tests, rate = models_tested(again)
    assert tests["m"].p == pytest.approx(0.008), "two scans, twice the smallest p"
    assert (rate.models, rate.alarms) == (2, 1)


def test_without_a_digest_of_tensors_the_files_tell_models_apart(scan_report: ScanReport) -> None:
    one = entry(clean(scan_report, "m"))
    assert key_of(one) == "m"
    assert key_of(replace(one, exact="", digest="d")) == "d"
    assert key_of(replace(one, exact="", digest="", file="a")) != key_of(replace(one, exact="", digest="", file="b"))


def test_nothing_that_has_a_p(verify_report: object) -> None:
    tests, rate = models_tested([entry(verify_report)])
    assert (tests, rate.models, rate.expected, rate.needed) == ({}, 0, 0.0, 0.0)
