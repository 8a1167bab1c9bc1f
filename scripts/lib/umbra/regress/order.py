# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order a guest kernel unmaps, invalidates and releases: the rules that no count can check.

    1. An IOVA is released only after everything that was unmapped in it has been invalidated. Until then a device, or
       a hypervisor that mirrors the table, may use the old translation, and whoever gets the IOVA next is hit.
    2. Where a page of the page table went away with an unmap, the invalidation must not carry the hint that only leaf
       entries changed (IH): a cached non-leaf entry would still lead to the page.

Input is a trace of one guest (umbra.regress.trace) in the order in which things happened. It must have been booted
with intel_iommu=sp_off: then a whole aligned 2 MiB in one unmap means that its table went away.
"""

import dataclasses
import enum
from collections.abc import Iterable

TABLE_PAGES = 512
_REPORTED = 8


class Kind(enum.Enum):
    UNMAP = "unmap"
    INVALIDATE = "invalidate"
    RELEASE = "release"


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened to pages [first, first + count). `hint`: IH. count 0 stands for all pages (a domain flush)."""
    kind: Kind
    first: int = 0
    count: int = 0
    hint: bool = False


@dataclasses.dataclass
class Findings:
    """`early`: releases against rule 1, `hinted`: against rule 2, as sentences; the rest are numbers of events."""
    early: list[str] = dataclasses.field(default_factory=list)
    hinted: list[str] = dataclasses.field(default_factory=list)
    early_count: int = 0
    hinted_count: int = 0
    unmaps: int = 0
    tables: int = 0
    releases: int = 0
    page_invalidations: int = 0
    domain_invalidations: int = 0
    hints: int = 0


class _Checker:
    def __init__(self) -> None:
        self.findings = Findings()
        self._stale: set[int] = set()         # pages unmapped and not invalidated
        self._stale_tables: set[int] = set()  # pages whose table went away, not invalidated without the hint

    def take(self, event: Event) -> None:
        pages = range(event.first, event.first + event.count)
        if event.kind is Kind.UNMAP:
            self._unmap(pages)
        elif event.kind is Kind.INVALIDATE:
            self._invalidate(event, pages)
        elif event.kind is Kind.RELEASE:
            self._release(pages)

    def _unmap(self, pages: range) -> None:
        self.findings.unmaps += 1
        self._stale.update(pages)
        first_table = -(-pages.start // TABLE_PAGES)
        for table in range(first_table, pages.stop // TABLE_PAGES):
            self.findings.tables += 1
            self._stale_tables.update(range(table * TABLE_PAGES, (table + 1) * TABLE_PAGES))

    def _invalidate(self, event: Event, pages: range) -> None:
        if not event.count:
            self.findings.domain_invalidations += 1
            self._stale.clear()
            self._stale_tables.clear()
            return
        self.findings.page_invalidations += 1
        self.findings.hints += event.hint
        # This way round: a large address mask covers far more pages than were ever unmapped.
        self._stale = {page for page in self._stale if page not in pages}
        if not event.hint:
            self._stale_tables = {page for page in self._stale_tables if page not in pages}

    def _release(self, pages: range) -> None:
        findings = self.findings
        findings.releases += 1
        early = [page for page in pages if page in self._stale]
        hinted = [page for page in pages if page in self._stale_tables]
        if early:
            findings.early_count += 1
            _note(findings.early, pages, f"{len(early)} of its pages were unmapped and not invalidated")
        elif hinted:
            findings.hinted_count += 1
            _note(findings.hinted, pages,
                  "a table went away with it, and its invalidation said that only leaves changed")
        # Told once; what follows is judged by itself.
        self._stale.difference_update(pages)
        self._stale_tables.difference_update(pages)


def _note(sentences: list[str], pages: range, what: str) -> None:
    if len(sentences) < _REPORTED:
        sentences.append(f"IOVA {pages.start << 12:#x}, {len(pages)} pages, was released: {what}.")


def check(events: Iterable[Event]) -> Findings:
    checker = _Checker()
    for event in events:
        checker.take(event)
    return checker.findings
