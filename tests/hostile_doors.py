"""Hostile files at every door but the model's directory: each is made on the spot, and read by the project's own reader."""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdaudit import state_lock
from bdaudit.errors import ExitCode
from bdaudit.kept_state import State
from bdaudit.report.document import read_report
from bdaudit.untrusted.accept_file import read_acceptances
from bdaudit.untrusted.text_files import read_texts
from bdaudit.verify.policy import read_policy
from fixtures import layout
from tests import small

GRADER = Path(layout.__file__).parent / "grader"
DIGEST = "ab" * 32
DEEP, LONG = "[" * 3_000 + "]" * 3_000, "1" * 5_000
HOLE = 1 << 32


@dataclass(frozen=True)
class Door:
    """A file that a run opens."""

    name: str
    file: str
    read: Callable[[Path], object]
    odd: ExitCode = ExitCode.USAGE
    """How a run ends where it is no regular file."""
    link: ExitCode | None = None
    """Where it is a link to no regular file, if that ends otherwise."""
    damaged: ExitCode = ExitCode.USAGE
    pickle: ExitCode = ExitCode.USAGE


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    code: ExitCode
    run: Callable[[Path, Path], object]
    """``run(folder, canary)`` makes the file in the empty ``folder`` and reads it."""


Run = Callable[[Path, Path], object]
Cases = dict[str, tuple[ExitCode, Run]]
"""Name → how it ends, and what makes and reads it."""


def cases_of(kinds: Mapping[str, Callable[[], Cases]]) -> list[Case]:
    return [Case(kind, name, code, run) for kind, make in kinds.items() for name, (code, run) in make().items()]


@functools.cache
def suspect() -> Any:
    """A tiny model, loaded once."""
    from bdaudit.models.load import load
    from bdaudit.untrusted.inspect import inspect

    with tempfile.TemporaryDirectory(prefix="doors-") as folder:
        return load(inspect(small.write(Path(folder) / "model")), device="cpu")


def load_clip(folder: Path = GRADER) -> object:
    """A grader, as ``--clip local-dir:`` opens it."""
    from bdaudit.measure.open_clip_model import load_open_clip

    return load_open_clip(f"local-dir:{folder}", "--clip")


def adapter(path: Path) -> object:
    from bdaudit.models.lora import read_adapter

    return read_adapter(path, 1.0, suspect())


def embedding(path: Path, token: str) -> object:
    from bdaudit.models.embeddings import learned, read_embedding

    with learned(suspect(), [read_embedding(path, token)]):
        return suspect().encode(["a <x>"])


def patch(path: Path) -> object:
    from bdaudit.unlearn.patchfile import read_patch

    return read_patch(path, DIGEST, ("unet",))


def pairs(path: Path) -> object:
    from bdaudit.unlearn.clean.captioned_pictures import read_pairs

    return read_pairs(path)


def strips(order: str, count: int, mark: bytes = b"") -> bytes:
    """A grey TIFF, one pixel wide, whose rows are a strip each, all of them at one place."""
    magic, begin = mark or {"<": b"II*\0", ">": b"MM\0*"}[order], 8 + 2 + 9 * 12 + 4
    tags = [(256, 1), (257, count), (258, 8), (259, 1), (262, 1), (273, begin + 4), (277, 1), (278, 1), (279, begin + 4 + 4 * count)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, count if tag in (273, 279) else 1, value) for tag, value in tags)
    lists = struct.pack(f"{order}I", begin) * count + struct.pack(f"{order}I", 1) * count
    return magic + struct.pack(f"{order}IH", 8, 9) + entries + bytes(4) + bytes(4) + lists


def scans(count: int) -> bytes:
    """A progressive JPEG of 5,700 × 5,700 pixels and ``count`` scans: each takes its decoder through all of the picture."""

    def part(mark: int, data: bytes) -> bytes:
        return bytes((0xFF, mark)) + struct.pack(">H", len(data) + 2) + data

    frame = part(0xC2, struct.pack(">BHHB", 8, 5_700, 5_700, 1) + bytes((1, 0x11, 0)))
    tables = part(0xDB, bytes(1) + bytes([1] * 64)) + part(0xC4, bytes((0, 1, *[0] * 15, 0)))
    scan = part(0xDA, bytes((1, 1, 0, 0, 0, 0))) + bytes(40)
    return b"\xff\xd8" + tables + frame + scan * count + b"\xff\xd9"


def picture(path: Path) -> object:
    from bdaudit.measure.picture_files import read_picture

    return read_picture(path, "--target-image")


