"""What several dashboards have in common: variables, selectors, bars over the pool size."""

from collections.abc import Sequence

from dashboards import grafana, panels
from dashboards.catalogue import result_name
from dashboards.grafana import Json
from dashboards.health import TRIALS

BUSY = result_name("busy_ns_per_packet")
CATEGORY = result_name("protocol_ns_per_packet")

ON, OFF = 'pool_recycle="true"', 'pool_recycle="false"'

AVERAGED = "Axes other than those shown are averaged."

_LABELS = {
    "arch": "architecture",
    "base": "compared with",
    "traffic_kind": "traffic",
    "pool_size": "pool size",
    "pool_recycle": "recycling",
}


def chosen(*labels: str, several: Sequence[str] = ()) -> tuple[str, ...]:
    """Matchers for the sweep and the variables of these labels; of ``several`` many values can be chosen."""
    own = (f'{label}=~"${label}"' if label in several else f'{label}="${label}"' for label in labels)
    return ('sweep="$sweep"', *own)


def select(name: str, *matchers: str) -> str:
    """The series of a metric that matchers choose."""
    return f"{name}{{{','.join(matchers)}}}"


def variables(*labels: str, several: Sequence[str] = ()) -> list[Json]:
    """Variables for data source, sweep and these labels of a cell."""
    return [
        grafana.data_source_variable(),
        grafana.label_variable("sweep", "sweep", TRIALS.name),
        *(cell_variable(label, label, multiple=label in several) for label in labels),
    ]


def cell_variable(name: str, label: str, *, multiple: bool = False) -> Json:
    """A variable over the values that a label has in the chosen sweep."""
    selector = select(BUSY, 'sweep="$sweep"')
    return grafana.label_variable(name, _LABELS[name], selector, label=label, multiple=multiple)


def coloured(name: str, colour: str, **properties: object) -> Json:
    """Settings of the bars of a name: one colour."""
    return grafana.override(name, color={"fixedColor": colour, "mode": "fixed"}, **properties)


RECYCLING = (
    coloured("true", "blue", displayName="on"),
    coloured("false", "orange", displayName="off"),
)
"""bars by ``pool_recycle``; blue and orange are told apart by the colour-blind too"""


def tagged(expression: str, label: str, value: str) -> str:
    """The expression's series with one more label."""
    return f'label_replace({expression}, "{label}", "{value}", "", "")'


def by_size(
    title: str,
    description: str,
    measure: str,
    unit: str,
    matchers: Sequence[str],
    maximum: float | None = None,
) -> Json:
    """Bars of a measure over the pool size, recycling on beside off."""
    name = result_name(measure)
    expression = f"avg by (pool_size, pool_recycle) ({select(name, *matchers)})"
    return bars_by_size(title, description, expression, unit, maximum)


def bars_by_size(
    title: str, description: str, expression: str, unit: str, maximum: float | None = None
) -> Json:
    """Bars of an expression over the pool size, recycling on beside off."""
    corner = grafana.corner("pool_size", "pool_recycle")
    return panels.bar_chart(
        title,
        f"{description} {AVERAGED}",
        grafana.table_query(expression),
        unit=unit,
        x_field=corner,
        maximum=maximum,
        transformations=[
            grafana.sort_by("pool_recycle"),
            grafana.to_number("pool_size"),
            grafana.sort_by("pool_size"),
            grafana.matrix("pool_size", "pool_recycle"),
            grafana.to_text(corner),
        ],
        overrides=RECYCLING,
    )


def parts_by_size(
    title: str,
    description: str,
    expression: str,
    part: str,
    unit: str,
    *,
    stacked: bool,
    averaged: bool = True,
    overrides: Sequence[Json] = (),
) -> Json:
    """Bars of an expression over the pool size, one for each value of a label, or stacked."""
    corner = grafana.corner("pool_size", part)
    return panels.bar_chart(
        title,
        f"{description} {AVERAGED}" if averaged else description,
        grafana.table_query(expression),
        unit=unit,
        x_field=corner,
        stacked=stacked,
        transformations=[
            grafana.sort_by(part),
            grafana.to_number("pool_size"),
            grafana.sort_by("pool_size"),
            grafana.matrix("pool_size", part),
            grafana.to_text(corner),
        ],
        overrides=overrides,
    )


def parts_by_arch(
    title: str,
    description: str,
    expression: str,
    part: str,
    unit: str,
    *,
    stacked: bool = False,
    overrides: Sequence[Json] = (),
) -> Json:
    """Bars of an expression over the architecture, one for each value of a label, or stacked."""
    return panels.bar_chart(
        title,
        f"{description} {AVERAGED}",
        grafana.table_query(expression),
        unit=unit,
        x_field=grafana.corner("arch", part),
        stacked=stacked,
        transformations=[grafana.sort_by(part), grafana.sort_by("arch"), grafana.matrix("arch", part)],
        overrides=overrides,
    )
