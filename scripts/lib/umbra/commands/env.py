# SPDX-License-Identifier: GPL-2.0-or-later
"""env: prints where everything built lies, as lines that a shell can source."""

import json
import shlex

from umbra.building import products
from umbra.commands import common


def main() -> None:
    parser = common.Parser(
        prog="env", description="Prints where everything built lies, as lines that a shell can source. What is not "
        "built is empty. Builds nothing.",
        epilog='Example: eval "$(scripts/env)" && "$QEMU_BIN" --version')
    parser.add_argument("--json", action="store_true", help="print one JSON object; what is not built is null")
    arguments = parser.parse_args()
    built = {name: str(path) if path else None for name, path in products.built().items()}
    if arguments.json:
        print(json.dumps(built, indent=2))
    else:
        for name, path in built.items():
            print(f"{name}={shlex.quote(path) if path else ''}")


if __name__ == "__main__":
    common.run(main, "env")
