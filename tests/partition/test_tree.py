"""The part of a state that is no tensor."""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_elche.partition.errors import UnsupportedState
from lightning_elche.partition.tree import (
    Device,
    Dtype,
    Size,
    TensorRef,
    decode_tree,
    encode_tree,
    read_nodes,
)


class Pair(NamedTuple):
    a: int
    b: int


class Sub(dict[str, int]):
    pass


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, b"null"),
        ([True, False, 1, "a"], b'[true,false,1,"a"]'),
        ({"b": 1, "a": 0.1}, b'{"b":1,"a":0.1}'),
        (-0.0, b"-0.0"),
        (2**53 - 1, b"9007199254740991"),
        (2**53, b'{"$int":"0x20000000000000"}'),
        (-(2**70), b'{"$int":"-0x400000000000000000"}'),
        (math.inf, b'{"$f":"7ff0000000000000"}'),
        (math.nan, b'{"$f":"7ff8000000000000"}'),
        ((1, (2,)), b'{"$tuple":[1,{"$tuple":[2]}]}'),
        ({0: "a", (1, 2): "b"}, b'{"$dict":[[0,"a"],[{"$tuple":[1,2]},"b"]]}'),
        ({"$t": 1}, b'{"$dict":[["$t",1]]}'),
        (OrderedDict(a=1), b'{"$odict":[["a",1]]}'),
        (Counter({80: 1, 30: 2}), b'{"$counter":[[80,1],[30,2]]}'),
        ({3, "b"}, b'{"$set":["b",3]}'),
        (b"\x00\xff", b'{"$bytes":"AP8="}'),
        (Path("/a/b"), b'{"$path":"/a/b"}'),
        (1.5 - 2j, b'{"$c":["3ff8000000000000","c000000000000000"]}'),
        (np.float32(0.1), b'{"$np":["<f4",null,"zczMPQ=="]}'),
        (np.bool_(True), b'{"$np":["|b1",null,"AQ=="]}'),
        (TensorRef("model/w"), b'{"$t":"model/w"}'),
        (Dtype("float32"), b'{"$dtype":"float32"}'),
        (Device("cuda:0"), b'{"$device":"cuda:0"}'),
        (Size((2, 3)), b'{"$size":[2,3]}'),
        ("\ud800", b'"\\ud800"'),
    ],
)
def test_value_is_written_as_specified_and_comes_back(value: object, data: bytes) -> None:
    """Each type has one text, from which an equal value of that type is read."""
    assert encode_tree(value).data == data
    back = decode_tree(data)
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_numpy_array_comes_back_writable_with_type_and_shape() -> None:
    """An array keeps its type and shape; big-endian ones become little-endian."""
    back = decode_tree(encode_tree(np.arange(6, dtype=">i2").reshape(2, 3)).data)
    assert isinstance(back, np.ndarray)
    back[0, 0] = 9
    assert (back.dtype.str, back.tolist()) == ("<i2", [[9, 1, 2], [3, 4, 5]])


def test_nan_keeps_its_bits() -> None:
    """One NaN is told from another."""
    value = struct.unpack(">d", bytes.fromhex("7ff8000000000123"))[0]
    back = decode_tree(encode_tree(value).data)
    assert isinstance(back, float)
    assert struct.pack(">d", back).hex() == "7ff8000000000123"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(value=VALUES)
def test_any_value_comes_back_equal(value: object) -> None:
    """What is encoded is decoded to an equal value, keys in their order."""
    assert repr(decode_tree(encode_tree(value).data)) == repr(value)


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        ({"a": [1, object()]}, "/a/1", "object"),
        ({"a": Pair(1, 2)}, "/a", "Pair"),
        ({"a/b": {"c~": Sub(a=1)}}, "/a~1b/c~0", "Sub"),
        (frozenset({1}), "/", "frozenset"),
        ({"a": np.array(["x"])}, "/a", "numpy.ndarray"),
        ({"a": np.longdouble(1)}, "/a", type(np.longdouble(1)).__name__),
        ({object(): 1}, "/", "object"),
    ],
)
def test_unknown_type_is_named_with_its_place(value: object, path: str, type_name: str) -> None:
    """A value that cannot be stored is refused, be it a subclass of one that can."""
    with pytest.raises(UnsupportedState) as caught:
        encode_tree(value)
    assert caught.value.path == path
    assert caught.value.type_name.endswith(type_name)