def grader(path: Path) -> object:
    """A grader whose file of that name is the one at ``path``."""
    folder = path.parent / "clip"
    shutil.copytree(GRADER, folder)
    (folder / path.name).unlink(missing_ok=True)
    if os.path.lexists(path):
        path.rename(folder / path.name)
    return load_clip(folder)


def kept(path: Path) -> object:
    (path.parent / "run.json").write_text('{"key": "k"}')
    try:
        state = State(path.parent, "k")
        return state.read_tensors("x") if path.suffix == ".safetensors" else state.read_json("x", dict[str, float])
    finally:
        state_lock.release()


def run_of(path: Path) -> object:
    try:
        return State(path.parent, "k")
    finally:
        state_lock.release()


DOORS = (
    Door("candidates", "tokens.txt", read_texts),
    Door("policy", "policy.toml", read_policy),
    Door("accepted findings", "accept.json", lambda path: read_acceptances(path, "--accept")),
    Door("report", "scan.json", lambda path: read_report(path, "--from-report")),
    Door("pairs", "pairs.tsv", pairs),
    Door("picture", "x.png", picture),
    Door("patch", "p.safetensors", patch, pickle=ExitCode.REFUSED),
    Door("adapter", "a.safetensors", adapter, damaged=ExitCode.ERROR, pickle=ExitCode.REFUSED),
    Door("state: figures", "kept-x.json", kept, odd=ExitCode.PASS),
    Door("state: tensors", "kept-x.safetensors", kept, odd=ExitCode.PASS),
    Door("state: whose it is", "run.json", run_of),
    Door("grader: settings", "open_clip_config.json", grader, link=ExitCode.REFUSED, pickle=ExitCode.REFUSED),
    Door("grader: weights", "open_clip_model.safetensors", grader, link=ExitCode.REFUSED, damaged=ExitCode.ERROR, pickle=ExitCode.REFUSED),
)
"""``odd`` is 0 where a state's file is left aside, as one that was never kept."""

ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
}


def at(door: Door, make: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    def run(folder: Path, _: Path) -> object:
        make(folder / door.file)
        return door.read(folder / door.file)

    return run


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, HOLE)


def header(tensors: dict[str, Any], metadata: dict[str, str] | None = None, data: bytes = b"") -> bytes:
    text = json.dumps({**({"__metadata__": metadata} if metadata else {}), **tensors}).encode()
    return len(text).to_bytes(8, "little") + text + data


