"""Damaged inputs by the hundred thousand, recorded once: ``python tests/bench/fuzz.py [INPUTS] [PATH]``.

Each input is a valid one with a few bytes or values changed. It must end in a declared error or go through, and be done within a
second of computing. ``tests/untrusted/test_fuzz.py`` does the same with hypothesis, which finds odder inputs, in smaller numbers.
The inputs come in rounds over all readers; PATH is written after each, and a run that was stopped goes on behind the last of them.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bdaudit.errors import BdauditError
from bdaudit.report.document import loads
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.safetensors_header import read_header
from bdaudit.untrusted.text_files import read_texts
from bdaudit.untrusted.torch_file import read_torch
from bdaudit.untrusted.tree import Reader
from tests import small
from tests.bench.recording import stamp
from tests.models import tiny_dit, tiny_sdxl
from tests.untrusted import hostile_files, one_file
from tests.untrusted.edits import UNET
from tests.untrusted.hostile import rebuilt, torch_archive
from tests.untrusted.tiny import write_model

Target = Callable[[random.Random], None]
ODD = [None, True, -1, 0, 1, 1 << 70, 1e308, "", "../x", "auto_map", "\u202e", "diffusers", [], {}, [[]], {"auto_map": "x"}, "x" * 5000]
SHARES = {
    "candidates": 16, "safetensors headers": 17, "torch archives": 11, "reports": 8, "adapters": 5, "embeddings": 3, "model directories": 8,
    "single files": 6, "single files of transformers": 2, "policies": 6,
    "pictures": 6, "patches": 5, "state": 3, "graders": 4,
}  # fmt: skip
"""Of a hundred inputs."""


def bytes_changed(draw: random.Random, content: bytes) -> bytes:
    """A few bytes replaced, inserted or removed; sometimes the end is cut off."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, old = draw.randint(0, len(changed)), draw.randint(0, 6)
        new = min(old, len(changed) - at) if draw.random() < 0.5 else draw.randint(0, 6)
        changed[at : at + old] = draw.randbytes(new)
    return bytes(changed[: draw.randint(0, len(changed))]) if draw.random() < 0.2 else bytes(changed)


def values_changed(draw: random.Random, value: Any) -> Any:
    """One value anywhere in ``value`` replaced, removed, or given another name."""
    value = copy.deepcopy(value)
    inside = value
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            return value
        key = draw.choice(keys)
        if isinstance(inside[key], dict | list) and inside[key] and draw.random() < 0.7:
            inside = inside[key]
            continue
        if draw.random() < 0.2:
            del inside[key]
        elif isinstance(inside, dict) and draw.random() < 0.2:
            inside[str(draw.choice(ODD))[:40]] = inside.pop(key)
        else:
            inside[key] = draw.choice(ODD)
        return value


def json_changed(draw: random.Random, value: Any) -> bytes:
    text = json.dumps(values_changed(draw, value)).encode()
    return bytes_changed(draw, text) if draw.random() < 0.3 else text


def texts(folder: Path) -> Target:
    path, plain = folder / "tokens.txt", "cat\n\\u200b\n# no\nȏ 🙂\n\\U0001F600 \\\\\n".encode()

    def target(draw: random.Random) -> None:
        path.write_bytes(bytes_changed(draw, plain))
        read_texts(path)

    return target


def headers(folder: Path) -> Target:
    content = (write_model(folder / "headers") / UNET).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header, path = json.loads(content[8:end]), folder / "x.safetensors"

    def target(draw: random.Random) -> None:
        if draw.random() < 0.5:
            text = json_changed(draw, header)
            start = len(text).to_bytes(8, "little") + text
        else:
            start = bytes_changed(draw, content[:end])
        path.write_bytes(start + content[end:])
        read_header(Reader(folder, {path.name: path.stat().st_size}), path.name)

    return target


def archives(folder: Path) -> Target:
    model = write_model(folder / "archives")
    path = model / "unet/diffusion_pytorch_model.bin"
    plain = rebuilt(b"K\x00K\x04\x85K\x01\x85")
    torch_archive(plain)(model, folder)
    whole = path.read_bytes()

    def target(draw: random.Random) -> None:
        if draw.random() < 0.5:
            (model / UNET).touch()
            torch_archive(bytes_changed(draw, plain))(model, folder)
        else:
            path.write_bytes(bytes_changed(draw, whole))
        read_torch(Reader(path.parent.resolve(), {path.name: 1}), path.name)

    return target


