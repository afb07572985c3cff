"""Code, hooks and redirections are refused; what no loader runs is not."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted.rules import Findings, check_code, check_config, check_redirections, is_code, left_behind
from bdaudit.untrusted.tree import PointerError

RUN = [
    "pipeline.py",
    "None.py",
    "diffusers.py",
    "Torch.PYC",
    "transformers.cpython-311-x86_64-linux-gnu.so",
    "unet/evil.py",
    "unet/a/evil.py",
]
NOT_RUN = [
    "handler.py",
    "train.py",
    "my_pipeline.py",
    "scripts/pipeline.py",
    "__pycache__/a.pyc",
    "unet/__pycache__/a.pyc",
    "unet/config.json",
]


@pytest.mark.parametrize("path", RUN + NOT_RUN)
def test_code_is_refused_where_a_loader_looks_for_it(path: str) -> None:
    found = Findings()
    check_code({path: 1}, {"unet"}, found)
    assert bool(found.refused) is (path in RUN)


def test_what_is_named_as_code_is() -> None:
    assert all(map(is_code, ("a.py", "A.PYC", "lib.so", "lib.so.1.2", "x.dll", "y.dylib", "z.pyd")))
    assert not any(map(is_code, ("a.python", "py", "lib.so.txt", "a.py.txt", "a.json")))


OLD_CACHE = f"/home/me/.cache/huggingface/transformers/{'ab' * 32}.{'0c' * 32}"
INSTEAD = ["text_encoder/adapter_config.json", "text_encoder/shard-00001-model-00001-of-00002.safetensors", "tokenizer/Tokenizer.model.v3"]
IDLE = ["unet/adapter_config.json", "tokenizer/adapter_config.json", "checkpoint-500/adapter_config.json", "adapter_config.json"]
NEITHER = ["unet/tokenizer.model", "text_encoder/tekken.json", "tokenizer/shard-00001-model-x", "text_encoder/shard-1-model-x"]


@pytest.mark.parametrize("path", INSTEAD + IDLE + NEITHER)
def test_files_that_a_loader_takes_instead_are_refused_and_an_adapter_elsewhere_is_a_note(path: str) -> None:
    found = Findings()
    check_redirections({path: 1}, {"text_encoder"}, {"tokenizer"}, found)
    assert (bool(found.refused), bool(found.notes)) == (path in INSTEAD, path in IDLE)


@pytest.mark.parametrize(
    "path", ["/content/out/tokenizer/vocab.json", "C:\\Models\\tokenizer\\vocab.json", OLD_CACHE, "d:/x/vocab.json", "/vocab.json"]
)
def test_a_path_of_another_machine_is_a_note(path: str) -> None:
    check_config({"vocab_file": path}, "t")
    assert left_behind({"vocab_file": path}, "t")


@pytest.mark.parametrize(
    "path",
    [
        OLD_CACHE.removeprefix("/"),
        OLD_CACHE[:-1],
        "/etc/passwd",
        "../vocab.json",
        "sub/vocab.json",
        "./vocab.json",
        "/x/myvocab.json",
        "/x/vocab.json/",
        "a\\vocab.json",
        ["/vocab.json"],
        "\\\\host\\vocab.json",
    ],
)
def test_any_other_path_is_refused(path: Any) -> None:
    with pytest.raises(RefusedError, match="vocab_file leads to files that a loader would open instead"):
        check_config({"deep": [{"vocab_file": path}]}, "t")
    assert left_behind({"vocab_file": path}, "t") == []


def test_a_plain_name_and_none_are_neither() -> None:
    for config in ({"vocab_file": "vocab.json"}, {"vocab_file": None}, {"vocab_file": ""}, {}):
        check_config(config, "t")
        assert left_behind(config, "t") == []


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"auto_map": {"AutoModel": "evil.Evil"}}, RefusedError),
        ({"a": [{"use_kernels": True}]}, RefusedError),
        ({"gguf_file": "a.gguf"}, RefusedError),
        ({"_attn_implementation": "evil/kernel"}, RefusedError),
        ({"architectures": "CLIPTextModel"}, RefusedError),
        ({"_use_default_values": ["sample_size"]}, BdauditError),
        ({"quantization_config": {"quant_method": "torchao"}}, InconclusiveError),
    ],
)
def test_what_a_config_may_not_say(config: dict[str, Any], kind: type[BdauditError]) -> None:
    with pytest.raises(kind) as caught:
        check_config(config, "t")
    assert type(caught.value) is kind


def test_what_is_set_to_nothing_is_not_said() -> None:
    check_config({"auto_map": None, "init_inputs": [], "_use_default_values": [], "quantization_config": None, "use_kernels": False}, "t")
    check_config({"_attn_implementation": "sdpa", "architectures": ["CLIPTextModel"], "_class_name": "UNet2DConditionModel"}, "t")


def test_the_gravest_is_raised_with_all_of_its_kind() -> None:
    found = Findings()
    for error in (UsageError("u"), BdauditError("d"), BdauditError("e"), InconclusiveError("i"), RefusedError(["r"])):
        with found.catching():
            raise error
    for kind, said, emptied in (
        (RefusedError, "r", found.refused),
        (InconclusiveError, "i", found.unsupported),
        (BdauditError, "d; e", found.damaged),
        (UsageError, "u", found.usage),
    ):
        with pytest.raises(kind, match=f"^{said}$"):
            found.settle()
        emptied.clear()
    found.settle()


@pytest.mark.parametrize(("count", "said"), [(20, "x; x"), (21, "x; and 1 more")])
def test_of_many_reasons_twenty_are_said(count: int, said: str) -> None:
    with pytest.raises(BdauditError) as caught:
        Findings(damaged=["x"] * count).settle()
    assert str(caught.value).endswith(said)


def test_pointers_of_git_lfs_are_told_in_one_line_and_count_as_damaged() -> None:
    found = Findings()
    for error in (PointerError("unet/a"), BdauditError("vae is cut short"), PointerError("text_encoder/b")):
        with found.catching():
            raise error
    assert len(found.damaged) == 3
    with pytest.raises(BdauditError) as raised:
        found.settle()
    assert str(raised.value).startswith("2 files are Git LFS pointers, they were not fetched, the first is unet/a; run `git lfs install`")
    assert str(raised.value).endswith("; vae is cut short")
    one = Findings(damaged=["x is cut short"])
    with one.catching():
        raise PointerError("unet/a")
    with pytest.raises(BdauditError, match=r"^unet/a is a Git LFS pointer, the file itself was not fetched; run .* in the clone; x is"):
        one.settle()
