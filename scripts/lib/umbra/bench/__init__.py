# SPDX-License-Identifier: GPL-2.0-or-later
"""What invalidations cost beside QEMU's intel-iommu: what `scripts/bench` measures and how it tells.

    level    where it is measured: device, engine and testbed (the modules of these names)
    row      one figure of a level, made of what its programs wrote
    report   a run's rows as tables (umbra.bench.report), plots and a page of the tree (plots, publish)
    aim      what the project wants a figure to be (umbra.bench.aims)
"""