def bomb(side: int) -> bytes:
    """A PNG of ``side`` × ``side`` pixels, a bit each, all the same."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    shape = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pickled(canary: Path) -> bytes:
    return b"\x80\x04cposix\nsystem\nX" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode() + b"\x85R."


def evil_grader(name: str) -> Callable[[Path, Path], object]:
    """Settings of a grader that ask for the Python beside them, which touches the canary."""

    def run(folder: Path, canary: Path) -> object:
        clip = shutil.copytree(GRADER, folder / "clip")
        (clip / "evil.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass Evil: ...\n")
        held = json.loads((clip / name).read_text()) if (clip / name).exists() else {}
        hooks = {"auto_map": {each: ["evil.Evil", "evil.Evil"] for each in ("AutoTokenizer", "AutoConfig", "AutoProcessor")}}
        (clip / name).write_text(json.dumps(held | hooks))
        return load_clip(clip)

    return run


def changed_grader(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], object]:
    def run(folder: Path, _: Path) -> object:
        content = json.loads((GRADER / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
        return grader(folder / name)

    return run


TEXT = {
    "3,000 lists in each other": DEEP,
    "a number of 5,000 digits": LONG,
    "a figure that is none": '{"command": NaN}',
    "a figure beyond all": '{"command": 1e999}',
    "a key twice": '{"command": 1, "command": 2}',
    "another thing": "5",
    "not UTF-8": "\udcff",
    "nothing": "",
}
LYING = {
    "cut short": header({"unet.a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, data=bytes(15)),
    "tensors over each other": header(
        {n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in ("unet.a", "unet.b")}, data=bytes(16)
    ),
    "a type of its own": header({"unet.a": {"dtype": "F128", "shape": [1], "data_offsets": [0, 16]}}, data=bytes(16)),
    "a header without end": (1 << 60).to_bytes(8, "little") + b"{",
    "a header of 3,000 maps": (12_000).to_bytes(8, "little") + b'{"":' * 3_000,
    "metadata that is no text": header({"__metadata__": {"a": 1}}),
}


def cases() -> list[Case]:
    found = []
    for door in DOORS:
        for name, make in ODD.items():
            code = door.odd if door.link is None or name in ("a pipe", "a folder") else door.link
            found.append(Case("no regular file", f"{door.name}: {name}", code, at(door, make)))
        held = ExitCode.USAGE if door.link is None else door.link
        memory = door.damaged if door.name == "adapter" else held
        found.append(Case("a file that cannot be read", door.name, memory, at(door, lambda path: path.symlink_to("/proc/self/mem"))))
        found.append(Case("mostly a hole", door.name, door.damaged, at(door, hole)))
        if door.file.endswith((".json", ".toml")):
            texts = {name: text.encode("utf-8", "surrogateescape") for name, text in TEXT.items()}
            for name, content in texts.items():
                found.append(Case("text that is none", f"{door.name}: {name}", door.damaged, at(door, written(content))))
        if door.file.endswith(".safetensors"):
            for name, content in LYING.items():
                found.append(Case("tensors that lie", f"{door.name}: {name}", door.damaged, at(door, written(content))))

            def pickle(folder: Path, canary: Path, door: Door = door) -> object:
                return at(door, written(pickled(canary)))(folder, canary)

            found.append(Case("a pickle under another name", door.name, door.pickle, pickle))
    policy, report, shot, of_patch = (next(door for door in DOORS if door.name == n) for n in ("policy", "report", "picture", "patch"))
    long_key = ("[verify]\na" + ".a" * 30_000 + " = 1").encode()
    found += [
        Case("settings that take for ever", "a key of 30,000 parts", ExitCode.USAGE, at(policy, written(long_key))),
        Case("settings that take for ever", "a million lines", ExitCode.USAGE, at(policy, written(b"\n" * 1_000_000))),
        Case("settings that take for ever", "a report of a million lists", ExitCode.USAGE, at(report, written(b"[[],[]," * 1_000_000))),
        Case("pictures beyond memory", "178 million pixels in 22 kB", ExitCode.USAGE, at(shot, written(bomb(13_341)))),
        Case("pictures beyond memory", "just beyond the bound", ExitCode.USAGE, at(shot, written(bomb(5_793)))),
        Case("pictures that take for ever", "20,000 scans", ExitCode.USAGE, at(shot, written(scans(20_000)))),
        Case("pictures that take for ever", "four million strips", ExitCode.USAGE, at(shot, written(strips("<", 4_000_000)))),
        Case("pictures that take for ever", "8 MB more than is read", ExitCode.USAGE, at(shot, written(bytes(40 << 20)))),
        Case("pictures that take for ever", "just beyond the bound", ExitCode.USAGE, at(shot, written(scans(201)))),
    ]
    records = {"3,000 lists in each other": DEEP, "a figure that is none": '{"input_digest": "ab", "n": NaN}', "a list": "[]", "5": "5"}
    other = json.dumps({"input_digest": "cd" * 32})
    for name, text in {**records, "of another model": other}.items():
        data = header({"unet.a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, {"bdaudit": text}, bytes(16))
        found.append(Case("a patch's record", name, ExitCode.USAGE, at(of_patch, written(data))))
    for name in ("tokenizer_config.json", "config.json", "processor_config.json", "preprocessor_config.json", "special_tokens_map.json"):
        found.append(Case("a grader that asks for code", name, ExitCode.REFUSED, evil_grader(name)))
    found.append(Case("a grader that asks for code", "trust_remote_code", ExitCode.REFUSED, changed_grader("open_clip_config.json",
        lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"trust_remote_code": True}))))  # fmt: skip
    return found + _graders()


def _graders() -> list[Case]:
    config, tokenizer = "open_clip_config.json", "tokenizer_config.json"
    kind = "a grader beyond bounds"
    wide, deep = {"width": 16_384}, {"layers": 10**6}
    tokens = [f"<{i}>" for i in range(200_000)]
    return [
        Case(kind, "a million layers", ExitCode.USAGE, changed_grader(config, lambda c: c["model_cfg"]["vision_cfg"].update(deep))),
        Case(kind, "wider than its weights", ExitCode.ERROR, changed_grader(config, lambda c: c["model_cfg"]["text_cfg"].update(wide))),
        Case(kind, "pictures of a gigapixel", ExitCode.USAGE, changed_grader(config, lambda c: c["preprocess_cfg"].update(size=32_768))),
        Case(kind, "200,000 tokens", ExitCode.USAGE, changed_grader(tokenizer, lambda c: c.update(additional_special_tokens=tokens))),
        Case(kind, "200,000 more tokens", ExitCode.USAGE, changed_grader(tokenizer, lambda c: c.update(extra_special_tokens=tokens))),
        Case(
            kind, "a tokenizer of its own", ExitCode.USAGE, changed_grader(tokenizer, lambda c: c.update(tokenizer_class="EvilTokenizer"))
        ),
    ]


CASES = cases()
