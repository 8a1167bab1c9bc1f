# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit XML, as continuous-integration systems read it: a suite a scene, a test case a case."""

import itertools
import re
import xml.etree.ElementTree as xml
from collections.abc import Iterable
from pathlib import Path

from umbra.regress.scene import Outcome, Verdict

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)


def document(outcomes: Iterable[Outcome]) -> xml.ElementTree:
    root = xml.Element("testsuites", name="regress")
    for group, members in itertools.groupby(outcomes, key=lambda outcome: outcome.case.partition("/")[0]):
        cases = list(members)
        suite = xml.SubElement(root, "testsuite", name=group, tests=str(len(cases)), errors="0",
                               failures=str(sum(case.verdict is Verdict.FAIL for case in cases)),
                               skipped=str(sum(case.verdict is Verdict.SKIP for case in cases)),
                               time=f"{sum(case.seconds for case in cases):.3f}")
        for case in cases:
            _add(suite, case)
    return xml.ElementTree(root)


def _add(suite: xml.Element, outcome: Outcome) -> None:
    group, _, rest = outcome.case.partition("/")
    element = xml.SubElement(suite, "testcase", classname=group, name=rest or group, time=f"{outcome.seconds:.3f}")
    if outcome.verdict is Verdict.FAIL:
        first = (outcome.reason.splitlines() or [""])[0]
        xml.SubElement(element, "failure", message=_clean(first)).text = _clean(outcome.reason)
    elif outcome.verdict is Verdict.SKIP:
        xml.SubElement(element, "skipped", message=_clean(outcome.reason))
    if outcome.notes:
        xml.SubElement(element, "system-out").text = _clean("\n".join(outcome.notes))


def write(path: Path, outcomes: Iterable[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = document(outcomes)
    xml.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)
