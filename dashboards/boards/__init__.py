"""The dashboards, as code: one file each.

``python -m dashboards`` writes them as JSON. Queries name metrics through the catalogue, so a renamed measure
cannot leave a dead panel behind.
"""

import json
from pathlib import Path

from dashboards.boards import (
    architectures,
    decisions,
    farm_health,
    overview,
    page_locations,
    pool_size,
    real_host,
    recycling,
)
from dashboards.grafana import Json

FOLDER = Path(__file__).parents[1] / "json"

OVERVIEW_UID = "page-pool-farm-overview"
"""the dashboard that runs are marked on"""


def all_dashboards() -> tuple[Json, ...]:
    """Every dashboard, in the order of a reader's questions."""
    return (
        overview.build(),
        recycling.build(),
        pool_size.build(),
        page_locations.build(),
        architectures.build(),
        decisions.build(),
        farm_health.build(),
        real_host.build(),
    )


def files() -> dict[Path, str]:
    """The checked-in files and what they have to contain."""
    return {
        FOLDER / f"{dashboard['uid']}.json": json.dumps(dashboard, indent=2, sort_keys=True) + "\n"
        for dashboard in all_dashboards()
    }
