# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands in scripts/, one module each: what they are told on the command line, and what they print.

A command hands on what it was told as an options object of the package that does the work. No command needs another.
"""
