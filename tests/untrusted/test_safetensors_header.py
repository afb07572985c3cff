"""A header against its file's size: what is taken and what is not, on both sides of each bound."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted.safetensors_header import Header, NoSafetensorsError, TensorInfo, header_of


def entry(*shape: int, dtype: str = "F32", begin: int = 0, end: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def read(tensors: Any, data: bytes = bytes(4), *, pad: int = 0) -> Header:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    whole = (len(text) + pad).to_bytes(8, "little") + text + b" " * pad + data
    return header_of(io.BytesIO(whole), len(whole), "x")


def refused(tensors: Any, data: bytes = bytes(4), *, match: str, pad: int = 0) -> None:
    with pytest.raises(BdauditError, match=match):
        read(tensors, data, pad=pad)


def test_what_a_header_says_is_told() -> None:
    found = read({"a": entry(1), "b": entry(2, 1, dtype="F16", begin=4, end=8), "__metadata__": {"format": "pt"}}, bytes(8))
    assert found.tensors == {"a": TensorInfo("F32", (1,)), "b": TensorInfo("F16", (2, 1))}
    assert found.tensors["b"].begin == 4
    assert found.metadata == {"format": "pt"}
    assert read({"a": entry()}).tensors["a"].count == 1, "a number without a dimension"


BYTES = dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1) | dict.fromkeys(("U16", "I16", "F16", "BF16"), 2)
BYTES |= dict.fromkeys(("U32", "I32", "F32"), 4) | dict.fromkeys(("U64", "I64", "F64"), 8)


@pytest.mark.parametrize("dtype", BYTES)
def test_a_tensor_takes_its_type_s_bytes(dtype: str) -> None:
    size = 3 * BYTES[dtype]
    assert read({"a": entry(3, dtype=dtype, end=size)}, bytes(size)).tensors["a"].dtype == dtype
    refused({"a": entry(3, dtype=dtype, end=size + 1)}, bytes(size + 1), match="does not take")
    refused({"a": entry(3, dtype=dtype, end=size - 1)}, bytes(size - 1), match="does not take")


def test_names_end_at_a_thousand_characters() -> None:
    assert read({"a." * 500: entry(1)}).tensors
    refused({"a." * 500 + "a": entry(1)}, match="a name of 1,001 characters; at most 1,000 are read")


def test_shapes_end_at_eight_dimensions_and_hold_something() -> None:
    assert read({"a": entry(*[1] * 8)}).tensors
    refused({"a": entry(*[1] * 9)}, match="short lists")
    refused({"a": entry(0, end=0)}, b"", match="holds nothing")
    refused({"a": entry(1 << 63, end=4)}, match="short lists")
    for odd in ([1.0], [True], [-1], "1", None, [[1]]):
        refused({"a": {**entry(1), "shape": odd}}, match="short lists")
    for odd in ([0], [0, 4, 8], [0.0, 4], [4, 0], None):
        refused({"a": {**entry(1), "data_offsets": odd}}, match=r"short lists|does not take")


@pytest.mark.parametrize("change", [{"more": 1}, {"dtype": "F128"}, {"dtype": None}, {"dtype": ["F32"]}])
def test_an_entry_has_its_three_keys_and_a_known_type(change: dict[str, Any]) -> None:
    refused({"a": entry(1) | change}, match="expected dtype, shape|unknown dtype")
    refused({"a": 5}, match="expected dtype, shape and data_offsets")


def test_tensors_tile_the_file() -> None:
    refused({"a": entry(1), "b": entry(1, begin=5, end=9)}, bytes(9), match="leave a gap at byte 4")
    refused({"a": entry(1), "b": entry(1, begin=3, end=7)}, bytes(7), match="overlap")
    refused({"a": entry(1, begin=1, end=5)}, bytes(5), match="gap at byte 0")
    refused({"a": entry(1)}, bytes(5), match="tensors take 4 bytes, the file holds 5")
    refused({"a": entry(1)}, bytes(3), match="tensors take 4 bytes, the file holds 3")


def test_a_header_ends_at_sixteen_megabytes() -> None:
    text = len(json.dumps({"a": entry(1)}))
    assert read({"a": entry(1)}, pad=(16 << 20) - text).tensors
    refused({"a": entry(1)}, pad=(16 << 20) - text + 1, match="a header of 16,777,217 bytes; at most 16,777,216")


def test_a_header_ends_at_two_hundred_thousand_items() -> None:
    lists = b'{"__metadata__": {"a": "' + b"," * 199_998 + b'"}}'
    assert read(lists, b"").metadata
    refused(lists.replace(b',"}', b',,"}'), b"", match="more than 200,000 items")


@pytest.mark.parametrize("metadata", [[], "a", {"a": 1}, {"a": None}, {"a": ["b"]}])
def test_metadata_is_a_map_of_texts(metadata: Any) -> None:
    refused({"__metadata__": metadata}, b"", match="not a map of strings")


@pytest.mark.parametrize("start", [b"", bytes(8), b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b"{}"])
def test_what_is_no_such_file_is_told(start: bytes) -> None:
    with pytest.raises(NoSafetensorsError, match="x is no safetensors file, or cut short"):
        header_of(io.BytesIO(start), len(start), "x")


@pytest.mark.parametrize("start", [b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00.", b"\x1f\x8b" + bytes(20)])
def test_a_pickle_or_an_archive_is_refused(start: bytes) -> None:
    with pytest.raises(RefusedError, match="a pickle or an archive under a safetensors name"):
        header_of(io.BytesIO(start), len(start), "x")


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r", b"\n"])
def test_white_space_before_the_brace_is_taken_as_other_readers_do(space: bytes) -> None:
    assert read(space + json.dumps({"a": entry(1)}).encode()).tensors
