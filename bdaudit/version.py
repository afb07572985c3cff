"""The version, which the package and every report name."""

from __future__ import annotations

__version__ = "0.1.0"
