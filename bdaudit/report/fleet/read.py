"""Reports in folders that may hold anything: found, bounded, and each taken or told why not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bdaudit.errors import BdauditError, UsageError
from bdaudit.report.document import MAX_BYTES, MAX_ITEMS
from bdaudit.report.fleet.entry import VERDICTS, Entry, ScanP, entry_of
from bdaudit.untrusted.open_file import json_of, read_file

MOST_FILES, DEEPEST = 500_000, 32
"""Names that are looked at, and folders that are entered below each other."""
STATES = ".state"
"""How a folder's name ends that an interrupted run left; what lies there is no report yet."""
_HEAD = 1 << 16
"""Bytes in which a report of ours has its command."""
_SHORT = 64
"""A file of so few bytes that is no JSON may be a report that was cut short."""


@dataclass(frozen=True)
class NotRead:
    """A file that looks like a report and was not taken."""

    file: str
    reason: str


@dataclass(frozen=True)
class FleetReports:
    """Everything that was found."""

    entries: tuple[Entry, ...]
    """The worst first."""
    not_read: tuple[NotRead, ...]
    other: int
    """JSON files that are no reports."""


def read_reports(folders: Sequence[Path]) -> FleetReports:
    """Every report below ``folders``; links are not followed, and told.

    Raises:
        UsageError: a folder is none, or holds more than is looked at.
    """
    entries: list[Entry] = []
    not_read: list[NotRead] = []
    other = 0
    for path in _files(folders):
        taken = _taken(path)
        if isinstance(taken, Entry):
            entries.append(taken)
        elif taken is None:
            other += 1
        else:
            not_read.append(taken)
    entries.sort(key=_worst_first)
    return FleetReports(tuple(entries), tuple(not_read), other)


def _worst_first(entry: Entry) -> tuple[int, float, str, str]:
    p = entry.scan.p if isinstance(entry.scan, ScanP) else 1.0
    return VERDICTS.index(entry.verdict), p, entry.model, entry.file


def _taken(name: str) -> Entry | NotRead | None:
    """The report in a file, or why it was not read; None of what is none."""
    try:
        data = read_file(name, "this file", MAX_BYTES, follow=False)
        if b'"command"' in data[:_HEAD] or not data:
            return entry_of(json_of(data, "this file", MAX_ITEMS), name)
        if len(data) <= _SHORT:
            json_of(data, "this file", MAX_ITEMS)
        return None
    except (BdauditError, RecursionError) as error:
        return NotRead(name, str(error)[:400] or type(error).__name__)


def _files(folders: Sequence[Path]) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    looked_at = 0
    waiting = [(str(folder), 0) for folder in reversed(folders)]
    while waiting:
        folder, depth = waiting.pop()
        names = _listed(folder)
        looked_at += len(names)
        if looked_at > MOST_FILES or depth > DEEPEST:
            most = f"more than {MOST_FILES:,} files, or folders nested more than {DEEPEST} deep"
            raise UsageError(f"{folder[:150]!a} holds {most}; name the folders with the reports")
        for entry in names:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.endswith(STATES):
                    waiting.append((entry.path, depth + 1))
            elif entry.name.lower().endswith(".json") or (entry.is_symlink() and entry.is_dir()):
                status = entry.stat(follow_symlinks=False)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield entry.path


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{folder[:150]!a} cannot be listed: {error.strerror}; expected a folder with reports") from error
