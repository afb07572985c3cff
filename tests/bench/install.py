"""How much disk an installation takes: ``python tests/bench/install.py [PATH]``, in an environment that bdaudit's dependencies lie in.

Sizes are of the files that each distribution's own record lists, for what bdaudit needs and what that needs in turn, without extras.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.recording import record, rounded  # noqa: E402

OF_A_GPU = ("nvidia", "triton", "cuda")
"""How the names of those begin that torch's wheels for a CPU do without."""


def needed() -> dict[str, Distribution]:
    """Name → distribution, of all that bdaudit needs at last."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    open_ = [(Requirement(each), frozenset[str]()) for each in project["dependencies"]]
    while open_:
        asked, extras = open_.pop()  # extras: those that its parent was asked for with
        applies = asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if not applies or str(asked) in seen:
            continue
        seen.add(str(asked))
        found[asked.name.lower().replace("_", "-")] = here = distribution(asked.name)
        open_ += [(Requirement(each), frozenset(asked.extras)) for each in here.requires or ()]
    return found


def size(of: Distribution) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for file in of.files or () if (path := Path(str(of.locate_file(file)))).is_file())


def main() -> None:
    """Command line."""
    sizes = {name: size(found) / 1e9 for name, found in needed().items()}
    gpu = sum(value for name, value in sizes.items() if name.startswith(OF_A_GPU))
    torch = distribution("torch").version
    record(rounded(3, {"torch": torch, "distributions": len(sizes), "GB": sum(sizes.values()), "GB of libraries for a GPU": gpu}), 1)


if __name__ == "__main__":
    main()
