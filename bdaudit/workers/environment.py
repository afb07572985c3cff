"""Which environment variables a worker gets: those by name that a run needs, and no secret of the process that started it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ALLOWED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|PYTHONPATH|PYTHONHOME|VIRTUAL_ENV|LD_LIBRARY_PATH|OMP_NUM_THREADS|GOMP_SPINCOUNT|"
    r"MKL_NUM_THREADS|CUDA_VISIBLE_DEVICES|CUDA_HOME|NVIDIA_\w+|HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|HF_HUB_DISABLE_\w+|"
    r"TRANSFORMERS_(OFFLINE|VERBOSITY|NO_ADVISORY_WARNINGS)|DIFFUSERS_VERBOSITY|TOKENIZERS_PARALLELISM|TQDM_DISABLE|RAY_\w+|SPT_NOENV"
)
"""Whole names; the last but one is what Ray tells its own processes, the last is set by its process titles."""
OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Of a Ray that a run starts for itself: it tells nobody of itself, its node is 127.0.0.1 (the name is Ray's), and it asks for a token."""


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environment`` that a worker gets."""
    return {name: value for name, value in environment.items() if ALLOWED.fullmatch(name)}


@contextmanager
def only_allowed() -> Iterator[None]:
    """A block in which this process's environment, which what it starts inherits, is what a worker gets."""
    whole = dict(os.environ)
    try:
        for name in whole.keys() - allowed(whole).keys():
            del os.environ[name]
        yield
    finally:
        for name, value in whole.items():
            os.environ.setdefault(name, value)


def forget() -> None:
    """Drop what this process should not have been given: of a worker on a cluster that somebody else started."""
    for name in os.environ.keys() - allowed(os.environ).keys():
        del os.environ[name]
