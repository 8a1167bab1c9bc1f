# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell functions that both agents share, run by busybox's shell and programs as in a guest, without a guest."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from umbra.images import BUSYBOX, OVERLAYS

AGENT = OVERLAYS / "common" / "usr" / "lib" / "umbra" / "agent.sh"
GUEST = OVERLAYS / "guest" / "usr" / "lib" / "umbra" / "guest.sh"


class Shell:
    """A busybox whose programs are the only ones in PATH."""

    def __init__(self, busybox: Path, links: Path):
        self._busybox = busybox
        self._links = links
        subprocess.run([busybox, "--install", "-s", links], check=True)

    def run(self, script: str, *arguments: str, text: bytes = b"") -> str:
        """Standard output of a script that has agent.sh's functions, with `text` as standard input."""
        done = subprocess.run([self._busybox, "sh", "-c", f". {AGENT}\n{script}", "sh", *arguments], input=text,
                              env={"PATH": str(self._links)}, capture_output=True, timeout=60, check=False)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(f"status {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()


@unittest.skipUnless(BUSYBOX.exists(), f"There is no {BUSYBOX}; it is in Debian's package busybox-static.")
class Time(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.uptime = Path(folder.name) / "uptime"
        links = Path(folder.name) / "bin"
        links.mkdir()
        self.shell = Shell(BUSYBOX, links)

    def run_at(self, uptime: str, script: str) -> str:
        self.uptime.write_text(f"{uptime} 0.00\n")
        return self.shell.run(f"UPTIME_FILE={self.uptime}\n{script}")

    def test_time_since_boot_in_hundredths_of_a_second(self):
        for uptime, hundredths in (("0.00", "0"), ("0.08", "8"), ("0.10", "10"), ("0.98", "98"), ("00.05", "5"),
                                   ("1.00", "100"), ("9.09", "909"), ("12345.67", "1234567")):
            with self.subTest(uptime):
                self.assertEqual(self.run_at(uptime, 'read_uptime; echo "$UPTIME $UPTIME_SECONDS"'),
                                 f"{hundredths} {uptime}\n")

    def test_time_between_two_moments(self):
        for before, after, seconds in (("0.08", "0.98", "0.90"), ("0.10", "0.19", "0.09"), ("0.98", "2.05", "1.07"),
                                       ("0.00", "100.00", "100.00"), ("0.09", "0.09", "0.00")):
            with self.subTest(f"{before} to {after}"):
                text = self.run_at(before, f'read_uptime; before=$UPTIME; echo "{after} 0.00" >$UPTIME_FILE\n'
                                           "seconds_since $before")
                self.assertEqual(text, seconds)

    def test_numbers_that_a_command_gives_have_no_leading_zeros(self):
        for text, known in (("1", True), ("10", True), ("010", False), ("08", False), ("00", False)):
            with self.subTest(text):
                done = self.shell.run(f". {GUEST}\nis_number {text} 0 100 && is_size {text}k 0 102400 || echo refused")
                self.assertEqual(done, "" if known else "refused\n")


if __name__ == "__main__":
    unittest.main()