def reports(folder: Path) -> Target:
    from bdaudit.cli.outcome import failed
    from bdaudit.config import ScanConfig, VerifyConfig
    from bdaudit.errors import ExitCode
    from bdaudit.report.document import dumps

    made = [
        json.loads(dumps(failed("scan", ScanConfig(model=folder), ExitCode.ERROR, "broken"))),
        json.loads(dumps(failed("verify", VerifyConfig(model=folder), ExitCode.INTERRUPTED, "stopped"))),
    ]

    def target(draw: random.Random) -> None:
        loads(json_changed(draw, draw.choice(made)))

    return target


def adapters(folder: Path) -> Target:
    import numpy as np
    from safetensors.numpy import save

    from bdaudit.models.load import load
    from bdaudit.models.lora import read_adapter

    suspect = load(inspect(small.write(folder / "adapted")), device="cpu")
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    factors = {"down": np.ones((2, 8), np.float32), "up": np.ones((8, 2), np.float32)}
    ldm = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k"
    every = [
        {f"unet.{layer}.lora_A.weight": factors["down"], f"unet.{layer}.lora_B.weight": factors["up"]},
        {
            **{f"{ldm}.lora_{name}.weight": tensor for name, tensor in factors.items()},
            **{f"{ldm}.alpha": np.ones((), np.float32), f"{ldm}.dora_scale": np.ones((8, 1), np.float32)},
        },
        {f"{ldm}.lokr_w1": np.ones((2, 2), np.float32), f"{ldm}.lokr_w2_a": factors["up"][:4], f"{ldm}.lokr_w2_b": factors["down"][:, :4]},
        {f"{ldm}.hada_w{i}_{end}": factors["up" if end == "a" else "down"] for i in (1, 2) for end in "ab"},
        {f"base_model.model.{layer}.lora_{end}.weight": factors[name] for end, name in (("A", "down"), ("B", "up"))},
    ]
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_k"], "rank_pattern": {"to_k": 2}}
    path, beside = folder / "adapter.safetensors", folder / "adapter_config.json"

    def target(draw: random.Random) -> None:
        beside.write_bytes(json_changed(draw, told) if draw.random() < 0.3 else json.dumps(told).encode())
        path.write_bytes(_tensors_changed(draw, save(draw.choice(every))))
        read_adapter(path, 1.0, suspect)

    return target


def _tensors_changed(draw: random.Random, plain: bytes) -> bytes:
    """A safetensors file with its header or any of its bytes changed."""
    if draw.random() >= 0.5:
        return bytes_changed(draw, plain)
    end = 8 + int.from_bytes(plain[:8], "little")
    text = json_changed(draw, json.loads(plain[8:end]))
    return len(text).to_bytes(8, "little") + text + plain[end:]


def embeddings(folder: Path) -> Target:
    import numpy as np
    from safetensors.numpy import save

    from bdaudit.models.embeddings import learned, read_embedding
    from bdaudit.models.load import load

    suspect = load(inspect(small.write(folder / "learning")), device="cpu")
    every = [save({name: np.ones((2, 8), np.float32)}) for name in ("<toy>", "emb_params")]
    every.append(save({"clip_l": np.ones((2, 8), np.float32), "clip_g": np.ones((2, 4), np.float32)}))
    path = folder / "embedding.safetensors"

    def target(draw: random.Random) -> None:
        path.write_bytes(_tensors_changed(draw, draw.choice(every)))
        with learned(suspect, [read_embedding(path, draw.choice(["", "<x>"]))]):
            suspect.encode(["a <x>"])

    return target


def directories(folder: Path) -> Target:
    """Of every family; any of its JSON files, or the merges or weights of the first."""
    models = [
        write_model(folder / "model"),
        tiny_sdxl.write(folder / "xl"),
        *(tiny_dit.write(name, folder / name) for name in tiny_dit.FAMILIES),
    ]
    files = [(model, path) for model in models for path in sorted(model.rglob("*.json"))]
    files += [(models[0], models[0] / name) for name in ("tokenizer/merges.txt", UNET)]

    def target(draw: random.Random) -> None:
        model, path = draw.choice(files)
        plain = path.read_bytes()
        path.write_bytes(json_changed(draw, json.loads(plain)) if path.suffix == ".json" else bytes_changed(draw, plain))
        try:
            inspect(model)
        finally:
            path.write_bytes(plain)

    return target


