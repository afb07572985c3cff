"""Hostile single files, made on the spot from a valid one: headers, names, shapes, scales, pickles, and the settings beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdaudit.errors import ExitCode
from bdaudit.untrusted.inspect import Inspection, inspect
from tests.untrusted import one_file, tiny
from tests.untrusted.edits import change, fifo, pickled, write_zip

Entries = dict[str, Any]
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
TOWER = "cond_stage_model.model."


@dataclass(frozen=True)
class FileCase:
    """A single file that is not as anybody saves it."""

    kind: str
    name: str
    code: ExitCode
    edit: Callable[[Path, Path], object]
    """``edit(file, canary)``; the settings lie in ``directory`` beside the file."""
    name_of_file: str = "model.safetensors"
    open_clip: bool = False
    """Whether the text encoder is spelled as open_clip's."""
    parts: tuple[str, ...] = ()
    """Parts for which the same file is named once more."""

    def open(self, folder: Path) -> Inspection:
        """As a run opens it, whatever leave it has for directories."""
        file = folder / self.name_of_file
        return inspect(file, allow_pickle=True, config=folder / "directory", parts=dict.fromkeys(self.parts, file))


def lay_out(folder: Path, case: FileCase | None = None) -> Path:
    """A valid single file and its settings, made hostile by ``case``; where its canary would appear."""
    model = tiny.write_model(folder / "directory")
    spelling = one_file.SD2 if case and case.open_clip else one_file.SD1
    file = one_file.write(model, folder / "model.safetensors", spelling)
    if case:
        case.edit(file, folder / "canary")
    return folder / "canary"


