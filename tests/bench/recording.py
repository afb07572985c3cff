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


class Cells:
    """Results by name in one JSON document, written whole each time one is put; what stands there need not be measured again."""

    def __init__(self, path: Path, **head: Any) -> None:
        """``head`` stands before the cells."""
        self.path, self.head = path, head
        self.cells: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else {}

    def put(self, name: str, cell: Any) -> None:
        """In place of an older one."""
        self.cells[name] = cell
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({**stamp(), **self.head, "cells": self.cells}, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)


def record(report: Mapping[str, Any], argument: int) -> None:
    """Print ``report`` with its stamp; also write it to the path that is the command line's ``argument``-th, where there is one."""
    text = json.dumps({**stamp(), **report}, indent=1)
    if len(sys.argv) > argument:
        Path(sys.argv[argument]).write_text(text + "\n", encoding="utf-8")
    print(text)
