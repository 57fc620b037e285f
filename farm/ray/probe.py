"""``python -m farm.ray.probe HOST:PORT``: what the head of a cluster says of itself, as JSON.

In a process of its own, since Ray ends the process that asks something else, or without a token.
"""

import json
import sys


def main() -> None:
    """Print the cluster's versions."""
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    found = get_cluster_metadata(GcsClient(address=sys.argv[1]))
    print(json.dumps({"Ray": found["ray_version"], "Python": found["python_version"]}))


if __name__ == "__main__":
    main()
