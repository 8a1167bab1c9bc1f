# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell functions of the agents, run without a guest: by the busybox of each Debian release, and by other awks."""

import base64
import json
import random
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from umbra.building import busybox
from umbra.building.images import OVERLAYS

AGENT = OVERLAYS / "common" / "usr" / "lib" / "umbra" / "agent.sh"
GUEST = OVERLAYS / "guest" / "usr" / "lib" / "umbra" / "guest.sh"
FIO = OVERLAYS / "guest" / "usr" / "lib" / "umbra" / "fio.sh"

# Printable characters that JSON, awk's replacement texts or the shell treat in a way of their own, among others.
LINE_ALPHABET = "\\\\\\\"\"&/$`'.*%[]{} \tabcnrtu0"
TEXTS = ["", ".", "\\", "\"", "&", "\\&", "\\\\&", "\\\"", "\t", "\\t", "a\tb", "\t\t", "C:\\new\\table",
         '{"a":"\\u0041"}',
         *("".join(random.Random(seed).choices(LINE_ALPHABET, k=seed % 60)) for seed in range(200))]


def long_texts() -> list[str]:
    lines = "tab\there, \"quoted\", back\\slash & dot.\n" * 100
    return [lines + end for end in ("", "no line's end", "\n\n", ".\n", ".", "\\", "\t", "\n\t\n")] + \
        ["\n".join(TEXTS), "\n" * 20, ""]


class Shell:
    """A shell whose programs are those in `folder` alone."""

    def __init__(self, words: list, folder: Path):
        self._words = words
        self._folder = folder

    def run(self, script: str, *arguments: str, text: bytes = b"") -> str:
        """Standard output of a script that has agent.sh's functions, with `text` as standard input."""
        done = subprocess.run([*self._words, "-c", f". {AGENT}\n{script}", "sh", *arguments], input=text,
                              env={"PATH": str(self._folder)}, capture_output=True, timeout=60, check=False)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(f"status {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()


def programs_folder(case: unittest.TestCase) -> Path:
    folder = tempfile.TemporaryDirectory()
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


class Busybox(unittest.TestCase):
    """What must be the same with each busybox. Subclasses say which one."""

    release = ""

    @classmethod
    def setUpClass(cls):
        cls.program = busybox.find(cls.release)
        if cls.program is None:
            raise unittest.SkipTest(f"There is no busybox of {cls.release}; scripts/test unit installs or fetches it.")

    def setUp(self):
        folder = programs_folder(self)
        subprocess.run([self.program, "--install", "-s", folder], check=True)
        self.shell = Shell([self.program, "sh"], folder)
        self.work = programs_folder(self)

    # --- time ---

    def run_at(self, uptime: str, script: str) -> str:
        (self.work / "uptime").write_text(f"{uptime} 0.00\n")
        return self.shell.run(f"UPTIME_FILE={self.work}/uptime\n{script}")

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

    # --- text ---

    def test_text_as_a_json_string(self):
        for text in long_texts():
            self.assertEqual(json.loads(self.shell.run("json_text", text=text.encode())), text)

    def test_bytes_as_a_json_string(self):
        for data in (bytes(range(256)), b"", b"\n", b'\\"&\t', b"\\\\&" * 100):
            self.assertEqual(json.loads(self.shell.run("json_bytes", text=data)), data.decode("latin-1"))

    def test_one_line_as_a_json_string(self):
        values = self.shell.run('for value; do json_string "$value"; echo; done', *TEXTS)
        self.assertEqual([json.loads(value) for value in values.splitlines()], TEXTS)

    def test_a_file_as_a_json_string(self):
        file = self.work / "file"
        for data in [text.encode() for text in long_texts()] + [bytes(range(256)) * 20]:
            file.write_bytes(data)
            for limit in (100, 65536):
                text = json.loads(self.shell.run(f"json_file {file} {limit}"))
                self.assertEqual(text, data[:limit].decode("latin-1"))

    def test_a_script_and_its_output_as_base64(self):
        data = bytes(range(256)) * 50
        text = self.shell.run("base64 -d | base64 -w 0 | base64 -d | od -An -v -tx1", text=base64.encodebytes(data))
        self.assertEqual(bytes.fromhex(text), data)

    def test_fio_report_by_paths(self):
        (self.work / "report.json").write_text("""{
  "fio version" : "fio-3.33",
  "jobs" : [
    {
      "jobname" : "a \\"b\\"",
      "error" : 0,
      "read" : {
        "iops" : 1234.5,
        "clat_ns" : {
          "percentile" : {
            "50.000000" : 7,
            "99.900000" : 8
          }
        }
      },
      "write" : {
        "total_ios" : 0
      }
    }
  ]
}
""")
        lines = self.shell.run(f". {FIO}\nWORK={self.work}\nfio_flatten").splitlines()
        for line in ("jobs.error 0", "jobs.read.iops 1234.5", "jobs.read.clat_ns.percentile.50.000000 7",
                     "jobs.read.clat_ns.percentile.99.900000 8", "jobs.write.total_ios 0"):
            self.assertIn(line, lines)


class BusyboxOfDebian12(Busybox):
    release = "bookworm"


class BusyboxOfDebian13(Busybox):
    release = "trixie"


# The class that both derive from is no test of its own.
del Busybox


class OtherAwks(unittest.TestCase):
    """Of what awk standards leave open, the programs use nothing; a busybox to come may be as any of these."""

    def test_text_as_a_json_string(self):
        for awk in ("mawk", "gawk", "original-awk"):
            path = shutil.which(awk)
            with self.subTest(awk):
                if path is None:
                    self.skipTest(f"There is no {awk}.")
                folder = programs_folder(self)
                for name, target in (("awk", path), ("cat", "/bin/cat"), ("od", "/usr/bin/od")):
                    (folder / name).symlink_to(target)
                shell = Shell(["/bin/sh"], folder)
                for text in long_texts():
                    self.assertEqual(json.loads(shell.run("json_text", text=text.encode())), text)
                    self.assertEqual(json.loads(shell.run("json_bytes", text=text.encode())), text)


if __name__ == "__main__":
    unittest.main()
