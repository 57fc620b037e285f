"""The Prometheus configuration that is deployed beside the farm."""

import subprocess
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"


def test_promtool_accepts_the_configuration(promtool: str) -> None:
    command = [promtool, "check", "config", str(CONFIG)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def test_farm_serve_is_scraped_at_its_usual_port() -> None:
    assert 'targets: ["localhost:9464"]' in CONFIG.read_text(encoding="utf-8")
