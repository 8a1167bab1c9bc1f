# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images and fragments, and the application of patch series to trees."""

import contextlib
import io
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import kernel, kernel_config, kernel_image, patches
from umbra.building.kernel_config import lost_options
from umbra.errors import ExitCode, UserError


class ScratchCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def refuses(self, words: str, function, *arguments):
        """Asserts that a call is refused as a usage error that says `words`."""
        with self.assertRaises(UserError) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.code, ExitCode.USAGE)
        self.assertIn(words, str(caught.exception))


class BzImage(ScratchCase):
    def image(self) -> Path:
        data = bytearray(4096)
        data[0x1FE:0x200] = b"\x55\xaa"
        data[0x202:0x206] = b"HdrS"
        path = self.folder / "bzImage"
        path.write_bytes(data)
        return path

    def test_a_kernel_passes(self):
        kernel_image.check_bzimage(self.image())

    def test_the_magic_numbers_suffice(self):
        with tempfile.NamedTemporaryFile() as image:
            image.write(b"\0" * 0x1FE + b"\x55\xaa\0\0HdrS")
            image.flush()
            kernel_image.check_bzimage(Path(image.name))
            image.truncate(0x204)
            with self.assertRaises(UserError):
                kernel_image.check_bzimage(Path(image.name))

    def test_others_are_refused(self):
        path = self.image()
        whole = path.read_bytes()
        for content in (b"", whole[:0x204], b"\x7fELF" + bytes(4096), whole.replace(b"HdrS", b"hdrs"),
                        whole.replace(b"\x55\xaa", b"\0\0")):
            path.write_bytes(content)
            self.refuses("no x86 kernel image", kernel_image.check_bzimage, path)

    def test_a_missing_file_and_a_folder_are_refused(self):
        self.refuses("cannot be read", kernel_image.check_bzimage, self.folder / "nothing")
        self.refuses("cannot be read", kernel_image.check_bzimage, self.folder)


class Fragments(ScratchCase):
    def test_by_name_and_by_path(self):
        self.assertEqual(kernel_config.fragment_path("debug"), kernel_config.FRAGMENTS / "debug.config")
        own = self.folder / "own.config"
        own.write_text("CONFIG_X=y\n")
        self.assertEqual(kernel_config.fragment_path(str(own)), own)

    def test_unknown_names_the_known(self):
        self.refuses("debug", kernel_config.fragment_path, "no-such")

    def test_lost_options(self):
        config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=0x1\n"
        self.assertEqual(lost_options(config, "# words\nCONFIG_A=y\nCONFIG_C=m\nCONFIG_D=0x1\n"), [])
        self.assertEqual(lost_options(config, "# CONFIG_B is not set\n# CONFIG_E is not set\nCONFIG_B=n\n"), [])
        self.assertEqual(lost_options(config, "CONFIG_A=m\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_E=y\n"),
                         ["CONFIG_A=m", "CONFIG_B=y", "# CONFIG_C is not set", "CONFIG_E=y"])

    def test_ours_name_each_option_once(self):
        seen = {}
        for path in sorted(kernel_config.FRAGMENTS.glob("*.config")):
            for line in path.read_text().splitlines():
                if line.startswith("CONFIG_"):
                    name = line.split("=")[0]
                    self.assertNotIn(name, seen, f"in {path.name} and in {seen.get(name)}")
                    seen[name] = path.name

    def test_all_defaults_exist(self):
        for name in kernel_config.DEFAULT_FRAGMENTS:
            self.assertTrue((kernel_config.FRAGMENTS / f"{name}.config").is_file(), name)


class Keys(ScratchCase):
    """What is part of a product's key, so that a change of it is another product."""

    def test_fragments_and_patches_count(self):
        fragment = self.folder / "x.config"
        fragment.write_text("CONFIG_X=y\n")
        series = self.folder / "series"
        series.mkdir()
        (series / "1.patch").write_text("one")
        with mock.patch.dict(os.environ, {"UMBRA_CACHE": str(self.folder / "cache")}):
            plain, extra = kernel_config.KernelOptions(), kernel_config.KernelOptions(fragments=(fragment,))
            patched = kernel_config.KernelOptions(patches=series)
            seen = [kernel._request(options) for options in (plain, extra, patched)]
            (series / "1.patch").write_text("two")
            seen.append(kernel._request(patched))
            fragment.write_text("CONFIG_X=m\n")
            seen.append(kernel._request(extra))
        self.assertEqual(len(set(seen)), 5)

    def test_patches_of_kconfig_decide_when_to_configure(self):
        (self.folder / "1.patch").write_text("--- a/drivers/iommu/iova.c\n+++ b/drivers/iommu/iova.c\n")
        options = kernel_config.KernelOptions(patches=self.folder)
        self.assertEqual(kernel_config.patches_of_kconfig(options), [])
        text = "--- a/drivers/iommu/Kconfig\n+++ b/drivers/iommu/Kconfig\n"
        (self.folder / "2.patch").write_text(text)
        self.assertEqual(kernel_config.patches_of_kconfig(options), [text])
        self.assertEqual(kernel_config.patches_of_kconfig(kernel_config.KernelOptions()), [])


