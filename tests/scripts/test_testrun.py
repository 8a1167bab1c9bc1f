# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command line of scripts/test runs, and how the long run's fresh Debian is set up."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra import testrun
from umbra.building import fresh_debian
from umbra.building.debian_source import Entry
from umbra.building.qemu import QemuProduct
from umbra.commands import test as command
from umbra.errors import ExitCode, UserError

ARCHIVE = Entry("http://archive.example/debian", ("bookworm",), ("main",), "/usr/share/keyrings/archive.gpg")


class Plan(unittest.TestCase):
    def plan(self, *words: str) -> list[str]:
        arguments = command.parse(words)
        return [run.describe() for run in testrun.plan(arguments.labels, arguments.filter, arguments.long)]

    def test_default_is_every_label(self):
        self.assertEqual(self.plan(), ["tests of unit, fuzz, qtest, guest"])

    def test_labels_and_a_filter(self):
        self.assertEqual(self.plan("guest", "unit", "--filter", "Iotlb"), ["tests of unit, guest named Iotlb"])

    def test_the_long_run_is_the_default_run_and_more(self):
        self.assertEqual(self.plan("--long"), [
            *self.plan(), "tests of unit named ^RandomModel with UMBRA_MODEL_STEPS=1000000",
            "tests of qtest on an unpatched QEMU",
            "in a fresh trixie: ./scripts/measure --quick, ./scripts/test"])

    def test_the_long_run_leaves_nothing_out(self):
        for words in (["unit"], ["--filter", "Iotlb"], ["--offline"]):
            errors = io.StringIO()
            with self.subTest(words), contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as caught:
                command.parse(["--long", *words])
            self.assertEqual(caught.exception.code, ExitCode.USAGE)
            self.assertIn("--long does not go with", errors.getvalue())

    def test_every_run_takes_place_whatever_failed_before(self):
        done = []

        class Run:
            def __init__(self, name: str, passes: bool):
                self.describe = lambda: name
                self.passes = lambda _jobs: done.append(name) or passes
        runs = [Run("first", False), Run("second", True), Run("third", False)]
        errors = io.StringIO()
        with mock.patch.object(command, "parse", return_value=command.parse(["--long"])), \
                mock.patch.object(testrun, "plan", return_value=runs), mock.patch.object(testrun, "prepare"), \
                mock.patch.object(fresh_debian, "check"), \
                contextlib.redirect_stderr(errors):
            self.assertEqual(command.main(), ExitCode.GUEST_FAILED)
        self.assertEqual(done, ["first", "second", "third"])
        self.assertEqual(errors.getvalue().split("\n")[:2], ["Failed: first", "Failed: third"])

    def test_a_debian_that_could_not_be_made_is_a_run_that_failed(self):
        errors = io.StringIO()
        error = UserError(ExitCode.ENVIRONMENT, "The archive cannot be reached.")
        with mock.patch.object(fresh_debian, "run", side_effect=error), contextlib.redirect_stderr(errors):
            self.assertFalse(testrun.FreshDebianRun((("true",),)).passes(1))
        self.assertEqual(errors.getvalue(), "The archive cannot be reached.\n")

    def test_the_unpatched_run_tests_what_it_built(self):
        emulator = QemuProduct(Path("/src"), Path("/build"), "10.0.13")
        with mock.patch.object(testrun.qemu, "ensure", return_value=emulator) as ensured, \
                mock.patch.object(testrun.plugin, "build") as built:
            run = testrun.UnpatchedQemuRun()._tests()
        self.assertTrue(ensured.call_args.args[0].unpatched)
        self.assertEqual(built.call_args.args[1], emulator)
        self.assertEqual(run.labels, ("qtest",))
        self.assertEqual(run.variables["UMBRA_QEMU_BIN"], "/build/qemu-system-x86_64")
        self.assertEqual(run.variables["UMBRA_PLUGIN"], str(run.folder / "umbra.so"))


class FreshDebian(unittest.TestCase):
    def test_root_needs_no_user_namespace(self):
        self.assertNotIn("--map-auto", fresh_debian.namespaces(0))
        self.assertIn("--map-auto", fresh_debian.namespaces(1000))

    def test_a_machine_that_cannot_is_told_in_a_sentence(self):
        refused = subprocess.CompletedProcess([], 1, "", "unshare: unshare failed: Operation not permitted\n")
        with mock.patch.object(fresh_debian.subprocess, "run", return_value=refused), \
                self.assertRaises(UserError) as caught:
            fresh_debian.check()
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        self.assertIn("needs root", str(caught.exception))
        self.assertIn("Operation not permitted", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_packages_come_from_the_machines_archive(self):
        self.assertEqual(fresh_debian.sources_of(ARCHIVE), """\
Types: deb
URIs: http://archive.example/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/archive.gpg
""")

    def test_a_key_inside_the_machines_sources(self):
        text = fresh_debian.sources_of(Entry("http://a.example", ("bookworm",), ("main",), "\nBEGIN\n.\nabc\nEND"))
        self.assertTrue(text.endswith("Signed-By:\n BEGIN\n .\n abc\n END\n"), text)

    def test_apt_settings_that_say_how_to_reach_an_archive(self):
        dump = ('APT "";\nAPT::Install-Recommends "false";\nAcquire "";\nAcquire::http "";\n'
                'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Date "false";\n'
                'Acquire::IndexTargets::deb::Packages::Optional "0";\nAcquire::CompressionTypes::xz "xz";\n'
                'DPkg::Post-Invoke:: "/usr/bin/true";\n')
        self.assertEqual(fresh_debian.acquire_settings(dump),
                         'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::Check-Date "false";\n')

    def test_files_that_settings_name_go_along(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file in ("key.gpg", "ca.pem", "mirrors"):
                (folder / file).touch()
            archive = Entry(f"mirror+file:{folder}/mirrors", ("bookworm",), ("main",), f"{folder}/key.gpg")
            carried = fresh_debian.carried_files(archive, f'Acquire::https::CAInfo "{folder}/ca.pem";\n'
                                                          f'Acquire::https::SslCert "{folder}/none.pem";\n')
        self.assertEqual([path for path in carried if path.is_relative_to(folder)],
                         [folder / "key.gpg", folder / "mirrors", folder / "ca.pem"])

    def test_the_tree_goes_along_without_what_is_built(self):
        with tempfile.TemporaryDirectory() as name:
            target = Path(name) / "tree"
            fresh_debian._copy_tree(target)
            self.assertTrue(os.access(target / "scripts" / "test", os.X_OK))
            self.assertFalse((target / "build").exists())
            self.assertFalse((target / ".git").exists())


if __name__ == "__main__":
    unittest.main()
