# SPDX-License-Identifier: GPL-2.0-or-later
"""Long steps: the log, step counts, failures, and that no child is left behind."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from umbra import progress
from umbra.errors import ExitCode, UserError


class Run(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.log = Path(scratch.name) / "logs" / "step.log"

    def run_step(self, *command: str) -> str:
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            progress.run("Doing it", command, self.log)
        return shown.getvalue()

    def test_output_goes_to_the_log_only(self):
        shown = self.run_step("sh", "-c", "echo to-stdout; echo to-stderr >&2")
        self.assertNotIn("to-std", shown)
        self.assertIn("to-stdout\n", self.log.read_text())
        self.assertIn("to-stderr\n", self.log.read_text())

    def test_start_and_end_are_shown_in_a_pipe(self):
        self.assertEqual(self.run_step("true").splitlines(), ["Doing it …", "Doing it: done after 0 s"])

    def test_failure_names_the_log_and_shows_its_end(self):
        with self.assertRaises(progress.StepFailed) as caught:
            self.run_step("sh", "-c", "echo the reason; exit 7")
        self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
        for part in ("status 7", str(self.log), "the reason"):
            self.assertIn(part, str(caught.exception))

    def test_the_reason_is_shown_though_much_output_follows_it(self):
        with self.assertRaises(progress.StepFailed) as caught:
            self.run_step("sh", "-c", "echo a.c:1: error: no such thing; seq 1000; exit 1")
        self.assertIn("a.c:1: error: no such thing", caught.exception.output)
        self.assertIn("1000", caught.exception.output)
        self.assertNotIn("500", caught.exception.output)

    def test_a_program_that_does_not_exist(self):
        with self.assertRaises(UserError) as caught:
            self.run_step("/no/such/program")
        self.assertIn("/no/such/program", str(caught.exception))

    def test_a_program_cannot_read_the_terminal(self):
        self.run_step("sh", "-c", "! read line")

    def test_interruption_ends_the_whole_group(self):
        script = ("import sys; from pathlib import Path\nfrom umbra import progress\n"
                  "from umbra.commands import common\n"
                  "common.run(lambda: progress.run('x', ['sh', '-c', 'sleep 600 & echo $! >&3; wait'], "
                  f"Path({str(self.log)!r}), keep_open=[3]), 'x')\n")
        reader, writer = os.pipe()
        with open(reader, encoding="ascii") as pids:
            # The shell writes the process's id to descriptor 3, which it inherits.
            words = ["sh", "-c", f"exec 3>&{writer}; exec \"$@\"", "sh", sys.executable, "-c", script]
            process = subprocess.Popen(words, pass_fds=[writer], stderr=subprocess.DEVNULL)
            os.close(writer)
            self.assertTrue(int(pids.readline()))
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 128 + signal.SIGINT)
            # End of file: no process has the pipe any more, the sleeper included.
            self.assertEqual(pids.read(), "")

    def test_interruption_while_the_program_is_being_started(self):
        started = []
        real = subprocess.Popen

        def start_and_signal(*words, **settings):
            started.append(real(*words, **settings))
            os.kill(os.getpid(), signal.SIGTERM)
            return started[0]

        def interrupt(*_):
            raise KeyboardInterrupt

        self.addCleanup(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, interrupt))
        with mock.patch("subprocess.Popen", start_and_signal), self.assertRaises(KeyboardInterrupt):
            self.run_step("sleep", "600")
        self.assertEqual(started[0].wait(60), -signal.SIGTERM)
        started[0].stdout.close()


class Steps(unittest.TestCase):
    def test_ninja_tells_count_and_total(self):
        display = progress.Display("x")
        display.read_line(b"[12/340] Compiling C object a.o\n")
        self.assertEqual((display.count, display.total), (12, 340))

    def test_kernel_lines_are_counted(self):
        display = progress.Display("x")
        for line in (b"  CC      mm/slab.o\n", b"  CC [M]  a.o\n", b"make[1]: Entering\n", b"  LD      vmlinux\n",
                     b"\n"):
            display.read_line(line)
        self.assertEqual((display.count, display.total), (3, 0))


class Durations(unittest.TestCase):
    def test_words(self):
        self.assertEqual([progress.duration(s) for s in (0, 59.9, 60, 3599)],
                         ["0 s", "59 s", "1 min 00 s", "59 min 59 s"])


if __name__ == "__main__":
    unittest.main()
