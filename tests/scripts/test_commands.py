# SPDX-License-Identifier: GPL-2.0-or-later
"""The build commands as a user calls them: help, bad input, exit codes, and what they print with an empty cache."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from umbra.errors import ExitCode

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BUILDERS = ("build-qemu", "build-kernel", "build-images", "build-plugin", "test")


class CommandCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def call(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"UMBRA_CACHE": str(self.folder / "cache"), "QEMU_SOURCE": ""} | variables
        return subprocess.run([SCRIPTS / name, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env=environment, cwd=self.folder, timeout=100, check=False)

    def fails(self, code: ExitCode, words: str, name: str, *arguments: str, **variables: str):
        """Asserts a failure with one sentence about it: no traceback, nothing on standard output."""
        done = self.call(name, *arguments, **variables)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(words, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertTrue(done.stderr.startswith(f"{name}: "), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertEqual(done.stdout, "")


class Help(CommandCase):
    def test_every_command_has_an_example(self):
        for name in (*BUILDERS, "env"):
            done = self.call(name, "--help")
            self.assertEqual(done.returncode, ExitCode.PASS, name)
            self.assertIn("Example: ", done.stdout, name)

    def test_works_through_a_symbolic_link(self):
        link = self.folder / "link"
        link.symlink_to(SCRIPTS / "env")
        done = subprocess.run([link, "--help"], capture_output=True, check=False)
        self.assertEqual(done.returncode, ExitCode.PASS, done.stderr)


class BadInput(CommandCase):
    def test_unknown_options(self):
        for name in (*BUILDERS, "env"):
            self.fails(ExitCode.USAGE, "--no-such-option", name, "--no-such-option")

    def test_build_qemu(self):
        self.fails(ExitCode.USAGE, "no version number", "build-qemu", "--qemu-version", "new")
        self.fails(ExitCode.USAGE, "holds no QEMU source", "build-qemu", QEMU_SOURCE=str(self.folder))
        self.fails(ExitCode.USAGE, "does not exist", "build-qemu", QEMU_SOURCE=str(self.folder / "nothing"))
        (self.folder / "file").write_text("no archive")
        self.fails(ExitCode.USAGE, "neither a folder nor a tar archive", "build-qemu",
                   QEMU_SOURCE=str(self.folder / "file"))

    def test_build_kernel(self):
        self.fails(ExitCode.USAGE, "does not exist", "build-kernel", "--patches", "nothing")
        self.fails(ExitCode.USAGE, "neither a file nor one of", "build-kernel", "--config", "nothing")
        self.fails(ExitCode.USAGE, "does not exist", "build-kernel", "--source", "nothing")
        self.fails(ExitCode.USAGE, "holds no Linux source", "build-kernel", "--source", str(self.folder))
        self.fails(ExitCode.USAGE, "--patches does not go with --source", "build-kernel", "--source", ".", "--patches",
                   ".")

    def test_test(self):
        self.fails(ExitCode.USAGE, "no label nothing", "test", "nothing")
        self.fails(ExitCode.USAGE, "--jobs must be", "test", "unit", "--jobs", "0")

    def test_a_cache_in_a_folder_that_make_refuses(self):
        self.fails(ExitCode.USAGE, "blank, colon or quote", "build-kernel", UMBRA_CACHE=str(self.folder / "a b"))


class Offline(CommandCase):
    """With an empty cache: says what is missing, one sentence, and downloads nothing."""

    def test_what_is_missing_is_named(self):
        for name in ("build-qemu", "build-kernel", "build-images"):
            self.fails(ExitCode.ENVIRONMENT, "With --offline", name, "--offline")
            self.assertFalse((self.folder / "cache/apt").exists())


class Env(CommandCase):
    NAMES = ["QEMU_SRC", "QEMU_BUILD", "QEMU_BIN", "KERNEL_STOCK", "KERNEL_PATCHED", "GUEST_INITRD", "HOST_INITRD",
             "UMBRA_PLUGIN", "UMBRA_STAT"]

    def test_with_an_empty_cache_all_is_empty(self):
        done = self.call("env")
        self.assertEqual(done.returncode, ExitCode.PASS)
        lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
        self.assertEqual(list(lines), self.NAMES)
        # The plugin and its tool lie in the tree, so they may be there.
        self.assertEqual([lines[name] for name in self.NAMES[:-2]], [""] * 7)

    def test_a_shell_can_source_it(self):
        done = subprocess.run(["sh", "-eu", "-c", f'eval "$({SCRIPTS}/env)"; echo "<$QEMU_BIN>"'], capture_output=True,
                              text=True, env=os.environ | {"UMBRA_CACHE": str(self.folder)}, check=False)
        self.assertEqual(done.stdout, "<>\n", done.stderr)

    def test_json(self):
        content = json.loads(self.call("env", "--json").stdout)
        self.assertEqual(list(content), self.NAMES)
        self.assertIsNone(content["QEMU_BIN"])


if __name__ == "__main__":
    unittest.main()
