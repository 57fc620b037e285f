"""What is shown of the farm, and under which names.

:mod:`dashboards.catalogue` names the metrics of results and :mod:`dashboards.health` those of the farm;
``farm.metrics`` fills both. :mod:`dashboards.boards` builds the dashboards from them and
:mod:`dashboards.publish` puts them on a Grafana.
"""
