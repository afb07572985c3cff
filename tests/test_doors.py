"""Nothing is opened past the one door: whatever else opens, parses or decodes a file stands here, with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bdaudit"
OPENERS = frozenset((
    "open", "fdopen", "read_text", "read_bytes", "safe_open", "load_file", "memmap", "mmap", "fromfile", "from_file", "ZipFile", "TarFile",
    "loadtxt", "genfromtxt", "Unpickler", "from_pretrained", "load_checkpoint", "create_model", "get_tokenizer", "from_single_file",
    "load_state_dict_from_url", "hf_hub_download", "snapshot_download", "from_json_file", "ConfigParser",
))  # fmt: skip
"""Calls that open a file, whatever they are called on."""
PARSERS = frozenset(
    f"{module}.{call}"
    for module in ("json", "tomllib", "torch", "np", "numpy", "pickle", "yaml", "safetensors")
    for call in ("load", "loads")
) | {"pydantic_core.from_json"}
DOORS = {
    "untrusted/open_file.py": "the door itself",
    "untrusted/tree.py": "the door to a model's directory: descriptors that are checked, and bounded JSON for every other file too",
    "untrusted/json_text.py": "JSON of bytes that a door has read, under its bounds",
    "untrusted/hub_snapshot.py": "folders and blobs of the hub's cache, by descriptor, no link followed; the door checks what they are",
    "untrusted/fingerprint.py": "reads through the directory's door",
    "untrusted/safetensors_header.py": "reads through the directory's door",
    "untrusted/torch_file.py": "reads through the directory's door; a zip of which no part is unpacked unbounded",
    "untrusted/pictures.py": "a picture from the door's descriptor, its size known before it is decoded",
    "models/load.py": "a library reads a private folder with what was inspected",
    "models/tokenizer.py": "a library reads a private folder with what was inspected",
    "measure/open_clip_model.py": "a library reads a private folder with what was inspected",
    "models/save_file.py": "writes its copy",
    "models/save.py": "reads through the directory's door; writes its copy, and reads tensors alone of that",
    "targets.py": "writes",
    "state_lock.py": "a lock file, no link followed, of which nothing is read",
    "report/page.py": "the package's own template and style",
    "report/fleet/page.py": "the package's own template, styles and script",
    "report/streams.py": "the process's own streams",
}
"""Module → why it may call one of them."""


def opened(source: str) -> Iterator[str]:
    """The calls in ``source`` that open or parse a file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called.rpartition(".")[2] in OPENERS or called in PARSERS:
            yield called


MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_opened_past_the_door(module: str) -> None:
    found = set(opened(MODULES[module].read_text(encoding="utf-8")))
    assert bool(found) == (module in DOORS), f"{module} calls {sorted(found)}; read files through untrusted.open_file, or say here why not"


@pytest.mark.parametrize(
    "call",
    ["open(p)", "Path(p).open('rb')", "os.fdopen(3)", "p.read_text()", "Image.open(p)", "safe_open(p, 'pt')", "json.load(f)",
     "torch.load(p)", "tomllib.loads(t)", "json.loads(p)", "A.from_pretrained(p)", "np.load(p)", "load_file(p)"],
)  # fmt: skip
def test_each_way_to_open_a_file_is_seen(call: str) -> None:
    assert len(list(opened(f"def f():\n    return {call}\n"))) == 1
    assert not list(opened(f"# {call}\n'''{call}'''\n"))
