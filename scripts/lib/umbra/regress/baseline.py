# SPDX-License-Identifier: GPL-2.0-or-later
"""Invalidation counts of an earlier run, to compare a later one with.

A file holds, for each vIOMMU and policy, the invalidations per 1,000 operations of the counted workload:

    {"kind": "baseline of scripts/regress", "schema": 1, "workload": "workload hold …",
     "tolerance": {"relative": 0.05, "absolute": 5.0},
     "counts": {"umbra/fq-range": {"psi": 1059.6, "dsi": 0.0, "wait": 1003.9}, …}}

A count is accepted if it differs by no more than the larger of both tolerances, which are a part of the stored count
and invalidations per 1,000 operations. Fewer invalidations than before are no reason to fail: they are noted.
"""

import dataclasses
import json
from pathlib import Path

from umbra import documents
from umbra.errors import ExitCode, UserError

KIND = "baseline of scripts/regress"
SCHEMA = 1
_RELATIVE = 0.05
_ABSOLUTE = 5.0
_KINDS = {"psi": "page-selective", "dsi": "domain-selective", "wait": "wait"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`worse`: sentences, each a count that is too high. `better`: the same for too low ones."""
    worse: list[str]
    better: list[str]


class Baseline:
    def __init__(self, path: Path):
        self.path = path
        self._workload = ""
        self._tolerance = {"relative": _RELATIVE, "absolute": _ABSOLUTE}
        self._counts: dict[str, dict[str, float]] = {}

    @staticmethod
    def load(path: Path, must_exist: bool) -> "Baseline":
        baseline = Baseline(path)
        if not path.exists():
            if must_exist:
                raise UserError(ExitCode.USAGE, f"--baseline {path}: no such file.", "--update-baseline writes one.")
            return baseline
        content = documents.load(path, "--baseline", KIND, SCHEMA, {"workload": str, "tolerance": dict, "counts": dict})
        baseline._workload = content["workload"]
        baseline._tolerance |= content["tolerance"]
        baseline._counts = content["counts"]
        return baseline

    def knows(self, cell: str, workload: str) -> bool:
        return cell in self._counts and workload == self._workload

    def compare(self, cell: str, counts: dict[str, float]) -> Comparison:
        """`counts`: per 1,000 operations."""
        result = Comparison([], [])
        for kind, stored in self._counts[cell].items():
            allowed = max(stored * self._tolerance["relative"], self._tolerance["absolute"])
            if abs(counts[kind] - stored) > allowed:
                (result.worse if counts[kind] > stored else result.better).append(
                    f"{counts[kind]:.1f} {_KINDS.get(kind, kind)} descriptors per 1,000 operations, "
                    f"the baseline has {stored:.1f} ± {allowed:.1f}")
        return result

    def update(self, cell: str, workload: str, counts: dict[str, float]) -> None:
        if workload != self._workload:
            # Counts of another workload cannot be compared with.
            self._counts.clear()
            self._workload = workload
        self._counts[cell] = {kind: round(value, 1) for kind, value in counts.items()}

    def save(self) -> None:
        content = {**documents.head(KIND, SCHEMA), "workload": self._workload, "tolerance": self._tolerance,
                   "counts": dict(sorted(self._counts.items()))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=2) + "\n")
