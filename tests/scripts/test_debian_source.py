# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading APT's configuration, and choosing among versions and suites."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra.building import debian_source
from umbra.building.debian_source import Entry, NotAvailable
from umbra.errors import ExitCode, UserError

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /keys/archive.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: mirror+file:/etc/apt/mirrors/security.list
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


class AptCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        (self.folder / "sources.list.d").mkdir()
        for name, value in (("APT_FOLDER", self.folder), ("codename", lambda: "bookworm")):
            self.enterContext(mock.patch.object(debian_source, name, value))


class Reading(AptCase):
    def test_deb822(self):
        (self.folder / "sources.list.d/debian.sources").write_text(DEB822)
        archive, security = debian_source.machine_entries()
        self.assertEqual(archive, Entry("http://archive.example/debian", ("bookworm", "bookworm-updates"),
                                        ("main", "contrib"), "/keys/archive.gpg"))
        self.assertEqual(security.uri, "mirror+file:/etc/apt/mirrors/security.list")
        self.assertIn("abc", security.signed_by)

    def test_one_line_style(self):
        text = ("# deb http://comment.example/ x main\n"
                "deb [arch=amd64 signed-by=/keys/a.gpg] http://archive.example/debian bookworm main contrib # why\n"
                "deb-src [signed-by=/keys/a.gpg] http://archive.example/debian bookworm main\n"
                "deb http://plain.example/debian trixie main\n")
        (self.folder / "sources.list").write_text(text)
        self.assertEqual(debian_source.machine_entries(), [
            Entry("http://archive.example/debian", ("bookworm",), ("main", "contrib"), "/keys/a.gpg"),
            Entry("http://plain.example/debian", ("trixie",), ("main",), "")])

    def test_what_apt_refuses_is_told(self):
        (self.folder / "sources.list").write_text("deb nonsense\n")
        with self.assertRaisesRegex(NotAvailable, "Malformed"):
            debian_source.machine_entries()


class Archives(AptCase):
    def test_suites_come_from_the_archive_of_their_kind(self):
        (self.folder / "sources.list.d/debian.sources").write_text(DEB822)
        self.assertEqual(debian_source.archive_for("trixie").uri, "http://archive.example/debian")
        self.assertTrue(debian_source.archive_for("bookworm-security").uri.startswith("mirror+file:"))

    def test_files_with_other_endings_are_not_read(self):
        (self.folder / "sources.list.d/debian.sources.disabled").write_text(DEB822)
        with self.assertRaises(NotAvailable):
            debian_source.archive_for("trixie")

    def test_a_machine_without_a_security_suite_takes_what_its_main_suite_has(self):
        (self.folder / "sources.list").write_text("deb http://archive.example/debian bookworm main\n")
        with self.assertRaisesRegex(NotAvailable, "bookworm-security"):
            debian_source.archive_for("bookworm-security")
        self.assertEqual(debian_source.archive_for("trixie").uri, "http://archive.example/debian")


class Versions(unittest.TestCase):
    def test_upstream(self):
        for version, upstream in (("1:10.0.13+ds-0+deb13u1", "10.0.13"), ("6.12.117-1~deb12u1", "6.12.117"),
                                  ("1.7.0-1~bpo12+1", "1.7.0"), ("1:10.2.2+ds-1", "10.2.2")):
            self.assertEqual(debian_source.upstream_version(version), upstream)

    def test_a_branch_matches_whole_numbers(self):
        self.assertTrue(debian_source.matches("1:10.0.13+ds-1", "10.0"))
        self.assertTrue(debian_source.matches("1:10.0.13+ds-1", "10.0.13"))
        self.assertTrue(debian_source.matches("1:10.2.2+ds-1", "10"))
        self.assertFalse(debian_source.matches("1:10.0.13+ds-1", "10.0.1"))
        self.assertFalse(debian_source.matches("1:7.2+dfsg-7", "10.0"))

    def test_order_is_by_number(self):
        versions = ["6.12.9-1", "6.12.117-1", "6.12.115-2", "6.12.115-1"]
        self.assertEqual(sorted(versions, key=debian_source.version_order),
                         ["6.12.9-1", "6.12.115-1", "6.12.115-2", "6.12.117-1"])

    def test_a_tilde_comes_before_nothing(self):
        self.assertLess(debian_source.version_order("6.12.117-1~deb12u1"), debian_source.version_order("6.12.117-1"))


class FakeSuite:
    CONTENT = {"one": ["1:7.2-1"], "two": ["1:10.0.13-1"], "three": ["1:10.2.2-1"]}

    def __init__(self, name, kind):
        self.name = name

    def update(self, log):
        if self.name == "unreachable":
            raise NotAvailable("the list of unreachable cannot be fetched")

    def versions(self, package):
        return self.CONTENT[self.name]


class Candidates(unittest.TestCase):
    def fetch(self, wanted, suites, use=lambda suite, version: Path(suite.name)):
        shown = io.StringIO()
        with mock.patch.object(debian_source, "Suite", FakeSuite), contextlib.redirect_stderr(shown):
            return *debian_source.fetch("qemu", wanted, suites, "deb-src", Path("/log"), use), shown.getvalue()

    def test_the_first_suite_with_a_wanted_version(self):
        version, place, shown = self.fetch(["10.0"], ["one", "two", "three"])
        self.assertEqual((version, place), ("1:10.0.13-1", Path("two")))
        self.assertIn("one has no qemu 10.0; trying the next candidate", shown)

    def test_a_suite_that_is_named_twice_is_tried_once(self):
        shown = self.fetch(["10.0"], ["one", "one", "two"])[2]
        self.assertEqual(shown.count("one has no qemu 10.0"), 1)

    def test_a_listed_version_that_cannot_be_fetched_leads_to_the_next(self):
        def use(suite, version):
            if suite.name == "two":
                raise NotAvailable("404")
            return Path(suite.name)
        self.assertEqual(self.fetch(["10.0", "10"], ["two", "three"], use)[:2], ("1:10.2.2-1", Path("three")))

    def test_none_is_one_error_with_every_reason(self):
        with self.assertRaises(UserError) as caught:
            self.fetch(["11"], ["unreachable", "two"])
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        self.assertIn("unreachable cannot be fetched", caught.exception.message)
        self.assertIn("two has no qemu 11", caught.exception.message)


if __name__ == "__main__":
    unittest.main()
