# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of the kernel's source, and builds in them.

Trees live in the cache. A stock tree is one source version with one configuration; a patched tree is a copy of it that
follows a patch series (umbra.building.patches).
"""

import json
import shutil
from pathlib import Path

from umbra import cache, progress
from umbra.building import debian_source, patches
from umbra.building.environment import environment, jobs
from umbra.building.kernel_config import (GUEST_MODULE, IDENTITY, KernelOptions, all_fragments, check_configuration,
                                          compiler, configuration_key, local_version, patches_of_kconfig)
from umbra.building.kernel_image import check_bzimage, is_kunit_module
from umbra.errors import ExitCode, UserError

SOURCE_PACKAGE = "linux-source-6.12"
# Title of the step that fails if a kernel does not compile.
BUILDING = "Building Linux"
GIGABYTES = 4.0
_BENCHMARK = "tools/testing/selftests/dma/dma_map_benchmark.c"


def home() -> Path:
    return cache.root() / "kernel"


def obtain_source(options: KernelOptions, log: Path) -> tuple[str, Path]:
    """Version and tarball of the kernel source. Called with the lock held."""
    sources = cache.root() / "sources"
    present = {path.parent.name.removeprefix("linux-"): path for path in sources.glob("linux-*/*.tar.*")}
    if present and not options.update:
        newest = max(present, key=debian_source.version_order)
        return newest, present[newest]
    if options.offline:
        raise UserError(ExitCode.ENVIRONMENT, f"With --offline, the kernel source is missing in {cache.root()}.",
                        "Run scripts/build-kernel with a network, or give --source.")
    cache.need_space(GIGABYTES, "Building a kernel")

    def use(suite: debian_source.Suite, version: str) -> Path:
        final = sources / f"linux-{debian_source.upstream_version(version)}"
        if not final.is_dir():
            with cache.new_folder(final) as new:
                deb = suite.fetch_package(SOURCE_PACKAGE, version, new, log)
                progress.run("Unpacking the kernel source package", ["dpkg", "-x", deb, new / "x"], log)
                for tarball in (new / "x/usr/src").glob("linux-source-*.tar.*"):
                    tarball.rename(new / tarball.name)
                cache.remove(new / "x")
                deb.unlink()
        return next(final.glob("linux-source-*.tar.*"))

    suites = (f"{debian_source.codename()}-security", "trixie")
    version, tarball = debian_source.fetch(SOURCE_PACKAGE, ("6.12",), suites, "deb", log, use)
    return debian_source.upstream_version(version), tarball


def stock_tree(version: str, tarball: Path, options: KernelOptions, log: Path) -> Path:
    """The unpatched source tree for this version and configuration; built in by build_in."""
    tree = home() / "trees" / f"{version}-{cache.key_of(**configuration_key(options))}"
    if not tree.is_dir():
        cache.need_space(GIGABYTES, "A kernel tree")
        with cache.new_folder(tree) as new:
            progress.run("Unpacking the kernel source",
                         ["tar", "-C", new, "--strip-components=1", "--no-same-owner", "-xf", tarball], log)
    return tree


def patched_tree(stock: Path, folder: Path, log: Path) -> Path:
    """A copy of the stock tree with the series in `folder` applied. The stock tree of the usual configuration is built
    first, so the copy is nearly built; with further fragments nobody asks for the stock kernel."""
    series = patches.series(folder)
    tree = stock.with_name(f"{stock.name}-{cache.key_of(series=folder)}")
    if not tree.is_dir():
        cache.need_space(GIGABYTES, "A patched kernel tree")
        # A series that does not apply is found out before the long part.
        with cache.new_folder(tree.with_name(tree.name + "-trial")) as trial:
            patches.apply(series, stock, trial, log)
        cache.remove(tree.with_name(tree.name + "-trial"))
        with cache.new_folder(tree) as new:
            progress.run("Copying the kernel tree", ["cp", "-a", "--reflink=auto", f"{stock}/.", new], log)
    patches.apply(series, stock, tree, log)
    return tree


def _make_command(source: Path, output: Path, local_version: str) -> list[str]:
    words = ["make", f"-j{jobs()}", "-C", str(source), f"LOCALVERSION={local_version}"]
    return words if output == source else words + [f"O={output}"]


def build_in(source: Path, output: Path, options: KernelOptions, log: Path, lock: int) -> None:
    """Configures and builds image and modules in `output`; takes up an interrupted build."""
    make = _make_command(source, output, local_version(options))
    variables = environment(**IDENTITY)
    wanted = output / ".umbra-config"
    fragments = all_fragments(options)
    text = "".join(path.read_text() for path in fragments) + "".join(patches_of_kconfig(options))
    if not wanted.exists() or wanted.read_text() != text or not (output / ".config").exists():
        wanted.unlink(missing_ok=True)
        progress.run("Configuring the kernel", [*make, "allnoconfig"], log, env=variables, keep_open=[lock])
        progress.run("Merging the fragments",
                     [source / "scripts/kconfig/merge_config.sh", "-m", "-O", output, output / ".config", *fragments],
                     log, cwd=output, env=variables)
        progress.run("Resolving the configuration", [*make, "olddefconfig"], log, env=variables, keep_open=[lock])
        check_configuration(output / ".config", options)
        cache.write_atomically(wanted, text)
    progress.run(f"{BUILDING} ({source.name})", [*make, "bzImage", "modules"], log, env=variables,
                 keep_open=[lock])


def collect(source: Path, output: Path, folder: Path, options: KernelOptions, log: Path) -> None:
    """Copies what VMs need into the product folder, and builds what goes with this very kernel."""
    with cache.new_folder(folder) as new:
        for path, name in (("arch/x86/boot/bzImage", "bzImage"), (".config", "config"), ("System.map", "System.map"),
                           ("Module.symvers", "Module.symvers")):
            shutil.copyfile(output / path, new / name)
        check_bzimage(new / "bzImage")
        order = output / "modules.order"
        for line in order.read_text().split() if order.exists() else ():
            module = output / Path(line).with_suffix(".ko")
            into = new / "kunit" if is_kunit_module(module) else new
            into.mkdir(exist_ok=True)
            shutil.copyfile(module, into / module.name)
        _build_guest_module(source, output, new, options, log)
        if (source / _BENCHMARK).exists():
            # -idirafter: only the kernel's own map_benchmark.h comes from the tree, everything else from libc.
            progress.run("Building dma_map_benchmark",
                         ["gcc", "-O2", "-static", "-idirafter", source / "include", "-o", new / "dma_map_benchmark",
                          source / _BENCHMARK], log, env=environment())
        release = (output / "include/config/kernel.release").read_text().strip()
        info = {"version": release, "key": folder.name, "fragments": [path.name for path in all_fragments(options)],
                "patches": [patch.name for patch in patches.series(options.patches)] if options.patches else [],
                "modules": sorted(path.name for path in new.glob("*.ko")), "compiler": compiler(),
                "tree": str(output)}
        (new / "build-info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")


def _build_guest_module(source: Path, output: Path, into: Path, options: KernelOptions, log: Path) -> None:
    """Builds the test module of tests/guest/module in a copy, so that the project's tree stays clean."""
    if not GUEST_MODULE.is_dir():
        return
    area = into / "module-build"
    shutil.copytree(GUEST_MODULE, area)
    make = _make_command(source, output, local_version(options))
    progress.run("Building the guest's test module", [*make, f"M={area}", "modules"], log,
                 env=environment(**IDENTITY))
    built = list(area.rglob("*.ko"))
    if not built:
        raise UserError(ExitCode.ENVIRONMENT, f"{GUEST_MODULE} built no module.", f"The log is {log}.")
    for module in built:
        shutil.copyfile(module, into / module.name)
    cache.remove(area)
