# SPDX-License-Identifier: GPL-2.0-or-later
"""Library of the commands in scripts/. Python's standard library only."""
