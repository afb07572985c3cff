"""What every bench does with its result: print it, and keep it where it was told to."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def stamp() -> dict[str, str]:
    """When, and on what."""
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}


def rounded(digits: int, value: Any) -> Any:
    """Every number in a document to so many digits."""
    if isinstance(value, dict):
        return {key: rounded(digits, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(digits, inner) for inner in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def record(report: Mapping[str, Any], argument: int) -> None:
    """Print ``report`` with its stamp; also write it to the path that is the command line's ``argument``-th, where there is one."""
    text = json.dumps({**stamp(), **report}, indent=1)
    if len(sys.argv) > argument:
        Path(sys.argv[argument]).write_text(text + "\n", encoding="utf-8")
    print(text)
