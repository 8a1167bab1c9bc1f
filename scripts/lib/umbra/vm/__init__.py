# SPDX-License-Identifier: GPL-2.0-or-later
"""Running virtual machines: where a guest runs, how it is described, watched and talked to."""
