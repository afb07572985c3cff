"""The README's picture of a scan: ``python tests/bench/picture.py REPORT.json PICTURE.svg``."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from bdaudit.report.document import loads
from bdaudit.report.tables import renderables


def main(report: Path, picture: Path) -> None:
    """Render a JSON report as the terminal shows it."""
    console = Console(record=True, width=150, file=open("/dev/null", "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    console.print(renderables(loads(report.read_text(encoding="utf-8"))))
    picture.write_text(console.export_svg(title="bdaudit"), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
