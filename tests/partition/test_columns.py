"""Tables as states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_elche.partition.columns import ColumnState
from tests.partition.tables import table

TABLE = ColumnState([1, 2], {"x": [1, -0.0], "y": [0.5, -2]})


def test_table_has_the_known_fingerprint() -> None:
    """The fingerprint of a table is that of its ids, names and values."""
    fingerprint = TABLE.fingerprint(7)
    assert (fingerprint.step, fingerprint.value) == (7, 0x5FA77E3A86990B30)


@pytest.mark.parametrize(
    "other",
    [
        ColumnState([1, 2], {"x": [1, 0.0], "y": [0.5, -2]}),
        ColumnState([1, 3], {"x": [1, -0.0], "y": [0.5, -2]}),
        ColumnState([1, 2], {"x": [1, -0.0], "z": [0.5, -2]}),
    ],
    ids=["value", "id", "name"],
)
def test_lanes_see_each_change(other: ColumnState) -> None:
    """Both lanes of a table depend on its values, ids and names."""
    lanes, others = TABLE.fingerprint(7).lanes, other.fingerprint(7).lanes
    assert lanes[0] != others[0]
    assert lanes[1] != others[1]


def test_parts_make_up_the_table() -> None:
    """A table that was cut and put together is the table."""
    whole = table()
    again = whole.concat([whole.slice(0, 4), whole.slice(4, 4), whole.slice(4, 10)])
    assert again.fingerprint(1) == whole.fingerprint(1)


def test_part_has_rows_of_its_own() -> None:
    """What is done to a part does not reach the table."""
    whole = table()
    part = whole.slice(2, 4)
    assert part.row_ids.tolist() == [102, 103]
    part.columns["x"][:] = 7.0
    part.ids[:] = 0, 1
    assert whole.fingerprint(1) == table().fingerprint(1)


def test_bytes_make_up_the_table() -> None:
    """A table that went through bytes is the table, and can be changed."""
    whole = table()
    data = whole.to_bytes()
    again = whole.slice(0, 10).with_bytes(data)
    assert len(data) == whole.num_bytes == 160
    assert again.fingerprint(1) == whole.fingerprint(1)
    again.columns["x"][0] = 1.0


def test_bytes_of_another_size_are_refused() -> None:
    """Bytes are those of as many rows."""
    with pytest.raises(ValueError, match="`data` must be 160 bytes, got 159"):
        table().with_bytes(bytes(159))


def test_columns_stay_what_they_are() -> None:
    """A column can be filled, not exchanged."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        TABLE.columns["x"] = np.zeros(3, np.float32)  # type: ignore[index]


@pytest.mark.parametrize(
    ("ids", "columns", "text"),
    [
        ([1, 1], {}, "`ids` must hold each id once"),
        ([-1], {}, "`ids` must be a list of integers"),
        ([1.5], {}, "`ids` must be a list of integers"),
        ([1 << 64], {}, "`ids` must be a list of integers"),
        (np.array([[1]]), {}, "`ids` must be a list of integers"),
        (np.array([-1]), {}, "`ids` must be a list of integers"),
        (np.array([1.0]), {}, "`ids` must be a list of integers"),
        ([1, 2], {"x": [0.0]}, r"`columns` must have one value for each of 2 ids, column 'x'"),
    ],
)
def test_table_is_refused_with_the_name_of_a_bad_value(
    ids: Any, columns: dict[str, Any], text: str
) -> None:
    """Ids are different integers, and columns are as long as they."""
    with pytest.raises(ValueError, match=text):
        ColumnState(ids, columns)


def test_wider_columns_are_refused() -> None:
    """Values are not rounded in silence."""
    with pytest.raises(TypeError, match="`columns` must be float32, column 'x' is float64"):
        ColumnState([1], {"x": np.zeros(1)})


def test_largest_ids_are_kept() -> None:
    """Ids are unsigned and have 64 bits."""
    assert ColumnState([0, (1 << 64) - 1], {}).row_ids.tolist() == [0, (1 << 64) - 1]