def test_value_that_contains_itself_is_refused() -> None:
    """A cycle is an error, not a recursion without end."""
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    with pytest.raises(UnsupportedState, match="/a/0 is of type dict that contains itself"):
        encode_tree(value)


def test_value_that_is_used_twice_is_no_cycle() -> None:
    """The same list in two places is stored in both."""
    shared = [1]
    assert encode_tree([shared, shared]).data == b"[[1],[1]]"


def test_value_nested_too_deep_is_refused() -> None:
    """More than 100 levels are refused with a type, before Python's own limit."""
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(UnsupportedState, match="below 100 others"):
        encode_tree(value)


@pytest.mark.parametrize("key", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_hyperparameters_of_unknown_type_are_dropped_and_listed(key: str) -> None:
    """Below hyperparameters the nearest entry is left out, and its place told."""
    value = {key: {"lr": 0.1, "nested": {"good": 1, "bad": [print]}, "act": len}, "epoch": 1}
    encoded = encode_tree(value)
    assert decode_tree(encoded.data) == {key: {"lr": 0.1, "nested": {"good": 1}}, "epoch": 1}
    assert encoded.dropped == (f"/{key}/nested/bad", f"/{key}/act")


def test_entry_with_a_similar_name_is_not_droppable() -> None:
    """Only hyperparameters may be left out."""
    with pytest.raises(UnsupportedState, match="/hyper_parameters_2 is of type"):
        encode_tree({"hyper_parameters_2": print})


def test_convert_sees_each_value_with_its_pointer() -> None:
    """What only a caller knows is replaced on the way in, and revived on the way out."""

    def convert(path: str, value: object) -> object:
        return TensorRef(f"aux/{path}") if isinstance(value, bytearray) else value

    data = encode_tree({"a": [0, bytearray(b"x")]}, convert=convert).data
    assert data == b'{"a":[0,{"$t":"aux//a/1"}]}'
    assert decode_tree(data, revive=lambda ref: (type(ref).__name__, 1)) == {
        "a": [0, ("TensorRef", 1)]
    }


def test_omegaconf_becomes_plain() -> None:
    """Containers of OmegaConf are stored as what they resolve to."""
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"a": 1, "b": ["${a}", {"c": None}]})
    assert encode_tree({"cfg": config}).data == b'{"cfg":{"a":1,"b":[1,{"c":null}]}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1}',
        b'{"a":1,"a":2}',
        b"NaN",
        b"1e999",
        b"[1.0e0]",
        b'"\xc3\xa9"',
        b"[" * 100_000 + b"]" * 100_000,
        b"9007199254740992",
        b'{"$what":1}',
        b'{"$tuple":1}',
        b'{"$tuple":[],"a":1}',
        b'{"$dict":[[1]]}',
        b'{"$dict":[[[],1]]}',
        b'{"$set":[[]]}',
        b'{"$counter":[[1,2,3]]}',
        b'{"$int":5}',
        b'{"$int":"zz"}',
        b'{"$f":"7ff8"}',
        b'{"$bytes":"A"}',
        b'{"$np":["|O",null,""]}',
        b'{"$np":["<f4",[2],"AAAAAA=="]}',
        b'{"$np":["<f4",[-1],"AAAAAA=="]}',
        b'{"$np":["<f4"]}',
        b'{"$size":[true]}',
        b'{"$c":["00"]}',
    ],
)
def test_data_that_no_value_has_is_refused(data: bytes) -> None:
    """What `encode_tree` cannot have written raises a `ValueError`, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        decode_tree(data)


def test_nodes_are_read_with_their_tags() -> None:
    """A reader without torch sees the tags as they are."""
    assert read_nodes(b'{"a":{"$dtype":"float32"}}') == {"a": {"$dtype": "float32"}}


def scheduler_state() -> dict[str, object]:
    """What `MultiStepLR.state_dict()` returns."""
    return {"milestones": Counter({30: 1}), "gamma": 0.1, "_last_lr": [0.1], "last_epoch": 3}


def optimizer_state() -> dict[str, object]:
    """What `Adam.state_dict()` returns, less the tensors."""
    return {
        "state": {0: {"step": TensorRef("optimizer-0/w.step")}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "fused": None, "params": [0]}],
    }


@pytest.mark.parametrize("make", [scheduler_state, optimizer_state])
def test_states_of_torch_come_back_equal(make: Callable[[], dict[str, object]]) -> None:
    """Numbers as keys, counters and tuples survive."""
    assert decode_tree(encode_tree(make()).data) == make()
