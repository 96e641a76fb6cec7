"""The file of a group of tensors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_elche.partition.image import ITEM_BYTES, HostTensor, layout_of, pieces
from lightning_elche.partition.publish import chunks
from tests.partition.states import make_snapshot, make_store

W = HostTensor.of("w", np.arange(4, dtype=np.float32).reshape(2, 2))
N = HostTensor.of("n", np.array([7], dtype=np.int64))
FLAG = HostTensor.of("flag", np.array(True))


def image(*tensors: HostTensor, **options: Any) -> bytes:
    return b"".join(pieces(layout_of("model", 42, tensors), tensors, **options))


def test_image_has_the_specified_bytes() -> None:
    """Larger items come first, the header is padded to 64 bytes, tensors are packed."""
    header = (
        b'{"__metadata__":{"elche.group":"model","elche.step":"42","format":"pt"},'
        b'"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},'
        b'"w":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},'
        b'"flag":{"dtype":"BOOL","shape":[],"data_offsets":[24,25]}}'
    )
    whole = image(W, N, FLAG)
    assert whole[:256] == (248).to_bytes(8, "little") + header + b" " * 9
    assert whole[256:] == b"\7" + bytes(7) + W.data.tobytes() + b"\1"


def test_image_does_not_depend_on_the_order_of_tensors() -> None:
    """The same tensors make the same file."""
    assert hashlib.sha256(image(W, N, FLAG)).digest() == hashlib.sha256(image(FLAG, W, N)).digest()


def test_names_sort_by_their_bytes() -> None:
    """Of items of one size, names go in the order of UTF-8."""
    names = ["b", "a", "é", "Z", "a.b", "\U0001f600"]
    tensors = [HostTensor.of(name, np.zeros(1, dtype=np.float32)) for name in names]
    slots = layout_of("model", 0, tensors).slots
    assert [slot.name for slot in slots] == ["Z", "a", "a.b", "b", "é", "\U0001f600"]


def test_pieces_of_a_range_are_those_of_the_image() -> None:
    """Any range of bytes can be had without the rest."""
    whole = image(W, N, FLAG)
    for start in range(0, len(whole), 7):
        for stop in range(start, len(whole) + 1, 11):
            assert image(W, N, FLAG, start=start, stop=stop) == whole[start:stop]


def test_chunks_hold_the_same_bytes_in_at_most_8_mib() -> None:
    """Small pieces are gathered, large ones cut, and the order is kept."""
    data = [bytes([i]) * size for i, size in enumerate([3, 70_000, 5, 5, 20 << 20, 1])]
    found = [bytes(chunk) for chunk in chunks(memoryview(one) for one in data)]
    assert b"".join(found) == b"".join(data)
    assert [len(one) for one in found] == [3, 70_000, 10, 8 << 20, 8 << 20, 4 << 20, 1]


def test_array_is_not_copied() -> None:
    """A contiguous array shares its memory with its tensor."""
    array = np.zeros(3, dtype=np.float32)
    assert np.shares_memory(HostTensor.of("a", array).array(), array)


def test_array_of_other_order_is_copied_right() -> None:
    """Transposed, strided and big-endian arrays have the bytes of their values in C order."""
    array = np.arange(6, dtype=">i4").reshape(2, 3).T[:, ::-1]
    assert HostTensor.of("a", array).array().tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "F4"}, r"`dtype` must be one of F64, .*, got 'F4'"),
        ({"shape": (3,)}, r"`data` must have the 12 bytes of F32 \[3\], got 16"),
        ({"data": memoryview(np.zeros(4, np.float32))}, "`data` must be a flat"),
    ],
)
def test_tensor_is_refused_with_the_name_of_a_bad_field(
    fields: dict[str, Any], message: str
) -> None:
    """A tensor that contradicts itself raises an error that names the field."""
    good = {"name": "w", "dtype": "F32", "shape": (2, 2), "data": W.data}
    with pytest.raises(ValueError, match=message):
        HostTensor(**{**good, **fields})


def test_array_of_texts_is_refused() -> None:
    """Only numbers are tensors."""
    with pytest.raises(TypeError, match="`array` must hold numbers, got <U1 for 'a'"):
        HostTensor.of("a", np.array(["x"]))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([W, W], "names of their own, got 'w' twice"),
        ([HostTensor.of("t", np.zeros(1), alias_of="w"), W], "type and shape of 't', got 'w'"),
        ([HostTensor.of("t", W.array(), alias_of="v")], "got 'v'"),
        (
            [
                W,
                HostTensor.of("a", W.array(), alias_of="w"),
                HostTensor.of("b", W.array(), alias_of="a"),
            ],
            "got 'a'",
        ),
    ],
)
def test_group_that_cannot_be_laid_out_is_refused(tensors: list[HostTensor], message: str) -> None:
    """Equal names, and aliases of another type, of nothing or of an alias, are errors."""
    with pytest.raises(ValueError, match=message):
        layout_of("model", 0, tensors)


def test_files_are_those_of_safetensors(tmp_path: Path) -> None:
    """The library reads every type with its values, and the step."""
    safetensors = pytest.importorskip("safetensors")
    numpy_reader = pytest.importorskip("safetensors.numpy")
    names = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
    arrays = {f"t.{name}": np.arange(6).astype(name).reshape(2, 3) for name in names}
    arrays |= {"empty": np.empty((0, 2), np.float32), "scalar": np.float64(0.5).reshape(())}
    tensors = [HostTensor.of(name, array) for name, array in arrays.items()]
    tensors += [HostTensor.of("alias", arrays["t.f4"], alias_of="t.f4")]
    state = make_snapshot(42, groups={"model": tensors, "optimizer-0": []})
    path = make_store(tmp_path).save(state).path
    read = numpy_reader.load_file(path / "model.safetensors")
    assert {name: (one.dtype, one.tolist()) for name, one in read.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
    assert numpy_reader.load_file(path / "optimizer-0.safetensors") == {}
    with safetensors.safe_open(path / "model.safetensors", framework="np") as file:
        assert file.metadata()["elche.step"] == "42"


def test_all_codes_are_known_to_safetensors() -> None:
    """Types that numpy lacks have a header that the library accepts, too."""
    library = pytest.importorskip("safetensors", minversion="0.7")
    tensors = [
        HostTensor(name=code, dtype=code, shape=(3,), data=memoryview(bytes(3 * size)))
        for code, size in ITEM_BYTES.items()
    ]
    read = dict(library.deserialize(image(*tensors)))
    assert {name: (one["dtype"], one["shape"]) for name, one in read.items()} == {
        code: (code, [3]) for code in ITEM_BYTES
    }
