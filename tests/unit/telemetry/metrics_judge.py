# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges OpenMetrics texts by the parser of Debian's python3-prometheus-client.

    metrics_judge.py FILE...     prints a line for each file: empty, or what is wrong with the text

The parser knows most of the standard. Four rules are checked here besides: the names of families
begin with umbra_, families have a help text, no sample stands twice, and exactly one state of a set
is true.
"""

import sys
from collections import Counter
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def check_family(family: Metric) -> None:
    if not family.name.startswith("umbra_"):
        raise ValueError(f"{family.name} does not begin with umbra_")
    if not family.documentation:
        raise ValueError(f"{family.name} has no help text")
    if not family.samples:
        raise ValueError(f"{family.name} has no samples")
    if family.type == "stateset":
        states: Counter[tuple[tuple[str, str], ...]] = Counter()
        for sample in family.samples:
            others = {name: value for name, value in sample.labels.items() if name != family.name}
            states[tuple(sorted(others.items()))] += int(sample.value)
        if set(states.values()) != {1}:
            raise ValueError(f"{family.name} has not one true state in each set")


def check_samples_differ(text: str) -> None:
    # The parser would drop the second one without a word.
    seen = Counter(line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    for sample, times in seen.items():
        if times > 1:
            raise ValueError(f"{sample} stands {times} times")


def judge(text: str) -> str:
    try:
        check_samples_differ(text)
        for family in text_string_to_metric_families(text):
            check_family(family)
    except (ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return ""


def main() -> None:
    for name in sys.argv[1:]:
        print(judge(Path(name).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
