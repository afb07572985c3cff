"""Bombs, measured from outside: each is over within a second of computing and a few MB above the baseline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.untrusted.hostile import CASES

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from bdaudit.errors import BdauditError
from bdaudit.untrusted.inspect import inspect

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def attempt(model, allow):
    try:
        inspect(Path(model), allow_pickle=allow)
    except BdauditError:
        return True
    return False

attempt(sys.argv[1], False)
for line in sys.stdin:
    name, model, allow = json.loads(line)
    before, start = peak(), time.process_time()
    ended = attempt(model, allow)
    print(json.dumps([name, ended, time.process_time() - start, peak() - before]), flush=True)
"""
BOMBS = ("allocation bombs", "safetensors headers", "JSON", "tokenizers", "archives that --allow-pickle cannot read")
SECONDS, MEGABYTES, IN_ALL = 1.0, 40.0, 80.0
"""A JSON file of 8 MB takes a few times its size for a moment; nothing else comes near."""


def test_a_bomb_is_over_at_once_and_takes_no_memory(tmp_path: Path) -> None:
    from tests.untrusted.tiny import write_model

    write_model(tmp_path / "plain")
    lines = []
    for i, case in enumerate(case for case in CASES if case.kind in BOMBS):
        model = write_model(tmp_path / str(i))
        case.edit(model, tmp_path / "canary")
        lines.append(json.dumps([f"{case.kind}: {case.name}", str(model), case.allow_pickle]))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "plain"], input="\n".join(lines), cwd=root, capture_output=True, text=True, timeout=120
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(lines) >= 60, done.stderr
    for name, ended, seconds, grew in results:
        assert ended, name
        assert seconds < SECONDS, (name, seconds)
        assert grew < MEGABYTES, (name, grew)
    assert sum(grew for *_, grew in results) < IN_ALL
