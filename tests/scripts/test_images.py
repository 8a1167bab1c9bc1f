# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: the same input gives the same bytes, and what is in them is what was asked for."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import images
from umbra.building.kernel_image import KernelProduct
from umbra.errors import ExitCode, UserError


class ImageCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def unpacked(self, archive: bytes) -> Path:
        target = self.folder / "unpacked"
        target.mkdir()
        subprocess.run(["cpio", "-i", "--quiet", "--make-directories", "--nonmatching", "dev/*"], input=archive,
                       cwd=target, check=True)
        return target


class Reproducible(ImageCase):
    def overlay(self, name: str, order: int) -> Path:
        top = self.folder / name
        files = [("init", "#!/bin/sh\n", 0o755), ("usr/lib/b", "b", 0o644), ("usr/lib/a", "a", 0o600)]
        for path, text, mode in files[::order]:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)
            (top / path).chmod(mode)
            os.utime(top / path, (order + 5000, order + 5000))
        (top / "usr/lib/link").symlink_to("a")
        return top

    def archive(self, name: str, order: int) -> bytes:
        tree = images.Tree()
        parts = [lambda: tree.add("bin/tool", b"tool", 0o755), lambda: tree.add_folder("var/empty"),
                 lambda: tree.overlay(self.overlay(name, order))]
        for part in parts[::order]:
            part()
        return tree.archive()

    def test_same_input_same_bytes(self):
        first, second = self.archive("one", 1), self.archive("two", -1)
        self.assertEqual(first, second)

    @unittest.skipUnless(shutil.which("zstd"), "zstd is not installed")
    def test_compressed_too(self):
        archive = self.archive("one", 1)
        self.assertEqual(images.compress(archive), images.compress(archive))

    def test_another_byte_is_another_image(self):
        first = images.Tree()
        first.add("file", b"a")
        second = images.Tree()
        second.add("file", b"b")
        self.assertNotEqual(first.archive(), second.archive())


@unittest.skipUnless(shutil.which("gcc"), "gcc is not installed")
class GuestPrograms(ImageCase):
    def test_they_need_no_library(self):
        programs = images.compile_programs(self.folder)
        self.assertIn("umbra_vfio_nvme", [program.name for program in programs])
        for program in programs:
            self.assertEqual(images.libraries_of(program), [])

    def test_one_that_does_not_compile_is_named(self):
        (self.folder / "wrong.c").write_text("int main(void) { return nothing; }\n")
        with mock.patch.object(images, "PROGRAMS", self.folder), self.assertRaises(UserError) as caught:
            images.compile_programs(self.folder)
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        self.assertIn("wrong.c does not compile", str(caught.exception))


@unittest.skipUnless(shutil.which("cpio"), "cpio is not installed")
class Content(ImageCase):
    def test_files_folders_links_and_modes(self):
        (self.folder / "overlay/etc").mkdir(parents=True)
        (self.folder / "overlay/etc/.gitkeep").touch()
        (self.folder / "overlay/init").write_text("#!/bin/sh\n")
        (self.folder / "overlay/init").chmod(0o700)
        (self.folder / "overlay/link").symlink_to("init")
        tree = images.Tree()
        tree.overlay(self.folder / "overlay")
        tree.add("deep/er/file", b"content")
        top = self.unpacked(tree.archive())
        self.assertEqual((top / "deep/er/file").read_text(), "content")
        self.assertEqual((top / "init").stat().st_mode & 0o777, 0o755)
        self.assertEqual(os.readlink(top / "link"), "init")
        self.assertEqual(list((top / "etc").iterdir()), [])

    def test_devices_that_process_1_needs(self):
        listing = subprocess.run(["cpio", "-t", "-v", "--quiet", "--numeric-uid-gid"], input=images.Tree().archive(),
                                 capture_output=True, check=True).stdout.decode()
        self.assertRegex(listing, r"crw------- +1 0 +0 +5, +1 .* dev/console\n")
        self.assertRegex(listing, r"crw-rw-rw- +1 0 +0 +1, +3 .* dev/null\n")

    def test_a_later_file_replaces_an_earlier_one(self):
        tree = images.Tree()
        tree.add("file", b"old")
        tree.add("/file", b"new")
        self.assertEqual((self.unpacked(tree.archive()) / "file").read_text(), "new")


class Programs(ImageCase):
    def test_libraries_of_a_dynamic_program(self):
        libraries = images.libraries_of(Path("/usr/bin/env"))
        self.assertTrue(any(path.name == "libc.so.6" for path in libraries))
        self.assertTrue(any(path.name.startswith("ld-linux") for path in libraries))

    def test_a_script_has_none(self):
        script = self.folder / "script"
        script.write_text("#!/bin/sh\n")
        self.assertEqual(images.libraries_of(script), [])

    def test_a_missing_file_is_one_sentence(self):
        with self.assertRaises(UserError) as caught:
            images.Tree().add_file("x", self.folder / "nothing")
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)

    def test_a_missing_library_is_one_sentence(self):
        answer = mock.Mock(stdout="\tlibmissing.so.1 => not found\n")
        with mock.patch.object(images.subprocess, "run", return_value=answer), self.assertRaises(UserError) as caught:
            images.libraries_of(Path("/usr/bin/env"))
        self.assertIn("libmissing.so.1", caught.exception.message)


class ForAnotherKernel(ImageCase):
    def product(self, name: str) -> KernelProduct:
        folder = self.folder / name
        folder.mkdir()
        (folder / "test.ko").write_text(f"module of {name}")
        return KernelProduct(folder)

    def setUp(self):
        super().setUp()
        self.stock, self.patched = self.product("stock"), self.product("patched")
        base = self.folder / "guest.img"
        # Not a multiple of 4: the next archive must be aligned all the same.
        base.write_bytes(b"compressed")
        self.images = images.Images(base, base, self.stock.folder)

    def test_the_stock_kernel_and_an_unknown_one_take_the_image_as_it_is(self):
        for linux in (None, self.stock):
            self.assertEqual(self.images.guest_initrd_for(linux, self.folder), self.images.guest_initrd)

    @unittest.skipUnless(shutil.which("cpio"), "cpio is not installed")
    def test_another_one_gets_its_modules(self):
        written = self.images.guest_initrd_for(self.patched, self.folder).read_bytes()
        self.assertEqual(written[:12], b"compressed\0\0")
        top = self.unpacked(written[12:])
        self.assertEqual((top / "lib/modules/umbra/test.ko").read_text(), "module of patched")


if __name__ == "__main__":
    unittest.main()
