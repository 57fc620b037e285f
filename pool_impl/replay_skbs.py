"""Replay of skb operations, on top of those on pages."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pool_impl import coalesce, skb_calls
from pool_impl.layout import SHARED, SKB, Buffers
from pool_impl.replay_pages import PAGE_OPERATIONS, Handle, PageReplay, Results

_ENOMEM = -12


def _columns(dtype: np.dtype[Any]) -> dict[str, int]:
    """Where each field of a record of words starts, in words."""
    fields = dtype.fields
    assert fields is not None
    return {name: field[1] // 8 for name, field in fields.items()}


def _words_of(records: Any) -> Any:
    """Records as rows of words: reading a field of a NumPy record is slow."""
    return records.view(np.uint8).view(np.int64).reshape(records.shape[0], -1)


_SKB = _columns(SKB)
_SHARED = _columns(SHARED)


class SkbReplay(PageReplay):
    """The operations on skbs."""

    def __init__(self, buffers: Buffers) -> None:
        super().__init__(buffers.host)
        self.buffers = buffers
        self.skbs: dict[int, int] = {}
        """skb by its handle"""
        self.seen_skbs: dict[int, dict[str, Any]] = {}
        """state of each after the operation before"""
        self.seen_words: dict[int, list[list[int]]] = {}
        """and the words of the records that it came from"""
        self.skb_words = _words_of(buffers.skbs)
        self.shared_words = _words_of(buffers.shared)

    # State

    def changed_skbs(self) -> dict[str, Any]:
        """State of each skb that is not as it was before; None when its handle ended."""
        changed: dict[str, Any] = {}
        for handle in sorted(self.seen_skbs.keys() | self.skbs.keys()):
            if handle not in self.skbs:
                del self.seen_skbs[handle], self.seen_words[handle]
                changed[str(handle)] = None
                continue
            words = self.words(self.skbs[handle])
            if self.seen_words.get(handle) == words:
                continue
            self.seen_words[handle] = words
            state = self.skb_state(*words)
            if self.seen_skbs.get(handle) != state:
                changed[str(handle)] = self.seen_skbs[handle] = state
        return changed

    def words(self, skb: int) -> list[list[int]]:
        """The skb's record and that of its data, then the same for each member of its frag_list."""
        found = []
        member = skb
        while member != 0:
            words = self.skb_words[member].tolist()
            shared = self.shared_words[words[_SKB["shared"]]].tolist()
            found += [words, shared]
            # an skb that is a member itself has a successor, which is not its own
            member = words[_SKB["next"]] if member != skb else shared[_SHARED["frag_list"]]
        return found

    def skb_state(self, words: list[int], shared: list[int], *members: list[int]) -> dict[str, Any]:
        own = {name: words[_SKB[name]] for name in _SKB_WORDS}
        data = {name: shared[_SHARED[name]] for name in ("end", "head_frag", "dataref")}
        head_id = self.page_id(shared[_SHARED["head_page"]])
        frags = []
        for position in range(shared[_SHARED["nr_frags"]]):
            number = self.page_id(shared[_SHARED["frag_page"] + position])
            # what has no id has no known place either
            offset = shared[_SHARED["frag_offset"] + position] if number else 0
            frags.append([number, offset, shared[_SHARED["frag_size"] + position]])
        return {
            **own,
            **data,
            "tailroom": 0 if own["data_len"] else data["end"] - own["headroom"] - own["len"],
            "head": [head_id, shared[_SHARED["head_offset"]]] if head_id else None,
            "frags": frags,
            "frag_list": [
                [*(listed[_SKB[name]] for name in ("len", "pp_recycle", "users")), parts[_SHARED["nr_frags"]]]
                for listed, parts in zip(members[::2], members[1::2], strict=True)
            ],
        }

    # Making and marking

    def build_skb(self, arguments: Mapping[str, Any]) -> Results:
        page, offset = self.take(arguments)
        skb = self.skb(
            skb_calls.BUILD, page, offset, arguments["size"], arguments["headroom"], arguments["len"]
        )
        self.skbs[arguments["s"]] = skb
        if arguments["napi"] not in (0, 1):
            raise KeyError("napi")
        return {}

    def alloc_skb(self, arguments: Mapping[str, Any]) -> Results:
        names = ("kind", "size", "headroom", "len")
        self.skbs[arguments["s"]] = self.skb(skb_calls.ALLOC, *(arguments[name] for name in names))
        return {}

    def mark_for_recycle(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.MARK, arguments)
        return {}

    def set_gso_size(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.SET_GSO_SIZE, arguments, "size")
        return {}

    def add_rx_frag(self, arguments: Mapping[str, Any]) -> Results:
        page, offset = self.take(arguments)
        self.skb(
            skb_calls.ADD_RX_FRAG,
            self.skbs[arguments["s"]],
            page,
            offset,
            arguments["len"],
            arguments["truesize"],
        )
        return {}

    def take(self, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Page and offset of what moves from a page handle to an skb."""
        handle = arguments["h"]
        offset = self.handles[handle].offset + arguments["off"]
        page = self.give(handle) if arguments["own"] else self.give_reference(handle)
        return page, offset

    # Freeing

    def free_skb(self, arguments: Mapping[str, Any]) -> Results:
        if self.on(skb_calls.FREE, arguments):
            del self.skbs[arguments["s"]]
        return {}

    def defer_free(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.FREE_DEFERRED, arguments)
        del self.skbs[arguments["s"]]
        return {}

    def skb_get(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.GET, arguments)
        return {}

    # Copies

    def skb_clone(self, arguments: Mapping[str, Any]) -> Results:
        return self.copied(arguments, skb_calls.CLONE)

    def skb_copy(self, arguments: Mapping[str, Any]) -> Results:
        return self.copied(arguments, skb_calls.COPY)

    def pskb_copy(self, arguments: Mapping[str, Any]) -> Results:
        return self.copied(arguments, skb_calls.PARTIAL_COPY)

    def skb_copy_expand(self, arguments: Mapping[str, Any]) -> Results:
        return self.copied(arguments, skb_calls.COPY_EXPAND, "headroom", "tailroom")

    def skb_realloc_headroom(self, arguments: Mapping[str, Any]) -> Results:
        return self.copied(arguments, skb_calls.REALLOC_HEADROOM, "headroom")

    def copied(self, arguments: Mapping[str, Any], code: int, *names: str) -> Results:
        self.skbs[arguments["new"]] = self.on(code, arguments, *names)
        return {}

    def pp_cow_data(self, arguments: Mapping[str, Any]) -> Results:
        copied = self.on(skb_calls.PP_COW_DATA, arguments, "pool", "headroom")
        if copied == 0:
            return {"ret": _ENOMEM}
        self.skbs[arguments["s"]] = copied
        return {"ret": 0}

    # Changes

    def pskb_expand_head(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.EXPAND_HEAD, arguments, "nhead", "ntail")

    def skb_unclone(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.UNCLONE, arguments)

    def skb_unclone_keeptruesize(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.UNCLONE_KEEPTRUESIZE, arguments)

    def skb_cow(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.COW, arguments, "headroom")

    def skb_cow_head(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.COW_HEAD, arguments, "headroom")

    def pskb_trim(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.TRIM, arguments, "len")

    def skb_linearize(self, arguments: Mapping[str, Any]) -> Results:
        return self.done(skb_calls.LINEARIZE, arguments)

    def done(self, code: int, arguments: Mapping[str, Any], *names: str) -> Results:
        return {"ret": 0 if self.on(code, arguments, *names) else _ENOMEM}

    def pskb_pull_tail(self, arguments: Mapping[str, Any]) -> Results:
        return {"ret": self.on(skb_calls.PULL_TAIL, arguments, "delta")}

    def skb_pull(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.PULL, arguments, "len")
        return {}

    def header_release(self, arguments: Mapping[str, Any]) -> Results:
        self.on(skb_calls.HEADER_RELEASE, arguments)
        return {}

    # Two skbs

    def try_coalesce(self, arguments: Mapping[str, Any]) -> Results:
        merged, stolen, delta = self.pair(skb_calls.TRY_COALESCE, arguments, "to", "from")
        if merged:
            self.skb(
                skb_calls.FREE_STOLEN if stolen else skb_calls.FREE_WHOLE, self.skbs.pop(arguments["from"])
            )
        return {"ret": merged, "stolen": stolen, "delta": delta}

    def gro_receive(self, arguments: Mapping[str, Any]) -> Results:
        error, left, _ = self.pair(skb_calls.GRO_RECEIVE, arguments, "to", "from", arguments["hdr"])
        if error:
            return {"ret": error}
        source = self.skbs.pop(arguments["from"])
        if left == coalesce.MERGED:
            self.skb(skb_calls.FREE_WHOLE, source)
        elif left == coalesce.STOLEN_HEAD:
            self.skb(skb_calls.FREE_STOLEN, source)
        return {"ret": 0, "free": left}

    def skb_shift(self, arguments: Mapping[str, Any]) -> Results:
        return {"ret": self.pair(skb_calls.SHIFT, arguments, "to", "from", arguments["len"])[0]}

    def skb_split(self, arguments: Mapping[str, Any]) -> Results:
        self.pair(skb_calls.SPLIT, arguments, "s", "to", arguments["len"])
        return {}

    def frag_list_add(self, arguments: Mapping[str, Any]) -> Results:
        self.pair(skb_calls.FRAG_LIST_ADD, arguments, "s", "child")
        del self.skbs[arguments["child"]]
        return {}

    # Fragments

    def frag_ref(self, arguments: Mapping[str, Any]) -> Results:
        page = self.on(skb_calls.FRAG_REF, arguments, "i")
        handle = self.handles.setdefault(arguments["h"], Handle(page, share=False))
        handle.references += 1
        return {}

    def frag_unref(self, arguments: Mapping[str, Any]) -> Results:
        handle = arguments["h"]
        page = self.give(handle) if self.handles[handle].share else self.give_reference(handle)
        self.skb(skb_calls.FRAG_UNREF, page, arguments["recycle"])
        return {}

    # Calls

    def on(self, code: int, arguments: Mapping[str, Any], *names: str) -> int:
        """An operation on the skb ``s`` with these arguments of the recording."""
        return self.skb(code, self.skbs[arguments["s"]], *(arguments[name] for name in names))

    def pair(
        self, code: int, arguments: Mapping[str, Any], first: str, second: str, number: int = 0
    ) -> list[int]:
        """An operation on two skbs with up to three results."""
        results = np.zeros(3, np.int64)
        to, source = self.skbs[arguments[first]], self.skbs[arguments[second]]
        skb_calls.pair_step(self.buffers, code, to, source, number, results)
        return [int(value) for value in results]

    def skb(self, code: int, *numbers: int) -> int:
        return int(skb_calls.step(self.buffers, code, np.array([*numbers, 0, 0], np.int64)))


_SKB_WORDS = (
    *("len", "data_len", "truesize", "headroom", "users"),
    *("pp_recycle", "cloned", "nohdr", "pfmemalloc"),
)

OPERATIONS: dict[str, Callable[[Any, Mapping[str, Any]], Results]] = {
    operation.__name__: operation
    for operation in (
        *PAGE_OPERATIONS,
        SkbReplay.build_skb,
        SkbReplay.alloc_skb,
        SkbReplay.mark_for_recycle,
        SkbReplay.set_gso_size,
        SkbReplay.add_rx_frag,
        SkbReplay.defer_free,
        SkbReplay.skb_get,
        SkbReplay.skb_clone,
        SkbReplay.skb_copy,
        SkbReplay.pskb_copy,
        SkbReplay.skb_copy_expand,
        SkbReplay.skb_realloc_headroom,
        SkbReplay.pp_cow_data,
        SkbReplay.pskb_expand_head,
        SkbReplay.skb_unclone,
        SkbReplay.skb_unclone_keeptruesize,
        SkbReplay.skb_cow,
        SkbReplay.skb_cow_head,
        SkbReplay.pskb_trim,
        SkbReplay.skb_linearize,
        SkbReplay.pskb_pull_tail,
        SkbReplay.skb_pull,
        SkbReplay.header_release,
        SkbReplay.try_coalesce,
        SkbReplay.gro_receive,
        SkbReplay.skb_shift,
        SkbReplay.skb_split,
        SkbReplay.frag_list_add,
        SkbReplay.frag_ref,
        SkbReplay.frag_unref,
    )
} | {
    "free_va": PageReplay.put_full,  # the same by address
    "kfree_skb": SkbReplay.free_skb,
    "consume_skb": SkbReplay.free_skb,
    "dev_kfree_skb_any": SkbReplay.free_skb,
    "napi_consume_skb": SkbReplay.free_skb,  # a budget changes where the skb's own memory goes
}
"""what to do for each operation of a recording"""
