# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages of the library use each other one way, and no command uses another."""

import ast
import unittest

from umbra.project import TREE

LIBRARY = TREE / "scripts" / "lib" / "umbra"

# A package uses itself and what stands before it. Modules that are in no package are the first layer.
LAYERS = ("", "building", "vm", "measuring", "bench", "regress", "testrun", "commands")


def layer_of(module: str) -> str:
    """`umbra.vm.host` is of `vm`, `umbra.cache` of ""."""
    words = module.split(".")
    return words[1] if len(words) > 1 and words[1] in LAYERS else ""


def modules() -> dict[str, set[str]]:
    """Each module of the library, and those that it imports."""
    found = {}
    for path in LIBRARY.rglob("*.py"):
        name = ".".join(["umbra", *path.relative_to(LIBRARY).with_suffix("").parts]).removesuffix(".__init__")
        used = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "umbra":
                folder = LIBRARY.joinpath(*(node.module or "").split(".")[1:])
                used |= {f"{node.module}.{alias.name}" if folder.is_dir() else str(node.module) for alias in node.names}
        found[name] = used
    return found


class Layers(unittest.TestCase):
    def test_packages_use_what_stands_before_them(self):
        for module, used in modules().items():
            for other in used:
                self.assertLessEqual(LAYERS.index(layer_of(other)), LAYERS.index(layer_of(module)),
                                     f"{module} imports {other}")

    def test_no_command_uses_another(self):
        for module, used in modules().items():
            if layer_of(module) == "commands":
                commands = {other for other in used if layer_of(other) == "commands"}
                self.assertLessEqual(commands, {"umbra.commands.common"}, module)

    def test_no_circles(self):
        waiting = modules()
        while waiting:
            free = [name for name, used in waiting.items() if not used & waiting.keys()]
            self.assertTrue(free, f"these import each other: {sorted(waiting)}")
            for name in free:
                del waiting[name]


if __name__ == "__main__":
    unittest.main()
