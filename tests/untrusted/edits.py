"""Ways to turn a valid model directory into a hostile one: each is a function of the directory and of a canary.

Code, where an edit brings any, does one thing: it creates the canary file.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.untrusted import tiny

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PAST_MEMORY = 1 << 42

Edit = Callable[[Path, Path], None]


def code(canary: Path) -> str:
    """Python that creates the canary."""
    return f"open({str(canary)!r}, 'w').close()\n"


class _Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (code(self.canary),)


def pickled(canary: Path, protocol: int = 2) -> bytes:
    """A pickle that creates the canary when it is loaded."""
    return pickle.dumps({"conv_in.weight": _Bomb(canary)}, protocol=protocol)


def write_zip(path: Path, canary: Path) -> None:
    """What ``torch.save`` writes, with that pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(canary))
        archive.writestr("archive/version", "3\n")


def replace(old: str, new: str, make: Callable[[Path], bytes]) -> Edit:
    """Remove ``old``; write ``make(canary)`` to ``new``."""

    def edit(model: Path, canary: Path) -> None:
        (model / old).unlink(missing_ok=True)
        put(model / new, make(canary))

    return edit


def add(path: str, content: bytes | None = None) -> Edit:
    """One more file: code that creates the canary, or ``content``."""
    return lambda model, canary: put(model / path, code(canary).encode() if content is None else content)


def drop(path: str) -> Edit:
    """One more file: a pickle that creates the canary."""
    return lambda model, canary: put(model / path, pickled(canary))


def change(path: str, **values: Any) -> Edit:
    """Set keys of a JSON file; the canary's code lies where a custom class would be looked for."""

    def edit(model: Path, canary: Path) -> None:
        tiny.write_json(model / path, {**json.loads((model / path).read_text()), **values})

    return edit


def both(*edits: Edit) -> Edit:
    def edit(model: Path, canary: Path) -> None:
        for each in edits:
            each(model, canary)

    return edit


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link(path: str, target: str) -> Edit:
    def edit(model: Path, canary: Path) -> None:
        if (model / path).is_dir():
            shutil.move(model / path, model.parent / "elsewhere")
        (model / path).unlink(missing_ok=True)
        os.symlink(target, model / path)

    return edit


def snapshot(model: Path, canary: Path) -> None:
    """As the Hugging Face cache lays a model out: every file a link to ``../blobs``."""
    blobs = model.parent / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted(p for p in model.rglob("*") if p.is_file())):
        path.rename(blobs / str(i))
        path.symlink_to(os.path.relpath(blobs / str(i), path.parent))


def fifo(path: str) -> Edit:
    def edit(model: Path, canary: Path) -> None:
        (model / path).unlink(missing_ok=True)
        os.mkfifo(model / path)

    return edit


def unix_socket(path: str) -> Edit:
    def edit(model: Path, canary: Path) -> None:
        (model / path).unlink(missing_ok=True)
        with contextlib.chdir((model / path).parent), socket.socket(socket.AF_UNIX) as listener:
            listener.bind((model / path).name)

    return edit


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of any header, honest or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(*shape: int, dtype: str = "F32", begin: int = 0, end: int = 0) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def shard(entry: Any, model_part: str = "unet") -> Edit:
    """An index whose one entry is ``entry`` stands in for the weights, which lie where it leads."""

    def edit(model: Path, canary: Path) -> None:
        folder = model / model_part
        single = next(folder.glob("*.safetensors"))
        stem = single.name.removesuffix(".safetensors")
        tensors = tiny.unet_shapes() if model_part == "unet" else tiny.text_shapes()
        tiny.write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": dict.fromkeys(tensors, entry)})
        put(model.parent / "outside.safetensors", single.read_bytes())
        single.unlink()

    return edit


def sparse(path: str, size: int, start: bytes = b"") -> Edit:
    """A file that claims ``size`` bytes and takes none."""

    def edit(model: Path, canary: Path) -> None:
        put(model / path, start)
        os.truncate(model / path, size)

    return edit


def past_memory(model: Path, canary: Path, more: int = PAST_MEMORY) -> None:
    """A UNet whose header is right throughout and whose one further tensor takes ``more`` bytes, none of them on the disk."""
    content = (model / UNET).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header["more"] = tensor(more, dtype="U8", begin=end, end=end + more)
    whole = safetensors(header, content[8 + length :])
    sparse(UNET, len(whole) + more, whole)(model, canary)