def single_files(folder: Path) -> Target:
    hostile_files.lay_out(folder)
    directory, xl = folder / "directory", tiny_sdxl.write(folder / "xl")
    made = (
        (one_file.write(directory, folder / "plain.safetensors"), directory, ""),
        (
            one_file.write(directory, folder / "averaged.safetensors", **one_file.averaged(one_file.tensors_of(directory), 0.5)),
            directory,
            "ema",
        ),
        (one_file.write(xl, folder / "xl.safetensors", one_file.SDXL), xl, ""),
    )
    return _changed(folder / "model.safetensors", [(path.read_bytes(), settings, variant) for path, settings, variant in made])


def files_of_transformers(folder: Path) -> Target:
    """Of Stable Diffusion 3 and FLUX.1: the diffusion model alone in both spellings, and all parts in one file."""
    every = []
    for name, spellings in (("sd3", (one_file.SD3, one_file.SD3_WHOLE)), ("flux", (one_file.FLUX, one_file.FLUX_WHOLE))):
        directory = tiny_dit.write(name, folder / name)
        for spelling in (*spellings, one_file.BARE):
            every.append((one_file.write(directory, folder / "plain.safetensors", spelling).read_bytes(), directory, ""))
    return _changed(folder / "model.safetensors", every)


def _changed(file: Path, every: Sequence[tuple[bytes, Path, str]]) -> Target:
    """Valid files, each with the directory and the variant that it is opened with; mostly their headers change."""

    def target(draw: random.Random) -> None:
        plain, settings, variant = draw.choice(every)
        end = 8 + int.from_bytes(plain[:8], "little")
        if draw.random() < 0.7:
            text = json_changed(draw, json.loads(plain[8:end]))
            file.write_bytes(len(text).to_bytes(8, "little") + text + plain[end:])
        else:
            file.write_bytes(bytes_changed(draw, plain[:end]) + plain[end:])
        inspect(file, config=settings, variant=variant)

    return target


def policies(folder: Path) -> Target:
    from bdaudit.verify.policy import read_policy

    path, plain = folder / "policy.toml", b'# ours\n[verify]\nmax_asr = 0.05\nmin_clip_ratio = 9e-1\nevidence = "required"\n'

    def target(draw: random.Random) -> None:
        path.write_bytes(bytes_changed(draw, plain))
        read_policy(path)

    return target


def pictures(folder: Path) -> Target:
    from PIL import Image

    from bdaudit.measure.picture_files import read_picture
    from bdaudit.untrusted.pictures import FORMATS

    plain = []
    for name in FORMATS:
        Image.effect_noise((24, 16), 60).convert("RGB").save(folder / "plain", name)
        plain.append((folder / "plain").read_bytes())

    def target(draw: random.Random) -> None:
        (folder / "x").write_bytes(bytes_changed(draw, draw.choice(plain)))
        read_picture(folder / "x", "--target-image")

    return target


def patches(folder: Path) -> Target:
    import torch

    from bdaudit.unlearn.patchfile import read_patch, write_patch

    path, digest = folder / "p.safetensors", "ab" * 32
    write_patch(path, {"unet": {"a": torch.ones(4), "b": torch.zeros(2, 3)}}, {"input_digest": digest, "triggers": ["x"]})
    plain = path.read_bytes()
    end = 8 + int.from_bytes(plain[:8], "little")
    header = json.loads(plain[8:end])

    def target(draw: random.Random) -> None:
        if draw.random() < 0.5:
            text = json_changed(draw, header)
            path.write_bytes(len(text).to_bytes(8, "little") + text + plain[end:])
        else:
            path.write_bytes(bytes_changed(draw, plain))
        read_patch(path, digest, ("unet", "text_encoder"))

    return target


