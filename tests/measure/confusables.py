"""The shipped table of look-alikes, made from Unicode's ``confusables.txt``: ``python -m tests.measure.confusables FILE`` writes it anew.

FILE is the one of https://www.unicode.org/Public/security/latest/. Two texts are confusable where their skeletons are the same (UTS #39,
section 4), so that a character looks like every ASCII one of the same skeleton: of 1, I, l and | it is put down to l.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from bdaudit.measure.look_alikes import TABLE

PREFERRED = [*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789"]


def skeletons(text: str) -> dict[str, str]:
    """Source → prototype, of every line."""
    rows = (line.split("#")[0].split(";") for line in text.removeprefix("\ufeff").splitlines())
    return {_text(row[0]): _text(row[1]) for row in rows if len(row) > 2}


def _text(codes: str) -> str:
    return "".join(chr(int(code, 16)) for code in codes.split())


def look_alikes(prototypes: Mapping[str, str]) -> dict[str, str]:
    """ASCII character, letters small → the single characters beyond ASCII that look like it, by code point."""
    signs = [c for c in map(chr, range(0x21, 0x7F)) if c not in PREFERRED]
    stands = {prototypes.get(c, c): c.lower() for c in reversed([*PREFERRED, *signs])}
    found: dict[str, str] = {}
    for source, prototype in sorted(prototypes.items()):
        if len(source) == 1 and not source.isascii() and prototype in stands:
            found[stands[prototype]] = found.get(stands[prototype], "") + source
    return dict(sorted(found.items()))


def table(data: bytes, licence: list[str]) -> dict[str, object]:
    """What is shipped."""
    text = data.decode("utf-8")
    version, dated = (re.search(rf"^# {what}: (\S+?),?\s", text, re.MULTILINE) for what in ("Version", "Date"))
    assert version, "no version in its head"
    assert dated, "no date in its head"
    return {
        "source": "confusables.txt of the Unicode Security Mechanisms (UTS #39)",
        "version": version[1],
        "date": dated[1],
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": licence,
        "look_alikes": {letter: " ".join(f"{ord(c):04X}" for c in found) for letter, found in look_alikes(skeletons(text)).items()},
    }


if __name__ == "__main__":
    kept = json.loads(TABLE.read_text(encoding="utf-8"))["licence"]
    made = table(Path(sys.argv[1]).read_bytes(), kept)
    TABLE.write_text(json.dumps(made, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
