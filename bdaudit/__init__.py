"""bdaudit: audit text-to-image diffusion checkpoints for backdoors, remove them, prove them gone.

    report = bdaudit.scan("model", candidates=["ȏ", "cf"])
    repaired = bdaudit.unlearn("model", triggers=["ȏ"], out="repaired")
    checked = bdaudit.verify("repaired", triggers=["ȏ"], before="model")

Each is silent, and returns the report that the command of its name writes. ``bdaudit.load`` opens a model, to build on its parts.
Errors are ``bdaudit.errors``; nothing heavy is imported before a function is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdaudit.version import __version__

if TYPE_CHECKING:
    from bdaudit.api.verbs import load, scan, unlearn, verify, write
else:
    from bdaudit.api.callable_package import make_callable
    from bdaudit.api.verbs import load, write

    make_callable("scan", "unlearn", "verify")

__all__ = ["__version__", "load", "scan", "unlearn", "verify", "write"]
