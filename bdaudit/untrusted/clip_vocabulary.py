"""CLIP's own vocabulary, which no single file holds: made of the list of merges that comes with open_clip, and nothing is downloaded."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from bdaudit.errors import BdauditError
from bdaudit.untrusted.open_file import read_file

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
"""Of the file as OpenAI published it with CLIP."""
_MERGES = 49_152 - 256 - 2
"""What CLIP reads of its list."""
START, END = "<|startoftext|>", "<|endoftext|>"


@functools.cache
def files() -> dict[str, bytes]:
    """``vocab.json`` and ``merges.txt`` as ``CLIPTokenizer`` reads them.

    Raises:
        BdauditError: open_clip does not bring the list, or another one.
    """
    merges = _merges()
    letters = list(_letters().values())
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges), START, END]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    text = "\n".join(["#version: 0.2", *merges, ""])
    return {"vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(), "merges.txt": text.encode()}


def _merges() -> list[str]:
    found = find_spec("open_clip")
    folder = Path(str(found.origin)).parent if found else Path()
    packed = read_file(folder / _FILE, f"open_clip's {_FILE}", 4 << 20, error=BdauditError)
    if hashlib.sha256(packed).hexdigest() != _SHA256:
        raise BdauditError(f"open_clip's {_FILE} is not CLIP's vocabulary; install open_clip_torch again")
    return gzip.decompress(packed).decode("utf-8").split("\n")[1 : _MERGES + 1]


def _letters() -> dict[int, str]:
    """Byte → the printable character that stands for it, in the order of CLIP's ``bytes_to_unicode``."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
