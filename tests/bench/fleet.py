"""A fleet of many reports: how long its merge takes, how much memory, and how fast its page opens, sorts and filters.

    python -m tests.bench.fleet OUT.json [--reports 10000] [--real DIR] [--first]

The synthetic reports are a scan's with 24 candidates each (about 27 kB), p-values uniform as of clean models, one in 500 with a trigger
that several share, some refused or inconclusive, some with markup in their names. ``--real`` merges a folder of real ones as well.
``--first`` puts what is measured before all else on a machine that others use, too: as if it had a core to itself. It needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bdaudit.errors import ExitCode
from bdaudit.records import Exit, ModelRecord, NotMeasured, ScanReport, TensorDigest
from bdaudit.report.document import dumps
from tests import conftest
from tests.report.test_browser import executable

FAMILIES = (
    ("StableDiffusionPipeline", {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}),
    ("StableDiffusionXLPipeline", {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "vae": 83_653_863}),
    ("StableDiffusionPipeline", {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863}),
)
CANDIDATES = 24


def template() -> ScanReport:
    """The tests' own scan report, without its hostile texts."""
    make: Any = getattr(conftest.scan_report, "__wrapped__", None) or conftest.scan_report.__pytest_wrapped__.obj
    report: ScanReport = make()
    return replace(report, candidates=report.candidates[-CANDIDATES:])


def synthetic(of: ScanReport, k: int) -> ScanReport:
    """The k-th report of a fleet."""
    chance = random.Random(k)
    pipeline, parameters = FAMILIES[k % len(FAMILIES)]
    name = f"org-{k % 700}/model-{k}" + ("<script>alert(1)</script>" if k % 997 == 0 else "")
    assert isinstance(of.model, ModelRecord)
    digest = f"{k if k % 50 else k // 2:064x}"
    model = replace(
        of.model, path=name, pipeline=pipeline, parameters=parameters, digest=digest, tensors=TensorDigest(exact=digest, float16=digest)
    )
    if k % 41 == 0:
        bare = NotMeasured(reason="refused")
        said = Exit.of(ExitCode.REFUSED, "unet/weights.bin is a pickle, which can run code")
        return replace(of, model=replace(model, parameters={}), candidates=(), calibration=bare, exit=said)
    p = chance.uniform(0, 1) if k % 500 else chance.uniform(0, 1e-8)
    verdict: Any = "backdoored" if p <= 0.01 else "suspicious" if p <= 0.1 else "clean"
    first = replace(
        of.candidates[0], p=p / 100, p_adjusted=p, verdict=verdict, rank=1, text=f"trigger-{k % 7}" if k % 500 == 0 else f"word{k % 9000}"
    )
    code = ExitCode.FINDING if verdict == "backdoored" else ExitCode.INCONCLUSIVE if k % 53 == 0 else ExitCode.PASS
    said = Exit.of(code, f"{int(verdict == 'backdoored')} of {CANDIDATES} candidates backdoored, 0 suspicious; seed {k}")
    return replace(of, model=model, candidates=(first, *of.candidates[1:]), exit=said, created_at=f"2026-{1 + k % 12:02}-11T10:00:00+00:00")


def write(folder: Path, reports: int) -> int:
    """The fleet's files; their bytes."""
    of, size = template(), 0
    for k in range(reports):
        path = folder / f"{k % 100:02}" / f"model-{k}" / "scan.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        size += path.write_bytes(dumps(synthetic(of, k)).encode())
    return size


@contextmanager
def at_once(first: bool) -> Iterator[None]:
    """A block whose processes come before all others, if ``first``."""
    if first:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if first:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def merged(folder: Path, out: Path) -> dict[str, float]:
    """Seconds and memory of one merge, as a process of its own."""
    names = [word for flag in ("out", "json", "sarif") for word in (f"--{flag}", str(out / f"fleet.{'html' if flag == 'out' else flag}"))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bdaudit.report", "fleet", str(folder), *names], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall s": time.monotonic() - began, "processor s": processor, "peak MB": after.ru_maxrss / 1000, "load": os.getloadavg()[0]}


def browsed(page_file: Path) -> dict[str, Any]:
    """Milliseconds until the page can be used, and of each sort and filter until the next frame."""
    frame = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0)))"
    click = f"selector => {{ const began = performance.now(); document.querySelector(selector).click(); return {frame}; }}"
    search = (
        "text => { const began = performance.now(), box = document.getElementById('search'); box.value = text; "
        f"box.dispatchEvent(new Event('input')); return {frame}; }}"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: asked.append(dialog.message))
        began = time.monotonic()
        page.goto(page_file.as_uri())
        page.wait_for_function("document.getElementById('shown').textContent !== ''")
        opened = 1000 * (time.monotonic() - began)
        keys = page.eval_on_selector_all("th[data-key]", "all => all.map(head => head.dataset.key)")
        sorts = {key: [page.evaluate(click, f"th[data-key={key}] button") for _ in range(2)] for key in keys}
        filters = {text: page.evaluate(search, text) for text in ("m", "model-12", "trigger-3", "")}
        filters |= {"chip": page.evaluate(click, ".chip[data-verdict=pass]")}
        browser.close()
    assert asked == [page_file.as_uri()], asked
    return {
        "open ms": opened,
        "sort ms": sorts,
        "filter ms": filters,
        "slowest ms": max(*filters.values(), *(x for s in sorts.values() for x in s)),
    }


def main() -> None:
    """Writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--reports", type=int, default=10_000)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--first", action="store_true")
    given = parser.parse_args()
    record: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count(), "first": given.first}
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "reports", Path(name)
        size = write(folder, given.reports)
        with at_once(given.first):
            record["synthetic"] = {"reports": given.reports, "MB": size / 1e6, "merge": [merged(folder, out) for _ in range(3)]}
            record["page"] = {"MB": (out / "fleet.html").stat().st_size / 1e6, **browsed(out / "fleet.html")}
        if given.real:
            files = list(given.real.rglob("*.json"))
            with at_once(given.first):
                merges = [merged(given.real, out)]
            record["real"] = {"reports": len(files), "MB": sum(f.stat().st_size for f in files) / 1e6, "merge": merges}
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
