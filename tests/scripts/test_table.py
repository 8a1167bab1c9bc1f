# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for people, and whether they have colours."""

import io
import os
import unittest
from unittest import mock

from umbra import table


class Tables(unittest.TestCase):
    def test_colour_is_for_terminals_that_have_it_and_users_who_want_it(self):
        terminal = mock.Mock(isatty=lambda: True)
        for variables, coloured in (({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False),
                                    ({"TERM": "xterm", "NO_COLOR": "1"}, False),
                                    ({"TERM": "xterm", "NO_COLOR": ""}, True)):
            with self.subTest(variables), mock.patch.dict(os.environ, variables, clear=True):
                self.assertEqual(table.has_colour(terminal), coloured)
        self.assertFalse(table.has_colour(io.StringIO()))

    def test_plain_table_has_no_escapes(self):
        text = table.render(["a", "b"], [["x", "1"], ["x", "22"]], colour=False)
        self.assertNotIn("\033", text)
        self.assertEqual(text.splitlines()[1], "x   1")


if __name__ == "__main__":
    unittest.main()
