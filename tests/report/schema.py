"""The JSON Schema of reports, made from the records: ``python -m tests.report.schema`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import bdaudit.report
from bdaudit.report.document import REPORTS, AnyReport

SHIPPED = Path(bdaudit.report.__file__).parent / "schema.json"


def shipped_schema() -> dict[str, Any]:
    """What comes with the package."""
    schema: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return schema


def build_schema() -> dict[str, Any]:
    """JSON Schema 2020-12; each verb's report is told by its ``command``."""
    definitions = TypeAdapter(AnyReport).json_schema(mode="serialization")["$defs"]
    for command, kind in REPORTS.items():
        definitions[kind.__name__]["properties"]["command"] = {"const": command}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bdaudit report",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in REPORTS.values()],
        "$defs": definitions,
    }


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(build_schema(), indent=2) + "\n", encoding="utf-8")
