"""Adjusted p-values, by hand, in any order, and against scipy's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from bdaudit.many_tests import benjamini_hochberg, holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_keeps_the_order_of_its_input(p: list[float], rng: object) -> None:
    adjusted = holm(p)
    order = np.random.default_rng(0).permutation(len(p))
    assert holm(np.array(p)[order]).tolist() == pytest.approx(adjusted[order].tolist())
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert adjusted.max() <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_false_discovery_rate_is_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p).tolist() == pytest.approx(false_discovery_control(p).tolist())
    assert (benjamini_hochberg(p) <= holm(p) + 1e-15).all()


def test_the_merge_of_a_fleet_imports_no_scipy() -> None:
    program = "import sys, bdaudit.report.fleet.command; sys.exit('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.returncode == 0
