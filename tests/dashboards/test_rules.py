"""Recording and alert rules: names that exist, and promtool's unit tests of them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.dashboards.test_boards import LABELS_FROM_SCRAPING, labels_of_metrics, selectors

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
CASES = Path(__file__).parent / "rules_test.yml"

Json = dict[str, Any]


def rules() -> list[Json]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def name_of(rule: Json) -> str:
    return str(rule.get("record") or rule["alert"])


@pytest.mark.parametrize("rule", rules(), ids=name_of)
def test_rules_read_known_metrics_by_known_labels(rule: Json) -> None:
    known = labels_of_metrics() | {rule["record"]: {"sweep"} for rule in rules() if "record" in rule}
    for selector in selectors(promql_parser.parse(rule["expr"])):
        assert selector.name in known
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name] | LABELS_FROM_SCRAPING
    shown = re.findall(r"\$labels\.(\w+)", str(rule.get("annotations", "")))
    assert set(shown) <= {"sweep", "job", "answer", "base", "other"}


def test_rules_do_what_they_are_for(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(RULES.read_text(encoding="utf-8"), encoding="utf-8")
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.read_text(encoding="utf-8"), encoding="utf-8")
    tested = subprocess.run(
        [promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    """The cases name each alert with and without alerts expected."""
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    for fires in (True, False):
        seen = {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires}
        assert seen == {rule["alert"] for rule in rules() if "alert" in rule}
