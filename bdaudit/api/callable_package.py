"""``bdaudit.scan`` is a package, and what a program calls: the package of each verb is callable, as the function of its name.

Imports of its modules go on as ever. A plain function of that name would be replaced by the package at the first of them.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from bdaudit.api import verbs


def make_callable(*names: str) -> None:
    """Let ``bdaudit.NAME(...)`` call ``bdaudit.api.verbs.NAME``, whose signature and text it shows."""
    for name in names:
        package: Any = importlib.import_module(f"bdaudit.{name}")
        function = getattr(verbs, name)
        package.__class__ = type("CallablePackage", (ModuleType,), {"__call__": staticmethod(function)})
        package.__signature__ = inspect.signature(function)
        package.__doc__ = function.__doc__
