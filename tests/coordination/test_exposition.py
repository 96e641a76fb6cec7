"""Numbers as text, read by Prometheus' own parser."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lightning_elche.coordination.monitoring.exposition import Metric, expose
from lightning_elche.coordination.monitoring.metrics import METRICS

TABLE = (
    Metric("steps_total", "counter", ("rank",), "A \\ and a\nline."),
    Metric("leases", "gauge", (), "None."),
)


def parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(text)
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def test_text_is_as_prometheus_wants_it() -> None:
    """Help and type once, whole numbers without a fraction."""
    assert expose(TABLE, {"leases": {(): 2.5}, "steps_total": {("0",): 3.0, ("1",): 4}}) == (
        "# HELP elche_steps_total A \\\\ and a\\nline.\n"
        "# TYPE elche_steps_total counter\n"
        'elche_steps_total{rank="0"} 3\n'
        'elche_steps_total{rank="1"} 4\n'
        "# HELP elche_leases None.\n"
        "# TYPE elche_leases gauge\n"
        "elche_leases 2.5\n"
    )


@settings(max_examples=40)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")),
    st.floats(allow_nan=False),
)
def test_any_label_and_number_can_be_read_back(label: str, value: float) -> None:
    """Quotes, backslashes, line ends and infinities included."""
    text = expose(TABLE, {"steps_total": {(label,): value}})
    assert parsed(text) == [("elche_steps_total", {"rank": label}, value)]


def test_nan_can_be_read_back() -> None:
    """It is a number there."""
    [(_, _, value)] = parsed(expose(TABLE, {"leases": {(): math.nan}}))
    assert math.isnan(value)


def test_metric_that_the_table_does_not_have_is_refused() -> None:
    """So that every name is in the table of the documentation."""
    with pytest.raises(KeyError, match=r"must be of metrics of the table, got \['speed'\]"):
        expose(TABLE, {"speed": {(): 1.0}})


def test_each_metric_of_the_table_is_one_for_the_parser() -> None:
    """Each name once, and counters end in `_total`."""
    samples = {one.name: {tuple("x" for _ in one.labels): 1.0} for one in METRICS}
    families = list(text_string_to_metric_families(expose(METRICS, samples)))
    kinds = {one.name for one in METRICS if one.kind == "counter"}
    assert [family.type for family in families] == [one.kind for one in METRICS]
    assert kinds == {one.name for one in METRICS if one.name.endswith("_total")}


def test_names_are_in_base_units() -> None:
    """No milliseconds, megabytes or percent."""
    wrong = re.compile(r"(_ms|_mb|_gb|_pct|_percent|_minutes|_hours)(_|$)")
    assert [one.name for one in METRICS if wrong.search(one.name)] == []
