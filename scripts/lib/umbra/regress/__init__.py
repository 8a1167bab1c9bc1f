# SPDX-License-Identifier: GPL-2.0-or-later
"""Regression tests of a guest kernel, or of patches to it: what `scripts/regress` runs and how it tells.

    scene    one virtual machine, or one build, and the cases that it decides (umbra.regress.scene)
    case     one promise of the kernel, by a name such as umbra/fq-range/counters
    subject  the kernel under test (umbra.regress.subject)
    lab      where subjects are booted (umbra.regress.lab)
"""
