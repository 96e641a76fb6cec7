"""Prometheus itself takes the rules and the expressions, and alerts when it should.

Its tool is in the package `prometheus` of Debian.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples.test_monitoring import ALERTS, EXPRESSIONS, rules

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMTOOL is None, reason="needs promtool"),
]

RUNNING = {'elche_run_state{state="RUNNING"}': "1x60"}
AVERAGES = {
    "elche_last_average_timestamp_seconds": "0+30x60",
    "elche_average_period_seconds": "30x60",
}
CALM = {
    **RUNNING,
    **AVERAGES,
    'elche_breaker_state{key="host:a"}': "1x60",
    'elche_idle_seconds_total{rank="1",cause="input"}': "0+8x60",
    "elche_disk_full_seconds": "3600x60",
    'elche_stop_requested{cause="SIGTERM"}': "0x39 1",  # only just
}
NONE_SINCE = {"elche_last_average_timestamp_seconds": "10x60"}


def promtool(*arguments: object) -> str:
    """Return what it says; fail if it is not content."""
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_valid() -> None:
    """All five."""
    assert "SUCCESS: 5 rules found" in promtool("check", "rules", ALERTS)


def test_expressions_can_be_parsed(tmp_path: Path) -> None:
    """Those of the dashboard, too, with what Grafana puts in for its variables."""
    filled = [
        one.replace("$__rate_interval", "1m").replace("$instance", ".*") for one in EXPRESSIONS
    ]
    named = [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": named}]}))
    assert f"SUCCESS: {len(EXPRESSIONS)} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize(
    ("series", "firing"),
    [
        (CALM, []),
        ({**CALM, **NONE_SINCE}, ["ElcheNoAverage"]),
        ({**CALM, **NONE_SINCE, 'elche_run_state{state="RUNNING"}': "0x60"}, []),
        ({**CALM, 'elche_breaker_state{key="host:a"}': "2x60"}, ["ElcheBreakerOpen"]),
        (
            {**CALM, 'elche_idle_seconds_total{rank="1",cause="input"}': "0+10x60"},
            ["ElcheRankIdle"],
        ),
        ({**CALM, "elche_disk_full_seconds": "3599x60"}, ["ElcheDiskFull"]),
        ({**CALM, 'elche_stop_requested{cause="SIGTERM"}': "1x60"}, ["ElcheStopOverdue"]),
    ],
    ids=["calm", "no average", "paused", "breaker", "idle", "disk", "stop"],
)
def test_alert_fires_when_it_should(
    series: dict[str, str], firing: list[str], tmp_path: Path
) -> None:
    """After twenty minutes, and nothing else."""
    labels = {"job": "elche", "instance": "i"}
    test: dict[str, Any] = {
        "interval": "30s",
        "input_series": [
            {"series": _labelled(name, labels), "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "20m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing
                ],
            }
        ],
    }
    path = tmp_path / "test.json"
    path.write_text(
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "30s", "tests": [test]})
    )
    assert "SUCCESS" in promtool("test", "rules", path)
    assert set(firing) <= {rule["alert"] for rule in rules()}


def _labelled(series: str, labels: dict[str, str]) -> str:
    """Add what Prometheus adds."""
    name, _, own = series.rstrip("}").partition("{")
    more = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{','.join(filter(None, (own, more)))}}}"
