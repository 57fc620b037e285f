"""Where are my pages?"""

from dashboards import grafana, panels
from dashboards.boards import common
from dashboards.boards.common import select, tagged
from dashboards.catalogue import HISTOGRAM_METRICS, bucket_bounds, result_name
from dashboards.grafana import Json

_CELL = ("arch", "traffic_kind", "pool_recycle")
_CHOSEN = common.chosen(*_CELL)

_HOLD = HISTOGRAM_METRICS[1].name
_MILLISECOND = next(f'le="{bound}"' for _, bound in bucket_bounds() if bound >= 0.001)


def _of(measure: str, by: str = "pool_size") -> str:
    return f"avg by ({by}) ({select(result_name(measure), *_CHOSEN)})"


def _quantile(share: float, word: str) -> str:
    buckets = select(f"{_HOLD}_bucket", *_CHOSEN)
    return tagged(f"histogram_quantile({share}, sum by (pool_size, le) ({buckets}))", "quantile", word)


_LONG_HELD = (
    f"1 - sum by (pool_size) ({select(f'{_HOLD}_bucket', *_CHOSEN, _MILLISECOND)}) / "
    f"sum by (pool_size) ({select(f'{_HOLD}_count', *_CHOSEN)})"
)

_OUT = f"{_of('pages_not_returned')} > 0"
_SIGNATURES = " or ".join(
    (
        tagged(f"({_OUT}) unless {_of('drain_forecast_seconds')}", "signature", "leak or stall"),
        tagged(f"({_OUT}) and {_of('drain_forecast_seconds')}", "signature", "still draining"),
        tagged(f"{_of('socket_share_max')} > 0.9", "signature", "one reader holds nearly all"),
    )
)


def _bars(title: str, description: str, measure: str, unit: str) -> Json:
    tag = tagged(_of(measure), "what", "pages" if unit == "short" else "share")
    return common.parts_by_size(title, description, tag, "what", unit, stacked=False)


def build() -> Json:
    """Where the pages of a pool are, how long they are held, why new ones are needed, if some are lost."""
    grid = grafana.Grid()
    grid.place(
        common.parts_by_size(
            "Pages by location",
            "Time average over the measured window. Good: most pages in the receive ring and in "
            "cache and ring of the pool; many in socket or application say that the reader is slow.",
            f"avg by (pool_size, location) ({select(result_name('pages_in_ring'), *_CHOSEN)})",
            "location",
            "short",
            stacked=True,
        ),
        16,
        10,
    )
    grid.place(
        _bars(
            "Pages in flight at the end",
            "Pages of the pool that are not back at the page allocator. Good: near the sum of receive ring "
            "and pool size; growing with the length of a trial, it is a leak.",
            "pages_inflight",
            "short",
        ),
        8,
        10,
    )
    grid.place(
        common.parts_by_size(
            "Hold time",
            "From the skb being built until its page goes back, quantiles over the packets of all seeds, "
            "within a factor of two. Good: the slowest well below the time in which the receive ring fills.",
            f"{_quantile(0.5, 'p50')} or {_quantile(0.99, 'p99')}",
            "quantile",
            "s",
            stacked=False,
        ),
        8,
        9,
    )
    grid.place(
        common.parts_by_size(
            "Packets held longer than 1 ms",
            "Share of the packets whose page was away for more than 1.07 ms. Good: 0 with a reader that "
            "keeps up.",
            tagged(_LONG_HELD, "what", "share"),
            "what",
            "percentunit",
            stacked=False,
        ),
        8,
        9,
    )
    grid.place(
        common.parts_by_size(
            "Pages from the page allocator by cause",
            "Per simulated second, by why the pool had none. Good: none; held: the pool is too small or the "
            "reader too slow; overflow: the ring is too small; not_recycled: recycling is off or refused.",
            f"avg by (pool_size, cause) ({select(result_name('slow_held'), *_CHOSEN)})",
            "cause",
            "short",
            stacked=True,
        ),
        8,
        9,
    )
    grid.place(
        panels.table(
            "Signs of a leak or a stall",
            "Pages still out when the device had gone down, if none comes back any more or if some do; and "
            "the share of one reader's socket above 90 %. Good: empty.",
            grafana.table_query(_SIGNATURES),
            unit="none",
            transformations=[grafana.hide("Time"), grafana.sort_by("signature")],
        ),
        16,
        8,
    )
    grid.place(
        _bars(
            "Held by one reader's socket",
            "Largest share of the pages in use that a single socket's reader holds. Good: far below 100 %; "
            "near it one application can starve the queue of pages.",
            "socket_share_max",
            "percentunit",
        ),
        8,
        8,
    )
    return grafana.dashboard(
        "page-pool-farm-pages", "Where are my pages", build.__doc__ or "", common.variables(*_CELL), grid
    )
