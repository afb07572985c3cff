"""The front page's picture of a scan: ``python tests/bench/picture.py REPORT.json PICTURE.svg``."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bdaudit.report.content.whole import content
from bdaudit.report.document import loads
from bdaudit.report.terminal import renderable


def main(report: Path, picture: Path) -> None:
    """Render a JSON report as the terminal shows it, the first ten candidates of it."""
    console = Console(record=True, width=150, file=open("/dev/null", "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    found = loads(report.read_text(encoding="utf-8"))
    console.print(renderable(content(replace(found, candidates=found.candidates[:10]))))
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="bdaudit"), flags=re.DOTALL)  # no font from the network
    picture.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
