# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures guests behind vIOMMUs: what `scripts/measure` runs and how it tells.

    cell      a vIOMMU, a flush policy, a VFIO backend and a kernel: what is compared (umbra.measuring.plan)
    workload  what a guest does in a cell (umbra.measuring.plan)
    round     one run of a workload, either timed or counted
    session   all cells and workloads of one invocation (umbra.measuring.session)
    result    what a session leaves, and its table (umbra.measuring.results)
"""
