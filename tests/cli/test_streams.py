"""The command line in a process of its own: whoever reads, the exit code, the report and the state are the same."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdaudit.records import ScanReport
from bdaudit.report.document import dumps

ROOT = Path(__file__).parents[2]
RUN = """
import contextlib, os, runpy, sys, time, types
from bdaudit.report.document import loads
place, how, *arguments = sys.argv[1:]

class PanicException(BaseException):  # as pyo3's, which is no Exception

    pass

def run_scan(config, progress):
    with open(place + "/opened", "w") as file:
        print("descriptor", file.fileno(), file=file)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"a C library prints\\n")
    if how == "panic":
        raise PanicException("called `Option::unwrap()` on a `None` value")
    for step in range(300 if how == "stderr gone" else 3):
        print("a library prints")
        progress("probing", step, 300)
        time.sleep(0.01 if how == "stderr gone" else 0)
    if how == "waiting":
        open(place + "/waits", "w").close()
        time.sleep(60)
    return loads(open(place + "/given.json").read())

module = types.ModuleType("bdaudit.scan.run")
module.run_scan = run_scan
sys.modules["bdaudit.scan.run"] = module
sys.argv = ["bdaudit", *arguments]
runpy.run_module("bdaudit", run_name="__main__")
"""


@pytest.fixture
def place(tmp_path: Path, scan_report: ScanReport) -> Path:
    (tmp_path / "given.json").write_text(dumps(scan_report))
    return tmp_path


def command(place: Path, how: str = "plain", *flags: str) -> list[str]:
    arguments = ("scan", str(ROOT / "tests"), "--report", str(place / "report.json"), *flags)
    return [sys.executable, "-c", RUN, str(place), how, *arguments]


def written(text: str) -> str:
    """A whole report, without the command line that made it, which stands there once."""
    whole, count = re.subn(r'"repeat": "bdaudit scan [^"]+"', '"repeat": ""', text)
    assert count == 1
    return whole


def ended(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("bdaudit: exit ")]


@pytest.mark.parametrize(
    "redirected", ["| head -1", "| true", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", "1</dev/null"]
)
def test_a_stream_that_is_closed_full_or_gone_changes_nothing(place: Path, redirected: str) -> None:
    kept = "" if "2>" in redirected else f"2>{place}/err"
    if redirected.startswith("|"):
        script = f'( "$@" {kept}; echo $? >{place}/code ) {redirected}'
    else:
        script = f'"$@" {kept} {redirected}; echo $? >{place}/code'
    subprocess.run(["sh", "-c", script, "sh", *command(place, "plain", "--json")], cwd=ROOT, check=False, capture_output=True)
    assert (place / "code").read_text() == "1\n"
    assert written((place / "report.json").read_text()) == (place / "given.json").read_text()
    word, descriptor = (place / "opened").read_text().split()
    assert (word, int(descriptor) > 2) == ("descriptor", True), "no file gets a closed stream's number"
    if (place / "err").exists():
        err = (place / "err").read_text()
        assert len(ended(err)) == 1
        assert err.splitlines()[-1].startswith("bdaudit: exit 1 (finding): ")
        assert "Traceback" not in err
        assert "Exception ignored" not in err
        assert ("No space left" in ended(err)[0]) == (redirected == ">/dev/full")


def test_a_reader_of_stderr_that_leaves_in_the_middle_changes_nothing(place: Path) -> None:
    with subprocess.Popen(command(place, "stderr gone"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stderr is not None
        run.stderr.readline()
        run.stderr.close()
        assert run.stdout is not None
        assert "FINDING" in run.stdout.read()
    assert run.returncode == 1
    assert written((place / "report.json").read_text()) == (place / "given.json").read_text()


def test_json_is_alone_on_stdout_though_a_c_library_prints_there(place: Path) -> None:
    done = subprocess.run(command(place, "plain", "--json"), capture_output=True, text=True, cwd=ROOT, check=False)
    assert written(done.stdout) == (place / "given.json").read_text()
    assert "a C library prints" in done.stderr
    assert len(ended(done.stderr)) == 1


def test_a_pipe_that_its_owner_set_not_to_wait_gets_the_whole_document(place: Path) -> None:
    given = json.loads((place / "given.json").read_text())
    (place / "given.json").write_text(json.dumps(given | {"config": {"model": "m", "prompts": ["x" * 300_000]}}, indent=2) + "\n")
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETFL, os.O_NONBLOCK)
    with subprocess.Popen(command(place, "plain", "--json"), stdout=writes, stderr=subprocess.PIPE, cwd=ROOT) as run:
        os.close(writes)
        assert run.stderr is not None
        while not (place / "report.json").exists():
            time.sleep(0.02)
        time.sleep(0.3)  # the pipe is full by now
        with open(reads, encoding="ascii") as file:
            assert written(file.read()) == (place / "given.json").read_text()
    assert run.returncode == 1


def test_a_panic_of_a_library_in_rust_ends_in_the_report(place: Path) -> None:
    done = subprocess.run(command(place, "panic", "--json"), capture_output=True, text=True, cwd=ROOT, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit"]["code"], report["exit"]["name"]) == (3, 3, "error")
    assert report["exit"]["reason"].startswith("PanicException: called `Option::unwrap()`")
    assert json.loads((place / "report.json").read_text()) == report
    assert done.stderr.splitlines()[-1].startswith("bdaudit: exit 3 (error): PanicException: ")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_its_report(place: Path, kind: signal.Signals) -> None:
    heard = functools.partial(signal.signal, kind, signal.SIG_DFL)  # whatever the tests were started with
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, "preexec_fn": heard}
    with subprocess.Popen(command(place, "waiting", "--json"), **piped) as run:
        while not (place / "waits").exists() and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(kind)
        out, err = run.communicate()
    assert (run.returncode, json.loads(out)["status"]) == (130, "interrupted")
    assert json.loads((place / "report.json").read_text())["exit"]["code"] == 130
    assert len(ended(err)) == 1


@pytest.mark.parametrize(("redirected", "code"), [("| head -1", 0), (">&-", 0), (">/dev/full", 3)])
def test_help_is_lost_only_where_it_could_not_be_written(tmp_path: Path, redirected: str, code: int) -> None:
    script = f'( "$@" 2>{tmp_path}/err; echo $? >{tmp_path}/code ) {redirected}'
    subprocess.run(["sh", "-c", script, "sh", sys.executable, "-m", "bdaudit", "--help"], cwd=ROOT, check=False, capture_output=True)
    assert (tmp_path / "code").read_text() == f"{code}\n"
    assert len(ended((tmp_path / "err").read_text())) == (code != 0)


def test_a_report_rebuilt_with_every_stream_closed(place: Path) -> None:
    rebuild = [sys.executable, "-m", "bdaudit.report", str(place / "given.json"), str(place / "out.pdf")]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *rebuild], cwd=ROOT, check=False)
    assert done.returncode == 2, "and never Python's own 1, which is a finding's"
    assert os.listdir(place) == ["given.json"]
