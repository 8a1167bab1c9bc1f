# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: keys, folders that appear whole or not at all, locks, the check for space."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra import cache
from umbra.errors import ExitCode, UserError


class CacheCase(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        changed = mock.patch.dict(os.environ, {"UMBRA_CACHE": scratch.name})
        changed.start()
        self.addCleanup(changed.stop)


class Root(CacheCase):
    def test_variable_wins(self):
        self.assertEqual(cache.root(), self.root)

    def test_default_is_below_xdg_cache_home(self):
        with mock.patch.dict(os.environ, {"UMBRA_CACHE": "", "XDG_CACHE_HOME": "/somewhere"}):
            self.assertEqual(cache.root(), Path("/somewhere/umbra"))

    def test_a_folder_that_make_cannot_build_in_is_refused(self):
        for name in ("/a b", "/a:b", "/a'b", "/a$b"):
            with mock.patch.dict(os.environ, {"UMBRA_CACHE": name}), self.assertRaises(UserError) as caught:
                cache.root()
            self.assertEqual(caught.exception.code, ExitCode.USAGE)


class Keys(CacheCase):
    def test_every_input_counts(self):
        keys = {cache.key_of(a=1), cache.key_of(a=2), cache.key_of(b=1), cache.key_of(a=1, b=1), cache.key_of(a=[1])}
        self.assertEqual(len(keys), 5)

    def test_order_of_inputs_does_not_count(self):
        self.assertEqual(cache.key_of(a=1, b=2), cache.key_of(b=2, a=1))

    def test_hash_of_a_tree_sees_content_name_mode_and_links(self):
        tree = self.root / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub/file").write_text("x")
        seen = {cache.hash_of_tree(tree)}
        (tree / "sub/file").write_text("y")
        seen.add(cache.hash_of_tree(tree))
        (tree / "sub/file").chmod(0o755)
        seen.add(cache.hash_of_tree(tree))
        (tree / "sub/file").rename(tree / "sub/other")
        seen.add(cache.hash_of_tree(tree))
        (tree / "link").symlink_to("sub")
        seen.add(cache.hash_of_tree(tree))
        self.assertEqual(len(seen), 5)

    def test_hash_of_a_tree_does_not_see_times(self):
        (self.root / "file").write_text("x")
        before = cache.hash_of_tree(self.root)
        os.utime(self.root / "file", (1, 1))
        self.assertEqual(cache.hash_of_tree(self.root), before)


class NewFolder(CacheCase):
    def test_appears_under_its_name_at_the_end(self):
        final = self.root / "product"
        with cache.new_folder(final) as new:
            (new / "file").write_text("whole")
            self.assertFalse(final.exists())
        self.assertEqual((final / "file").read_text(), "whole")
        self.assertEqual(list(self.root.iterdir()), [final])

    def test_a_failed_build_leaves_nothing(self):
        with self.assertRaises(RuntimeError):
            with cache.new_folder(self.root / "product") as new:
                (new / "file").write_text("half")
                raise RuntimeError
        self.assertEqual(list(self.root.iterdir()), [])

    def test_a_failed_rebuild_keeps_the_old_product(self):
        final = self.root / "product"
        with cache.new_folder(final) as new:
            (new / "file").write_text("old")
        with self.assertRaises(KeyboardInterrupt):
            with cache.new_folder(final) as new:
                raise KeyboardInterrupt
        self.assertEqual((final / "file").read_text(), "old")

    def test_replaces_an_older_product(self):
        final = self.root / "product"
        for text in ("old", "new"):
            with cache.new_folder(final) as new:
                (new / "file").write_text(text)
        self.assertEqual((final / "file").read_text(), "new")
        self.assertEqual(list(self.root.iterdir()), [final])

    def test_what_a_killed_build_left_is_swept_by_the_next(self):
        script = ("import os, signal; from pathlib import Path; from umbra import cache\n"
                  f"with cache.new_folder(Path({str(self.root / 'product')!r})) as new:\n"
                  "    (new / 'file').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n")
        subprocess.run([sys.executable, "-c", script], check=False)
        self.assertFalse((self.root / "product").exists())
        self.assertEqual(len(list(self.root.iterdir())), 1)
        with cache.new_folder(self.root / "product"):
            pass
        self.assertEqual(list(self.root.iterdir()), [self.root / "product"])


class Stamps(CacheCase):
    def test_a_folder_without_a_stamp_is_not_whole(self):
        self.assertIsNone(cache.read_stamp(self.root))

    def test_a_broken_stamp_is_none(self):
        (self.root / "product.json").write_text('{"source": ')
        self.assertIsNone(cache.read_stamp(self.root))

    def test_round_trip(self):
        cache.write_stamp(self.root, {"version": "1"})
        self.assertEqual(cache.read_stamp(self.root), {"version": "1"})


class Locks(CacheCase):
    HOLD = ("import sys; from umbra import cache\n"
            "with cache.lock('thing'):\n"
            "    print('held', flush=True); sys.stdin.read()\n")

    def test_a_second_command_waits_for_the_first(self):
        first = subprocess.Popen([sys.executable, "-c", self.HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(first.stdout.close)
        self.assertEqual(first.stdout.readline(), b"held\n")
        second = subprocess.Popen([sys.executable, "-c", self.HOLD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        self.addCleanup(second.stdout.close)
        self.addCleanup(second.stderr.close)
        self.assertIn(b"Waiting for another command that is building thing", second.stderr.readline())
        self.assertIsNone(second.poll())
        first.stdin.close()
        self.assertEqual(first.wait(60), 0)
        self.assertEqual(second.stdout.readline(), b"held\n")
        self.assertEqual(second.wait(60), 0)

    def test_a_child_that_inherited_it_keeps_it(self):
        with cache.lock("thing") as descriptor:
            child = subprocess.Popen(["sleep", "600"], pass_fds=[descriptor])
        try:
            second = subprocess.Popen([sys.executable, "-c", self.HOLD], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(second.stdout.close)
            self.addCleanup(second.stderr.close)
            self.assertIn(b"Waiting", second.stderr.readline())
        finally:
            child.kill()
            child.wait()
        self.assertEqual(second.wait(60), 0)

    def test_a_cache_that_cannot_be_written(self):
        (self.root / "locks").write_text("a file, not a folder")
        with self.assertRaises(UserError) as caught, cache.lock("thing"):
            self.fail("locked")
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)


class Space(CacheCase):
    def test_too_little_is_refused(self):
        with self.assertRaises(UserError) as caught:
            cache.need_space(1e9, "Building the moon")
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        self.assertIn("Building the moon needs", caught.exception.message)

    def test_enough_passes(self):
        cache.need_space(0, "Nothing")


class Logs(CacheCase):
    def test_the_log_before_is_kept(self):
        cache.log_file("step").write_text("first")
        log = cache.log_file("step")
        self.assertFalse(log.exists())
        self.assertEqual(log.with_suffix(".log.1").read_text(), "first")


if __name__ == "__main__":
    unittest.main()
