# SPDX-License-Identifier: GPL-2.0-or-later
"""All Python of the project is clean to mypy and to ruff, or where there is no ruff, to flake8 with ruff's rules."""

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import unittest

from umbra.project import TREE

SCRIPTS = TREE / "scripts"
FOLDERS = ("lib", "../tests")


class Lint(unittest.TestCase):
    def clean(self, *words: str) -> None:
        done = subprocess.run(words, cwd=SCRIPTS, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(done.returncode, 0, f"{words[0]}:\n{done.stdout}{done.stderr}")

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed (Debian's package mypy)")
    def test_types(self):
        self.clean(sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(TREE / "build" / "mypy"))

    def test_style(self):
        if shutil.which("ruff"):
            self.clean("ruff", "check", "--no-cache", *FOLDERS)
        elif importlib.util.find_spec("flake8"):
            self.clean(sys.executable, "-m", "flake8", *self.flake8_options(), *FOLDERS)
        else:
            self.skipTest("neither ruff nor flake8 is installed (Debian's package python3-flake8)")

    @staticmethod
    def flake8_options() -> list[str]:
        """The rules of pyproject.toml, which flake8 does not read."""
        rules = tomllib.loads((SCRIPTS / "pyproject.toml").read_text())["tool"]["ruff"]
        # W503 and W504, on which side of an operator a line breaks, exclude each other; ruff knows neither.
        return ["--isolated", f"--max-line-length={rules['line-length']}",
                f"--max-complexity={rules['lint']['mccabe']['max-complexity']}",
                f"--select={','.join(rules['lint']['select'])}", "--extend-ignore=W503,W504"]


if __name__ == "__main__":
    unittest.main()