PATCH_1 = """\
From: Somebody <somebody@example.org>
Subject: [PATCH 1/2] Change a, add b

---
diff --git a/dir/a.c b/dir/a.c
--- a/dir/a.c
+++ b/dir/a.c
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
diff --git a/dir/b.c b/dir/b.c
new file mode 100644
--- /dev/null
+++ b/dir/b.c
@@ -0,0 +1 @@
+new
"""
PATCH_2 = """\
diff --git a/gone.c b/gone.c
deleted file mode 100644
--- a/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-gone
"""


class Series(ScratchCase):
    def setUp(self):
        super().setUp()
        self.stock, self.tree, self.series = (self.folder / name for name in ("stock", "tree", "patches"))
        self.log = self.folder / "log"
        self.series.mkdir()
        for tree in (self.stock, self.tree):
            (tree / "dir").mkdir(parents=True)
            for name, text in (("dir/a.c", "one\ntwo\nthree\n"), ("gone.c", "gone\n"), ("other.c", "other\n")):
                (tree / name).write_text(text)
                os.utime(tree / name, (1000, 1000))
        (self.series / "1.patch").write_text(PATCH_1)
        (self.series / "2.patch").write_text(PATCH_2)
        (self.series / "series").write_text("# order\n1.patch\n\n2.patch # last\n")

    def apply(self, *listed):
        with contextlib.redirect_stderr(io.StringIO()):
            patches.apply([self.series / name for name in listed], self.stock, self.tree, self.log)

    def time_of(self, name: str) -> float:
        return (self.tree / name).stat().st_mtime

    def test_order_is_that_of_the_series_file(self):
        self.assertEqual([path.name for path in patches.series(self.series)], ["1.patch", "2.patch"])

    def test_order_is_by_name_without_one(self):
        (self.series / "series").unlink()
        self.assertEqual([path.name for path in patches.series(self.series)], ["1.patch", "2.patch"])

    def test_bad_folders(self):
        self.refuses("does not exist", patches.series, self.folder / "nothing")
        self.refuses("holds no patches", patches.series, self.stock)
        (self.series / "series").write_text("3.patch\n")
        self.refuses("names 3.patch, which does not exist", patches.series, self.series)

    def test_files_that_a_patch_names(self):
        self.assertEqual(patches.files_named_by(self.series / "1.patch"), {"dir/a.c", "dir/b.c"})
        self.assertEqual(patches.files_named_by(self.series / "2.patch"), {"gone.c"})

    def test_no_way_out_of_the_tree(self):
        (self.series / "1.patch").write_text(PATCH_1.replace("dir/b.c", "../b.c"))
        self.refuses("outside of the source tree", patches.files_named_by, self.series / "1.patch")

    def test_no_patch(self):
        (self.series / "1.patch").write_text("hello\n")
        self.refuses("is not a patch", patches.files_named_by, self.series / "1.patch")

    def test_only_what_changes_is_written(self):
        self.apply("1.patch", "2.patch")
        self.assertEqual((self.tree / "dir/a.c").read_text(), "one\nTWO\nthree\n")
        self.assertEqual((self.tree / "dir/b.c").read_text(), "new\n")
        self.assertFalse((self.tree / "gone.c").exists())
        self.assertGreater(self.time_of("dir/a.c"), 1000)
        self.assertEqual(self.time_of("other.c"), 1000)
        self.assertEqual((self.stock / "dir/a.c").read_text(), "one\ntwo\nthree\n")

    def test_applying_again_writes_nothing(self):
        self.apply("1.patch")
        os.utime(self.tree / "dir/a.c", (2000, 2000))
        self.apply("1.patch")
        self.assertEqual(self.time_of("dir/a.c"), 2000)

    def test_another_series_undoes_what_only_the_first_did(self):
        self.apply("1.patch")
        self.apply("2.patch")
        self.assertEqual((self.tree / "dir/a.c").read_text(), "one\ntwo\nthree\n")
        self.assertFalse((self.tree / "dir/b.c").exists())
        self.assertFalse((self.tree / "gone.c").exists())

    def test_a_patch_that_does_not_apply_leaves_the_tree_alone(self):
        (self.series / "1.patch").write_text(PATCH_1.replace("-two", "-zwei"))
        self.refuses("1.patch does not apply", self.apply, "2.patch", "1.patch")
        self.assertEqual((self.tree / "dir/a.c").read_text(), "one\ntwo\nthree\n")
        self.assertTrue((self.tree / "gone.c").exists())
        # And the next series starts from a clean state.
        self.apply("2.patch")
        self.assertFalse((self.tree / "gone.c").exists())
        self.assertFalse((self.tree / "dir/b.c").exists())


if __name__ == "__main__":
    unittest.main()