def states(folder: Path) -> Target:
    import torch

    from bdaudit import state_lock
    from bdaudit.kept_state import State

    place = folder / "state"
    state = State(place, "key")
    state.write_json("x", {"a": 1.5, "b": [True, None]})
    state.write_tensors("t", {"a": torch.ones(4)}, {"step": 7})
    plain = {path.name: path.read_bytes() for path in place.iterdir() if path.name != state_lock.LOCK}

    def target(draw: random.Random) -> None:
        name = draw.choice(list(plain))
        (place / name).write_bytes(bytes_changed(draw, plain[name]))
        try:
            again = State(place, "key")
            again.read_json("x", dict[str, float | list[bool | None]])
            again.read_tensors("t")
        finally:
            (place / name).write_bytes(plain[name])

    return target


def graders(folder: Path) -> Target:
    from bdaudit.untrusted.clip_folder import CONFIG, inspect_clip
    from fixtures import layout

    clip = folder / "clip"
    shutil.copytree(Path(layout.__file__).parent / "grader", clip)
    plain = {name: (clip / name).read_bytes() for name in (CONFIG, "tokenizer_config.json", "tokenizer.json", "merges.txt")}

    def target(draw: random.Random) -> None:
        name = draw.choice(list(plain))
        changed = json_changed(draw, json.loads(plain[name])) if name.endswith(".json") else bytes_changed(draw, plain[name])
        (clip / name).write_bytes(changed)
        try:
            inspect_clip(clip, "--clip")
        finally:
            (clip / name).write_bytes(plain[name])

    return target


TARGETS = {
    "candidates": texts, "safetensors headers": headers, "torch archives": archives, "reports": reports, "adapters": adapters,
    "embeddings": embeddings,
    "model directories": directories, "single files": single_files, "single files of transformers": files_of_transformers,
    "policies": policies, "pictures": pictures,
    "patches": patches, "state": states, "graders": graders,
}  # fmt: skip


def attempt(target: Target, seed: int) -> tuple[str, float]:
    """How one input ended, and the seconds of computing that it took."""
    started = time.process_time()
    try:
        target(random.Random(seed))
        ended = "went through"
    except BdauditError as error:
        ended = f"exit {int(error.code)}"
    except Exception:
        ended = f"CRASH with seed {seed}: {traceback.format_exc()}"
    return ended, time.process_time() - started


ROUND = 20_000
"""Inputs of all readers together before the record is written."""


def fuzz(target: Target, seeds: range, found: dict[str, Any]) -> None:
    """Add what became of the inputs of ``seeds`` to ``found``, which is a reader's part of the record."""
    ends = Counter[str](found["ended"])
    for seed in seeds:
        ended, seconds = attempt(target, seed)
        found["slowest, s"] = max(found["slowest, s"], round(seconds, 3))
        if ended.startswith("CRASH"):
            found["crashes"] = [*found["crashes"], ended][:5]
            ended = "crash"
        ends[ended] += 1
    found |= {"inputs": seeds.stop, "ended": dict(ends)}


def report(inputs: int, spent: float, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputs": sum(r["inputs"] for r in found.values()),
        "asked for": inputs,
        "crashes": sum(r["ended"].get("crash", 0) for r in found.values()),
        "slowest, s": max(r["slowest, s"] for r in found.values()),
        "seconds of computing": round(spent, 1),
        "targets": found,
    }


def main() -> None:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    kept = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {"seconds of computing": 0.0, "targets": {}}
    found = {name: kept["targets"].get(name, {"inputs": 0, "ended": {}, "slowest, s": 0.0, "crashes": []}) for name in SHARES}
    before = kept["seconds of computing"]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        targets = {}
        for name in SHARES:
            (Path(folder) / name).mkdir()
            targets[name] = TARGETS[name](Path(folder) / name)
        started = time.process_time()
        for end in (*range(ROUND, inputs, ROUND), inputs):
            for name, share in SHARES.items():
                fuzz(targets[name], range(found[name]["inputs"], max(found[name]["inputs"], -(-end * share // 100))), found[name])
            if path:
                text = json.dumps({**stamp(), **report(inputs, before + time.process_time() - started, found)}, indent=1)
                path.with_suffix(".partial").write_text(text + "\n", encoding="utf-8")
                path.with_suffix(".partial").replace(path)
    print(json.dumps(report(inputs, before + time.process_time() - started, found), indent=1))


if __name__ == "__main__":
    main()
