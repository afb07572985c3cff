"""Hostile folders and values at the doors: graders, a model's own record, other models, pictures, state, places, exchanged files."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bdaudit import state_lock
from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode
from bdaudit.kept_state import State
from bdaudit.measure.opening import inspected
from bdaudit.targets import try_written
from bdaudit.untrusted.inspect import inspect, verify_unchanged
from bdaudit.verify.input_report import claim_of
from bdaudit.verify.pictures import check_pictures, picture_files
from tests.hostile_doors import DEEP, GRADER, HOLE, Cases, Run, bomb, cases_of, kept, load_clip, pairs, pickled, picture
from tests.untrusted import edits, tiny

PASS, USAGE, ERROR, INCONCLUSIVE, REFUSED = ExitCode.PASS, ExitCode.USAGE, ExitCode.ERROR, ExitCode.INCONCLUSIVE, ExitCode.REFUSED
Tensors = dict[str, np.ndarray]


def serialised(**sections: Any) -> Run:
    """A grader whose ``tokenizer.json`` has these sections, and is read as it stands."""

    def run(folder: Path, _: Path) -> object:
        shutil.copytree(GRADER, folder / "clip")
        for name, changes in (("tokenizer.json", sections), ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})):
            held = json.loads((folder / "clip" / name).read_text())
            (folder / "clip" / name).write_text(json.dumps({**held, **changes}))
        return load_clip(folder / "clip").tokenizer(["a cat"])  # type: ignore[attr-defined]

    return run


def replaced(text: str, content: str, n: int) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": text}, "content": content}] * n}


def _graders_tokenizers() -> Cases:
    model = json.loads((GRADER / "tokenizer.json").read_text())["model"]
    piece = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    special = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [1], "tokens": ["<|endoftext|>"]}}
    template = {"type": "TemplateProcessing", "single": [piece] * 10_000, "pair": [], "special_tokens": special}
    ends = {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 4_000_000], "cls": ["<|startoftext|>", 0]}
    many = {"<|endoftext|>": {**special["<|endoftext|>"], "ids": [1] * 10**5, "tokens": ["a"] * 10**5}}
    return {
        "a broken table of bytes": (USAGE, serialised(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        "a table without a name": (USAGE, serialised(normalizer={"precompiled_charsmap": "AAAA"})),
        "a text that grows a million times": (USAGE, serialised(normalizer=replaced("a", "a" * 10, 6))),
        "a text that grows without end": (USAGE, serialised(normalizer=replaced("a", "aa", 1_000))),
        "two million characters before a text": (USAGE, serialised(normalizer={"type": "Prepend", "prepend": "a" * 2_000_000})),
        "10,000 tokens around a text": (USAGE, serialised(post_processor=template)),
        "a token that is 100,000": (USAGE, serialised(post_processor={**template, "single": [piece], "special_tokens": many})),
        "an id that its model has not": (ERROR, serialised(post_processor=ends)),
        "tokens drawn by chance": (USAGE, serialised(model={**model, "dropout": 0.5})),
        "no model": (USAGE, serialised(model=None)),
    }


def folder_of(change: Callable[[Path, Path], object]) -> Run:
    def run(folder: Path, canary: Path) -> object:
        change(Path(shutil.copytree(GRADER, folder / "clip")), canary)
        return load_clip(folder / "clip")

    return run


def _graders_folders() -> Cases:
    weights = "open_clip_model.safetensors"

    def away(clip: Path, _: Path) -> None:
        (clip / weights).symlink_to(shutil.move(clip / weights, clip.parent / "elsewhere"))

    return {
        "folders 20 deep, which nobody enters": (PASS, folder_of(lambda clip, _: (clip / "/".join("a" * 20)).mkdir(parents=True))),
        "weights behind a link": (REFUSED, folder_of(away)),
        "a pickle alone": (REFUSED, folder_of(lambda clip, c: ((clip / weights).unlink(), (clip / "x.bin").write_bytes(pickled(c))))),
        "two files of weights": (
            USAGE,
            folder_of(lambda clip, _: ((clip / "b.safetensors").touch(), (clip / weights).rename(clip / "a.safetensors"))),
        ),
        "a file": (USAGE, folder_of(lambda clip, _: (shutil.rmtree(clip), clip.touch()))),
        "weights of another model": (ERROR, folder_of(lambda clip, _: (clip / weights).write_bytes(save({"a": np.ones(4, np.float32)})))),
        "weights that are none": (ERROR, folder_of(lambda clip, _: nan_in(clip / weights))),
    }


def nan_in(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\xc0\x7f"
    path.write_bytes(content)


def of_model(change: edits.Edit, read: Callable[[Path], object] = inspect) -> Run:
    def run(folder: Path, canary: Path) -> object:
        model = tiny.write_model(folder / "model")
        change(model, canary)
        return read(model)

    return run


def claims(content: bytes) -> Run:
    return of_model(edits.add("bdaudit.json", content), lambda model: claim_of(inspect(model)))


def _records() -> Cases:
    return {
        "a number": (ERROR, claims(b"5")),
        "a list": (ERROR, claims(b"[]")),
        "NaN": (ERROR, claims(b'{"input_digest": NaN}')),
        "3,000 lists in each other": (ERROR, claims(DEEP.encode())),
        "a number of 5,000 digits": (ERROR, claims(b'{"input_digest": ' + b"1" * 5_000 + b"}")),
        "5 MB": (ERROR, claims(b'{"input_digest": "' + b"a" * (5 << 20) + b'"}')),
        "300,000 lists": (ERROR, claims(b'{"a": [' + b"[]," * 300_000 + b"[]]}")),
        "a key twice": (ERROR, claims(b'{"input_digest": "a", "input_digest": "b"}')),
        "nothing that it should say": (PASS, claims(b'{"input_digest": ["a"], "triggers": 5, "adapters": [{"files": [5]}, 7]}')),
        "a link out": (PASS, of_model(edits.link("bdaudit.json", "/etc/passwd"), lambda model: claim_of(inspect(model)))),
    }


def _other_models() -> Cases:
    """As ``--before``, ``--reference``, ``--base`` and ``--merge-with`` open them."""

    def opened(model: Path) -> object:
        return inspected(ScanConfig(model=model.with_name("other")), model)

    cases = {
        "code": (REFUSED, edits.add("pipeline.py")),
        "a link out": (REFUSED, edits.link(edits.UNET, "/etc/passwd")),
        "a pickle alone": (REFUSED, edits.replace(edits.UNET, "unet/diffusion_pytorch_model.bin", edits.pickled)),
        "a pipe": (REFUSED, edits.fifo("vae/config.json")),
        "weights of 4 TB": (ERROR, edits.past_memory),
        "a line feed in a name": (REFUSED, edits.add("unet/a\nb.json", b"{}")),
    }
    return {name: (code, of_model(edit, opened)) for name, (code, edit) in cases.items()}


def _names() -> Cases:
    names = {"an escape": "\x1b[2J", "a line feed": "a\nb", "a bell": "a\ab", "a C1 control": "a\x9bb", "a carriage return": "a\rb"}
    found = {name: (REFUSED, of_model(edits.add(f"unet/{text}.json", b"{}"))) for name, text in names.items()}
    turned = {"unet": ["diffusers", "\x1b[2J\u202e"]}
    return {
        **found,
        "a direction of writing, in a part's class": (REFUSED, of_model(edits.change("model_index.json", **turned))),
        "an escape, in a setting": (ERROR, of_model(edits.change("unet/config.json", in_channels="\x1b[2J"))),
        "an escape, in a pipeline's class": (REFUSED, of_model(edits.change("model_index.json", _class_name="\x1b[2J"))),
    }


def _exchanged() -> Cases:
    """Files that are other ones when the model is loaded than they were when it was inspected."""

    def after(change: edits.Edit) -> Run:
        def run(folder: Path, canary: Path) -> object:
            found = inspect(tiny.write_model(folder / "model"))
            change(found.path, canary)
            return verify_unchanged(found)

        return run

    def same_size(model: Path, _: Path) -> None:
        before = (model / edits.UNET).stat()
        nan_in(model / edits.UNET)
        os.utime(model / edits.UNET, ns=(before.st_atime_ns, before.st_mtime_ns))

    return {
        "a bit of weights, size and time kept": (ERROR, after(same_size)),
        "a config": (ERROR, after(edits.change("unet/config.json", sample_size=8))),
        "a vocabulary for a link out": (REFUSED, after(edits.link("tokenizer/vocab.json", "/etc/passwd"))),
        "weights for a pipe": (REFUSED, after(edits.fifo(edits.TEXT))),
        "weights for a socket": (REFUSED, after(edits.unix_socket(edits.TEXT))),
        "a part for a link": (REFUSED, after(edits.link("unet", "../elsewhere"))),
        "a file more": (ERROR, after(edits.add("unet/diffusers.py"))),
        "a file less": (ERROR, after(lambda model, _: (model / "tokenizer/merges.txt").unlink())),
    }


def listed(line: str, make: Callable[[Path], object] = lambda folder: None) -> Run:
    def run(folder: Path, _: Path) -> object:
        make(folder)
        (folder / "pairs.tsv").write_text(f"{line}\ta caption\n")
        return pairs(folder / "pairs.tsv")

    return run


def _pairs() -> Cases:
    outside = {"a way up": "../x.png", "an absolute way": "/etc/passwd", "a way up inside": "a/../../x.png", "NUL": "a\0b", "nothing": " "}
    found = {name: (USAGE, listed(line, lambda folder: (folder.parent / "x.png").write_bytes(bomb(8)))) for name, line in outside.items()}
    there: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a link out": lambda path: path.symlink_to("/etc/passwd"),
        "a link in a circle": lambda path: path.symlink_to(path.name),
        "no picture": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        "178 million pixels": lambda path: path.write_bytes(bomb(13_341)),
    }
    found |= {name: (USAGE, listed("x.png", lambda folder, make=make: make(folder / "x.png"))) for name, make in there.items()}  # type: ignore[misc]
    return {**found, "a name of 100,000 characters": (USAGE, listed("a" * 100_000)), "a name of 300": (USAGE, listed("a" * 300))}


def _real_pictures() -> Cases:
    def of(make: Callable[[Path], object]) -> Run:
        def run(folder: Path, _: Path) -> object:
            for name in ("a.png", "b.png"):
                (folder / name).write_bytes(bomb(8))
            make(folder / "x.png")
            return check_pictures(picture_files(folder))

        return run

    def alone(folder: Path, _: Path) -> object:
        return picture_files(folder)

    cases: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a link in a circle": lambda path: path.symlink_to(path.name),
        "178 million pixels": lambda path: path.write_bytes(bomb(13_341)),
        "a hole": lambda path: (path.touch(), os.truncate(path, HOLE)),
        "no picture": lambda path: path.write_bytes(b"x"),
    }
    return {**{name: (USAGE, of(make)) for name, make in cases.items()}, "none": (USAGE, alone)}


def _pictures() -> Cases:
    """Files that Pillow knows and that are not decoded here, and damaged ones of kinds that are."""

    def of(make: Callable[[Path, Path], bytes]) -> Run:
        def run(folder: Path, canary: Path) -> object:
            (folder / "x.png").write_bytes(make(folder, canary))
            return picture(folder / "x.png")

        return run

    def saved(kind: str, change: Callable[[bytes], bytes] = bytes) -> Run:
        def make(folder: Path, _: Path) -> bytes:
            from PIL import Image

            Image.effect_noise((64, 48), 60).convert("P" if kind == "GIF" else "RGB").save(folder / "made", kind)
            return change((folder / "made").read_bytes())

        return of(make)

    def postscript(folder: Path, canary: Path) -> bytes:
        return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch {canary}) (w) file\n".encode()

    whole: Cases = {
        "PostScript, which another program draws": (USAGE, of(postscript)),
        "SVG with something outside": (USAGE, of(lambda folder, _: b'<svg xmlns:xlink="x"><image xlink:href="file:///etc/passwd"/></svg>')),
    }
    whole |= {f"a format that is not read, {kind}": (USAGE, saved(kind)) for kind in ("PPM", "TGA", "PCX", "SGI", "PDF")}
    whole |= {f"{kind}, cut short": (USAGE, saved(kind, lambda data: data[:40])) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}
    whole |= {"PNG without its pixels": (USAGE, of(lambda folder, _: bomb(64)[:41] + bomb(64)[-12:]))}
    whole |= {"text and a picture's name": (USAGE, of(lambda folder, _: b"\x89PNG\r\n\x1a\n" + b"a" * 4_000))}
    return whole


def _states() -> Cases:
    def of(make: Callable[[Path], object]) -> Run:
        def run(folder: Path, _: Path) -> object:
            make(folder / "state")
            try:
                return State(folder / "state", "k")
            finally:
                state_lock.release()

        return run

    def inside(make: Callable[[Path], object]) -> Run:
        return of(lambda state: (state.mkdir(), (state / "run.json").write_text('{"key": "k"}'), make(state / state_lock.LOCK)))

    def bound(path: Path) -> None:
        with chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)

    return {
        "a file": (USAGE, of(Path.touch)),
        "a pipe": (USAGE, of(os.mkfifo)),
        "a device": (USAGE, of(lambda state: state.symlink_to("/dev/zero"))),
        "of another run": (USAGE, of(lambda state: (state.mkdir(), (state / "run.json").write_text('{"key": "other"}')))),
        "somebody's files": (USAGE, of(lambda state: (state.mkdir(), (state / "thesis.txt").touch()))),
        "a lock that is a folder": (ERROR, inside(Path.mkdir)),
        "a lock that is a link": (ERROR, inside(lambda lock: lock.symlink_to("/etc/passwd"))),
        "a lock that is a socket": (ERROR, inside(bound)),
        "whose it is, behind a link": (USAGE, of(lambda state: (state.mkdir(), (state / "run.json").symlink_to("/etc/passwd")))),
    }


def _kept() -> Cases:
    def of(tensors: Tensors, notes: str | None = "{}") -> Run:
        def run(folder: Path, _: Path) -> object:
            (folder / "kept-x.safetensors").write_bytes(save(tensors, None if notes is None else {"notes": notes}))
            return kept(folder / "kept-x.safetensors")

        return run

    def figures(text: str) -> Run:
        def run(folder: Path, _: Path) -> object:
            (folder / "kept-x.json").write_text(text)
            return kept(folder / "kept-x.json")

        return run

    one = {"a": np.ones(4, np.float32)}
    return {
        "tensors with NaN": (USAGE, of({"a": np.full(4, np.nan, np.float32)})),
        "tensors without notes": (USAGE, of(one, None)),
        "notes that are no figure": (USAGE, of(one, "NaN")),
        "notes 3,000 deep": (USAGE, of(one, DEEP)),
        "a figure that is text": (USAGE, figures('{"a": "b"}')),
        "a figure that is a list": (USAGE, figures('{"a": [1]}')),
        "figures that are a list": (USAGE, figures("[1]")),
        "a figure of 400 digits": (USAGE, figures('{"a": ' + "1" * 400 + "}")),
    }


def _places() -> Cases:
    def to(flag: str, make: Callable[[Path], Path]) -> Run:
        return lambda folder, _: try_written([(flag, make(folder))])

    def full(folder: Path) -> Path:
        (folder / "out").mkdir()
        (folder / "out/thesis.txt").touch()
        return folder / "out"

    def made(path: Path, make: Callable[[Path], object], rest: str = "") -> Path:
        make(path)
        return path / rest if rest else path

    return {
        "a name of 300 characters": (USAGE, to("--out", lambda folder: folder / ("a" * 300))),
        "somebody's folder": (USAGE, to("--out", full)),
        "a link": (USAGE, to("--out", lambda folder: made(folder / "out", lambda path: path.symlink_to("/tmp")))),
        "a link to nowhere": (USAGE, to("--out", lambda folder: made(folder / "out", lambda path: path.symlink_to("nowhere")))),
        "a pipe": (USAGE, to("--out", lambda folder: made(folder / "out", os.mkfifo))),
        "in a folder that is not there": (USAGE, to("--out", lambda folder: folder / "a/b/out")),
        "below a file": (USAGE, to("--out", lambda folder: made(folder / "a", Path.touch, "out"))),
        "a patch that is there": (USAGE, to("--patch", lambda folder: made(folder / "p.safetensors", Path.touch))),
        "a patch by another name": (USAGE, to("--patch", lambda folder: folder / "p.bin")),
        "state that is a file": (USAGE, to("--state", lambda folder: made(folder / "s", Path.touch))),
        "state below a file": (USAGE, to("--state", lambda folder: made(folder / "s", Path.touch, "t"))),
        "of the kernel": (USAGE, to("--state", lambda folder: Path("/proc/bdaudit"))),
    }


KINDS: dict[str, Callable[[], Cases]] = {
    "a grader's tokenizer": _graders_tokenizers,
    "a grader's folder": _graders_folders,
    "what a model says of itself": _records,
    "other models of a run": _other_models,
    "names that act": _names,
    "files exchanged after the check": _exchanged,
    "pictures that pairs name": _pairs,
    "folders of pictures": _real_pictures,
    "pictures that are none": _pictures,
    "folders of state": _states,
    "what was kept": _kept,
    "places that are written": _places,
}
CASES = cases_of(KINDS)
