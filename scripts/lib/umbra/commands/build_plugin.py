# SPDX-License-Identifier: GPL-2.0-or-later
"""build-plugin: builds the plugin, its tools and tests."""

from umbra.building import plugin
from umbra.building.plugin import PluginOptions
from umbra.commands import common


def main() -> None:
    parser = common.Parser(
        prog="build-plugin", description="Builds the plugin, its tools and tests in build/release, after QEMU.",
        epilog="Example: scripts/build-plugin --werror")
    parser.add_argument("--werror", action="store_true",
                        help="warnings are errors, with the g++ of Debian 12 or 13 (default: off)")
    common.add_common_options(parser)
    arguments = parser.parse_args()
    print(plugin.ensure(PluginOptions(werror=arguments.werror, offline=arguments.offline, update=arguments.update),
                        ("all",)))


if __name__ == "__main__":
    common.run(main, "build-plugin")
