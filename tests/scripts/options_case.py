# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of command lines share."""

import contextlib
import io
import unittest

from umbra.errors import ExitCode, UserError


class OptionsCase(unittest.TestCase):
    def refused(self, parse, *arguments: str) -> None:
        with self.assertRaises((UserError, SystemExit)) as caught:
            parse(list(arguments))
        code = getattr(caught.exception, "code", None)
        self.assertEqual(code, ExitCode.USAGE, arguments)

    def setUp(self):
        # argparse reports on standard error.
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))