def parsed(file: Path) -> tuple[Entries, bytes]:
    """Header and the bytes behind it."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def written(file: Path, header: bytes, data: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def entries(change: Callable[[Entries], object]) -> Callable[[Path, Path], None]:
    """The header with some entries changed."""

    def edit(file: Path, canary: Path) -> None:
        header, data = parsed(file)
        change(header)
        written(file, json.dumps(header).encode(), data)

    return edit


def more(tensors: dict[str, tuple[str, list[int], int]]) -> Callable[[Path, Path], None]:
    """Further tensors at the end: name → type, shape, bytes."""

    def edit(file: Path, canary: Path) -> None:
        header, data = parsed(file)
        for name, (dtype, shape, size) in tensors.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
            data += bytes(size)
        written(file, json.dumps(header).encode("utf-8", "surrogatepass"), data)

    return edit


def moved(old: str, new: str) -> Callable[[Path, Path], None]:
    """A tensor under another name."""
    return entries(lambda header: header.update({new: header.pop(old)}))


def shaped(name: str, *shape: int) -> Callable[[Path, Path], None]:
    """A tensor of another shape, of as many numbers."""
    return entries(lambda header: header[name].update(shape=list(shape)))


def twice(file: Path, canary: Path) -> None:
    header, data = parsed(file)
    text = json.dumps(header).encode()
    first = json.dumps({name: entry for name, entry in list(header.items())[:2]}).encode()
    written(file, text[:-1] + b", " + first[1:], data)


def raw(header: bytes) -> Callable[[Path, Path], None]:
    return lambda file, canary: written(file, header, b"")


def many(count: int, name: str) -> Callable[[Path, Path], None]:
    return more({name.format(i): ("U8", [1], 1) for i in range(count)})


def settings(path: str, **values: Any) -> Callable[[Path, Path], None]:
    """Another setting in the directory of settings."""
    return lambda file, canary: change(path, **values)(file.parent / "directory", canary)


ERROR, LIMITED, REFUSED, USAGE = ExitCode.ERROR, ExitCode.INCONCLUSIVE, ExitCode.REFUSED, ExitCode.USAGE
NORM, KEYS = f"{UNET}out.0.weight", f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
IN = f"{TOWER}transformer.resblocks.0.attn.in_proj_weight"
HEADERS: dict[str, Any] = {
    "cut in the header": lambda file, canary: file.write_bytes(file.read_bytes()[:200]),
    "cut in the data": lambda file, canary: file.write_bytes(file.read_bytes()[:-4]),
    "longer than it says": lambda file, canary: file.write_bytes(file.read_bytes() + b"0000"),
    "no header at all": lambda file, canary: file.write_bytes(b""),
    "overlapping tensors": entries(lambda header: header[NORM].update(data_offsets=[0, 32])),
    "offsets past the end": entries(lambda header: header[NORM].update(data_offsets=[1 << 40, (1 << 40) + 32])),
    "a shape of other bytes": entries(lambda header: header[NORM].update(shape=[9])),
    "a shape that overflows": entries(lambda header: header[NORM].update(shape=[1 << 62, 1 << 62, 8])),
    "a name twice": twice,
    "a hundred thousand keys": many(100_000, "x.{}"),
    "nested deep": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an empty tensor": entries(lambda header: header[NORM].update(shape=[0], data_offsets=[0, 0])),
}
NAMES: dict[str, tuple[ExitCode, Any]] = {
    "a layer of 30 digits": (ERROR, moved(NORM, f"{UNET}input_blocks.{'9' * 30}.0.in_layers.0.weight")),
    "a thousand layers": (ERROR, many(1000, UNET + "input_blocks.{}.0.in_layers.0.weight")),
    "a hundred blocks of an autoencoder": (ERROR, many(100, VAE + "decoder.up.{}.block.0.conv1.weight")),
    "a part's beginning before nothing": (ERROR, moved(NORM, UNET)),
    "a part's beginning before another's tensor": (ERROR, moved(NORM, f"{UNET}{NORM}")),
    "bidirectional marks": (ERROR, moved(NORM, f"{UNET}\u202eout.0.weight")),
    "half of a character": (ERROR, moved(NORM, f"{UNET}out.0.\ud800")),
    "two namings of one tensor": (ERROR, more({f"{TEXT.replace('text_model.', '')}final_layer_norm.bias": ("F32", [8], 32)})),
    "two layouts at once": (LIMITED, more({"diffusion_model.input_blocks.0.0.weight": ("F32", [8, 4, 3, 3], 1152)})),
    "diffusers' names beside CompVis'": (LIMITED, more({"down_blocks.0.resnets.0.conv1.weight": ("F32", [1], 4)})),
    "two text encoders": (LIMITED, more({f"{TOWER}transformer.resblocks.0.ln_1.weight": ("F32", [8], 32)})),
    "FLUX beside it": (LIMITED, more({"double_blocks.0.img_mod.lin.weight": ("F32", [1], 4)})),
}
SHAPES: dict[str, tuple[ExitCode, Any]] = {
    "eight axes": (ERROR, shaped(NORM, *[1] * 7, 8)),
    "no axis": (ERROR, entries(lambda header: header[f"{UNET}input_blocks.0.0.weight"].update(shape=[1152]))),
    "numbers that are whole": (LIMITED, entries(lambda header: header[NORM].update(dtype="I32"))),
    "numbers of 8 whole bits": (LIMITED, entries(lambda header: header[NORM].update(dtype="I8", shape=[32]))),
    "a wider text encoder": (ERROR, shaped(f"{TEXT}embeddings.token_embedding.weight", 4, 16)),
}
SCALES: dict[str, Any] = {
    "of 32-bit weights": more({f"{UNET}out.0.scale_weight": ("F32", [], 4)}),
    "of many numbers": more({f"{UNET}out.0.scale_weight": ("F32", [8], 32)}),
    "that is no number": more({f"{UNET}out.0.scale_weight": ("U8", [1], 1)}),
    "of blocks": more({f"{UNET}out.0.weight_scale": ("F32", [1], 4)}),
    "of 4 bits": more({f"{UNET}out.0.weight.absmax": ("F32", [1], 4)}),
    "of a table": more({f"{UNET}out.0.weight.quant_map": ("F32", [16], 64)}),
}


def _cases() -> list[FileCase]:
    found = [FileCase("headers", name, ERROR, edit) for name, edit in HEADERS.items()]
    found += [FileCase("names", name, code, edit) for name, (code, edit) in NAMES.items()]
    found += [FileCase("shapes", name, code, edit) for name, (code, edit) in SHAPES.items()]
    found += [
        FileCase("shapes", "three in one that are no three", ERROR, shaped(IN, 2, 96), open_clip=True),
        FileCase("shapes", "three in one without a shape", ERROR, shaped(IN), open_clip=True),
        FileCase("shapes", "a layer past all", ERROR, moved(IN, IN.replace("0", "9" * 30, 1)), open_clip=True),
    ]
    found += [FileCase("scales", name, LIMITED, edit) for name, edit in SCALES.items()]
    for name in ("model.ckpt", "model.pt", "model.PTH", "model.bin", "model.pkl"):
        found.append(FileCase("pickles", name, REFUSED, lambda file, canary, n=name: file.with_name(n).write_bytes(pickled(canary)), name))
    found += [
        FileCase("pickles", "renamed", REFUSED, lambda file, canary: file.write_bytes(pickled(canary))),
        FileCase("pickles", "renamed archive", REFUSED, lambda file, canary: write_zip(file, canary)),
        FileCase("pickles", "renamed, packed", REFUSED, lambda file, canary: file.write_bytes(gzip.compress(pickled(canary)))),
        FileCase("pickles", "safetensors under a pickle's name", REFUSED, lambda f, c: f.rename(f.with_name("m.ckpt")), "m.ckpt"),
    ]
    found += [
        FileCase("places", "a pipe", REFUSED, lambda file, canary: (file.unlink(), fifo("model.safetensors")(file.parent, canary))),
        FileCase("places", "a link to a device", REFUSED, lambda f, c: (f.unlink(), f.symlink_to("/dev/zero"))),
        FileCase("places", "a link to nowhere", USAGE, lambda file, canary: (file.unlink(), file.symlink_to("nowhere"))),
        FileCase("places", "GGUF", LIMITED, lambda f, c: f.rename(f.with_name("m.gguf")), "m.gguf"),
        FileCase("places", "another suffix", USAGE, lambda file, canary: file.rename(file.with_name("m.txt")), "m.txt"),
        FileCase("places", "a part that is none", USAGE, lambda file, canary: None, parts=("unet_2",)),
    ]
    found += [
        FileCase("settings", "a code hook", REFUSED, settings("unet/config.json", auto_map={"A": "evil.A"})),
        FileCase("settings", "a huge layer", ERROR, settings("unet/config.json", cross_attention_dim=16_000)),
        FileCase("settings", "a deeper text encoder", ERROR, settings("text_encoder/config.json", num_hidden_layers=100)),
        FileCase("settings", "layers that are no number", ERROR, settings("text_encoder/config.json", num_hidden_layers=[1])),
        FileCase("settings", "another family's", USAGE, settings("model_index.json", _class_name="StableDiffusionXLPipeline")),
        FileCase("settings", "a class of its own", REFUSED, settings("model_index.json", unet=["evil", "Evil"])),
    ]
    return found


CASES = _cases()
