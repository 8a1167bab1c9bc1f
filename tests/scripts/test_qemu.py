# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's source with and without the patches of qemu-configs/patches."""

import os
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import patches, qemu
from umbra.building.qemu import QemuOptions
from umbra.errors import UserError

_LINES = "".join(f"line {number}\n" for number in range(1, 10))
_PATCH = """\
diff --git a/system/file.c b/system/file.c
--- a/system/file.c
+++ b/system/file.c
@@ -3,5 +3,5 @@
 line 3
 line 4
-line 5
+another line
 line 6
 line 7
"""


class Patches(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="umbra-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("QEMU_SOURCE", "QEMU_UNPATCHED"):
            variables = mock.patch.dict(os.environ)
            variables.start()
            self.addCleanup(variables.stop)
            os.environ.pop(name, None)
        os.environ["UMBRA_CACHE"] = str(self.folder / "cache")

    def source(self) -> Path:
        source = self.folder / "source"
        (source / "system").mkdir(parents=True)
        (source / "system/file.c").write_text(_LINES)
        (source / "VERSION").write_text("10.0.13\n")
        return source

    def own_series(self, text: str) -> None:
        series = self.folder / "patches"
        series.mkdir()
        (series / "0001-one.patch").write_text(text)
        replaced = mock.patch.object(qemu, "PATCHES", series)
        replaced.start()
        self.addCleanup(replaced.stop)

    def test_every_patch_is_applied_by_default(self):
        options = QemuOptions.from_environment()
        self.assertEqual(options.patches(), sorted(qemu.PATCHES.glob("*.patch")))
        self.assertGreaterEqual(len(options.patches()), 2)
        self.assertIn(f"--with-pkgversion={qemu.PACKAGE_VERSION}", options.configure())

    def test_none_is_on_request(self):
        self.assertEqual(QemuOptions.from_environment(unpatched=True).patches(), [])
        for value, unpatched in (("1", True), ("yes", True), ("0", False), ("no", False), ("", False)):
            with mock.patch.dict(os.environ, QEMU_UNPATCHED=value):
                self.assertEqual(QemuOptions.from_environment().patches() == [], unpatched, value)
        self.assertEqual(QemuOptions(unpatched=True).configure(), qemu.CONFIGURE)

    def test_a_folder_of_the_user_is_left_alone(self):
        self.assertEqual(QemuOptions(source=self.source()).patches(), [])
        tarball = self.folder / "qemu.tar"
        tarball.touch()
        self.assertNotEqual(QemuOptions(source=tarball).patches(), [])

    def test_patched_and_unpatched_are_two_products(self):
        self.assertNotEqual(qemu._request(QemuOptions()), qemu._request(QemuOptions(unpatched=True)))

    def test_the_patched_tree_is_a_copy(self):
        self.own_series(_PATCH)
        source = self.source()
        product = self.folder / "product"
        tree = qemu._patched(source, product, QemuOptions(), self.folder / "log")
        self.assertEqual(tree, product / "src")
        self.assertIn("another line", (tree / "system/file.c").read_text())
        self.assertEqual((source / "system/file.c").read_text(), _LINES)
        self.assertEqual((tree / "VERSION").read_text(), "10.0.13\n")
        self.assertEqual(qemu._patched(source, product, QemuOptions(unpatched=True), self.folder / "log"), source)

    def test_a_patch_that_does_not_apply_is_named_with_a_way_out(self):
        self.own_series(_PATCH.replace("-line 5", "-line five"))
        with self.assertRaises(UserError) as raised:
            qemu._patched(self.source(), self.folder / "product", QemuOptions(), self.folder / "log")
        self.assertRegex(str(raised.exception), r"0001-one\.patch does not apply(.|\n)*QEMU_UNPATCHED=1")
        self.assertFalse((self.folder / "product/src").exists())

    def test_the_series_is_as_git_writes_it(self):
        for patch in patches.series(qemu.PATCHES):
            text = patch.read_text()
            self.assertRegex(text, r"\AFrom 0{40} ")
            self.assertRegex(text, r"\nSigned-off-by: .+@.+\n")
            self.assertTrue(patches.files_named_by(patch))


if __name__ == "__main__":
    unittest.main()
