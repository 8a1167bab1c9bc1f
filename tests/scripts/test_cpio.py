# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives for an initramfs."""

import io
import subprocess
import unittest

from umbra.building import cpio


class Archive(unittest.TestCase):
    @staticmethod
    def archive(start: int = 0) -> bytes:
        out = io.BytesIO()
        writer = cpio.Writer(out, start)
        writer.directory("/umbra")
        writer.file("/umbra/a", b"hello")
        writer.symlink("/umbra/b", "a")
        writer.char_device("/dev/console", 5, 1)
        writer.finish()
        return out.getvalue()

    def test_same_input_same_bytes(self):
        self.assertEqual(self.archive(), self.archive())

    def test_starts_on_a_boundary_behind_another_image(self):
        for start in range(8):
            self.assertTrue(self.archive(start)[-start % 4:].startswith(b"070701"))

    def test_other_tools_read_it(self):
        done = subprocess.run(["cpio", "-tv"], input=self.archive(), capture_output=True, check=True)
        listing = done.stdout.decode()
        self.assertIn("umbra/b -> a", listing)
        self.assertIn("5,   1", listing)


if __name__ == "__main__":
    unittest.main()
