# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of the testbed host's answers, of late ones and of none; and counting in a log that grows."""

import json
import os
import tempfile
import time
import unittest
from pathlib import Path

from umbra.errors import ExitCode, UserError
from umbra.vm.event_log import EventLog
from umbra.vm.host_agent import HostAgent
from umbra.vm.ports import Port, PortTimeout

AT_ONCE = 0.01


class Answers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        port = Port.open_fifos(Path(folder.name) / "host.port")
        self.agent = HostAgent(port)
        self.addCleanup(self.agent.close)
        self.peer = os.open(f"{folder.name}/host.port.out", os.O_WRONLY)
        self.addCleanup(os.close, self.peer)

    def answer(self, command: str, status: int = 0, **fields) -> None:
        line = json.dumps({"event": "result", "command": command, "status": status, **fields})
        os.write(self.peer, line.encode() + b"\n")

    def job(self) -> int | None:
        return self.agent.job_exit_status("qemu", AT_ONCE)

    def test_a_job_that_ended(self):
        for status in (0, 1, 143):
            self.answer("job", running=False, exit_status=status)
            self.assertEqual(self.job(), status)

    def test_a_job_that_runs(self):
        self.answer("job", running=True, exit_status=None)
        self.assertIsNone(self.job())

    def test_no_answer_is_no_end(self):
        self.assertIsNone(self.job())

    def test_an_answer_that_does_not_say_is_no_end(self):
        self.answer("job", status=4, error="no job qemu")
        self.assertIsNone(self.job())
        self.answer("job", running=False, exit_status=None)
        self.assertIsNone(self.job())

    def test_a_late_answer_to_another_command_is_no_end(self):
        with self.assertRaises(PortTimeout):
            self.agent.ask("run 1 AAAA", AT_ONCE)
        self.answer("run", exit_status=0, elapsed_seconds=9.5)
        self.answer("job", running=True, exit_status=None)
        self.assertIsNone(self.job())

    def test_each_command_gets_its_own_answer_however_late_others_are(self):
        for script in ("AAAA", "BBBB"):
            with self.assertRaises(PortTimeout):
                self.agent.ask(f"run 1 {script}", AT_ONCE)
        for text in ("first", "second", "third"):
            self.answer("run", stdout=text)
        self.assertEqual(self.agent.ask("run 1 CCCC", AT_ONCE)["stdout"], "third")
        self.answer("run", stdout="fourth")
        self.assertEqual(self.agent.ask("run 1 DDDD", AT_ONCE)["stdout"], "fourth")

    def test_a_line_that_is_no_json_ends_the_wait_at_once(self):
        later = time.monotonic() + 600
        for wait, where in ((lambda: self.agent.ready(later), "boot"),
                            (lambda: self.agent.ask("run 1 AAAA", 600), "run")):
            with self.subTest(where):
                os.write(self.peer, b'{"event":"result","stdout":"a"bare quote"}\n')
                with self.assertRaises(UserError) as caught:
                    wait()
                self.assertEqual(caught.exception.code, ExitCode.ENVIRONMENT)
                self.assertIn(f"({where})", str(caught.exception))
                self.assertIn('"a"bare quote"}', str(caught.exception))


class Log(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "trace.log"
        self.log = EventLog(self.path, {"flush_all": "all", "flush_page": "page"})

    def append(self, text: str) -> None:
        with open(self.path, "a") as log:
            log.write(text)

    def test_no_log_yet(self):
        self.assertEqual(self.log.totals(), {"all": 0, "page": 0})

    def test_lines_are_counted_once_and_when_they_are_whole(self):
        self.append("flush_all\nflush_page 0x1000\nother flush_all\n\nflush_pa")
        self.assertEqual(self.log.totals(), {"all": 1, "page": 1})
        self.append("ge 0x2000\n")
        self.assertEqual(self.log.totals(), {"all": 1, "page": 2})
        self.assertEqual(self.log.totals(), {"all": 1, "page": 2})


if __name__ == "__main__":
    unittest.main()
