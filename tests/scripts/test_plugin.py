# SPDX-License-Identifier: GPL-2.0-or-later
"""Build folders of the plugin: which are gone on with, and which start afresh."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import plugin


class BuildFolder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "build"
        self.folder.mkdir()

    def survives(self, **changed: str) -> bool:
        """Whether a folder does with these lines in its cache, for what an earlier build has there."""
        lines = {"CMAKE_HOME_DIRECTORY:INTERNAL": str(plugin.TREE), "CMAKE_GENERATOR:INTERNAL": "Ninja",
                 "CMAKE_CACHEFILE_DIR:INTERNAL": str(self.folder), "CMAKE_C_COMPILER:STRING": "/usr/bin/gcc",
                 "CMAKE_CXX_COMPILER:STRING": "/usr/bin/g++"} | {
                     name.replace("__", ":"): value for name, value in changed.items()}
        text = "# a comment\n\n" + "".join(f"{name}={value}\n" for name, value in lines.items())
        (self.folder / "CMakeCache.txt").write_text(text)
        plugin._drop_foreign_cache(self.folder)
        return self.folder.exists()

    def test_that_of_an_earlier_build_is_gone_on_with(self):
        self.assertTrue(self.survives())

    def test_an_empty_one_is_left_alone(self):
        plugin._drop_foreign_cache(self.folder)
        self.assertTrue(self.folder.exists())

    def test_another_tree_starts_afresh(self):
        self.assertFalse(self.survives(CMAKE_HOME_DIRECTORY__INTERNAL="/elsewhere"))

    def test_another_generator_starts_afresh(self):
        self.assertFalse(self.survives(CMAKE_GENERATOR__INTERNAL="Unix Makefiles"))

    def test_a_copied_folder_starts_afresh(self):
        self.assertFalse(self.survives(CMAKE_CACHEFILE_DIR__INTERNAL="/elsewhere/build"))

    def test_another_compiler_starts_afresh(self):
        # CMake would configure twice, and forget in between where QEMU is.
        self.assertFalse(self.survives(CMAKE_C_COMPILER__STRING="/usr/bin/cc"))

    def test_the_same_compiler_wrapped_starts_afresh(self):
        self.assertFalse(self.survives(CMAKE_C_COMPILER__STRING="/usr/lib/ccache/gcc"))

    def test_another_compiler_for_cpp_starts_afresh(self):
        self.assertFalse(self.survives(CMAKE_CXX_COMPILER__STRING="/usr/bin/clang++"))

    @unittest.skipUnless(shutil.which("cmake") and shutil.which("ninja"), "CMake or Ninja is not installed")
    def test_every_build_goes_on_with_the_one_before(self):
        project = self.folder.parent / "project"
        project.mkdir()
        (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\n"
                                                "project(small LANGUAGES C CXX)\n")
        options = plugin.PluginOptions(build=self.folder, offline=True)
        kept = self.folder / "kept"
        with mock.patch.object(plugin, "TREE", project), mock.patch.object(plugin.packages, "ensure"):
            plugin.build(options, None)
            kept.touch()
            for number in range(2, 5):
                plugin.build(options, None)
                self.assertTrue(kept.exists(), f"build {number} started afresh")


class CompilerWarnings(unittest.TestCase):
    def test_are_errors_with_compilers_that_the_tree_was_mended_for(self):
        with tempfile.NamedTemporaryFile("w", suffix=".cmake") as script:
            script.write(f"cmake_minimum_required(VERSION 3.25)\ninclude({plugin.TREE}/cmake/warnings.cmake)\n"
                         'umbra_is_mended_for(mended "${id}" "${version}")\nmessage(${mended})\n')
            script.flush()
            for compiler, version, mended in (("GNU", "12.2.0", True), ("GNU", "14.2.0", True),
                                              ("GNU", "13.3.0", False), ("GNU", "15.1.0", False), ("GNU", "1.2", False),
                                              ("Clang", "14.0.6", False), ("", "", False)):
                with self.subTest(f"{compiler} {version}"):
                    done = subprocess.run(["cmake", f"-Did={compiler}", f"-Dversion={version}", "-P", script.name],
                                          capture_output=True, text=True, check=True)
                    self.assertEqual(done.stderr.strip(), str(mended).upper())


if __name__ == "__main__":
    unittest.main()
