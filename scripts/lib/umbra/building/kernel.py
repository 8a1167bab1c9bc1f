# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds Linux for guests and for the testbed host: `allnoconfig` plus the fragments in qemu-configs/kernel/.

Trees live in the cache. A stock tree is one source version with one configuration; a patched tree is a copy of it that
follows a patch series (umbra.building.patches). What the VMs need is copied out of a tree into a product folder:

    bzImage  config  System.map  Module.symvers  *.ko  kunit/*.ko  dma_map_benchmark  build-info.json
"""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

from umbra import cache, progress
from umbra.building import debian_source, packages, patches
from umbra.building.environment import environment, jobs
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

FRAGMENTS = TREE / "qemu-configs" / "kernel"
DEFAULT_FRAGMENTS = ("base", "vfio-host", "guest")
SERIES = TREE / "guest-kernel-patches" / "linux-6.12"
GUEST_MODULE = TREE / "tests" / "guest" / "module"

# What only a kernel with a series can have. A series need not have all of it.
SERIES_FRAGMENT = FRAGMENTS / "series.config"

SOURCE_PACKAGE = "linux-source-6.12"
# Title of the step that fails if a kernel does not compile.
BUILDING = "Building Linux"
_RECIPE = 1
_GIGABYTES = 4.0
_BENCHMARK = "tools/testing/selftests/dma/dma_map_benchmark.c"
# Fixed, so that the same input gives the same image.
_IDENTITY = {"KBUILD_BUILD_USER": "umbra", "KBUILD_BUILD_HOST": "umbra", "KBUILD_BUILD_VERSION": "1",
             "KBUILD_BUILD_TIMESTAMP": "2024-11-17 00:00:00 UTC"}


@dataclasses.dataclass(frozen=True)
class KernelOptions:
    """`patches`: folder of a series. `fragments`: further ones. `source`: a tree of the user's own, never written to."""
    patches: Path | None = None
    fragments: tuple[Path, ...] = ()
    source: Path | None = None
    update: bool = False
    offline: bool = False

    @staticmethod
    def patched(**options) -> "KernelOptions":
        return KernelOptions(patches=SERIES, **options)


@dataclasses.dataclass(frozen=True)
class KernelProduct:
    folder: Path

    @property
    def bzimage(self) -> Path:
        return self.folder / "bzImage"

    @property
    def modules(self) -> list[Path]:
        return sorted(self.folder.glob("*.ko"))

    @property
    def kunit_modules(self) -> list[Path]:
        """KUnit and its tests. They are apart because loading them runs them, which no other VM wants."""
        return sorted((self.folder / "kunit").glob("*.ko"))

    @property
    def benchmark(self) -> Path:
        """dma_map_benchmark, the statically linked user-space half of the kernel's benchmark."""
        return self.folder / "dma_map_benchmark"

    @property
    def version(self) -> str:
        """The release, as `uname -r` in the guest says it."""
        return self.info["version"]

    @property
    def info(self) -> dict:
        return json.loads((self.folder / "build-info.json").read_text())


def check_bzimage(path: Path) -> None:
    """Raises UserError unless the file is an x86 kernel image that QEMU's -kernel takes."""
    try:
        with open(path, "rb") as file:
            head = file.read(0x206)
    except OSError as error:
        raise UserError(ExitCode.USAGE, f"The kernel {path} cannot be read: {error.strerror}.") from None
    # Linux: Documentation/arch/x86/boot.rst, fields boot_flag and header
    if head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        raise UserError(ExitCode.USAGE, f"{path} is no x86 kernel image (bzImage).",
                        "Give arch/x86/boot/bzImage of a kernel build.")


def is_kunit_module(module: Path) -> bool:
    """True for KUnit itself and for modules that depend on it, as .modinfo says."""
    return module.stem == "kunit" or bool(re.search(rb"\0depends=(?:[\w,]*,)?kunit[,\0]", module.read_bytes()))


def check_source(source: Path) -> None:
    """Raises UserError unless the folder is a Linux source tree that can be built somewhere else."""
    if not (source / "Kbuild").is_file() or not (source / "scripts/kconfig/merge_config.sh").is_file():
        raise UserError(ExitCode.USAGE, f"{source} holds no Linux source tree.")
    if (source / ".config").exists() or (source / "include/config").exists():
        raise UserError(ExitCode.USAGE, f"{source} was built in place, so it cannot be built elsewhere.",
                        f"Run: make -C {source} mrproper (it removes .config)")


def fragment_path(name: str) -> Path:
    """A fragment by path, or by its name in qemu-configs/kernel/."""
    for path in (Path(name), FRAGMENTS / f"{name}.config"):
        if path.is_file():
            return path.absolute()
    known = ", ".join(sorted(path.stem for path in FRAGMENTS.glob("*.config")))
    raise UserError(ExitCode.USAGE, f"The kernel fragment {name} is neither a file nor one of: {known}.")


def _home() -> Path:
    return cache.root() / "kernel"


def _all_fragments(options: KernelOptions) -> list[Path]:
    own = [SERIES_FRAGMENT] if options.patches or options.source else []
    return [FRAGMENTS / f"{name}.config" for name in DEFAULT_FRAGMENTS] + own + list(options.fragments)


def _compiler() -> str:
    try:
        return subprocess.run(["/usr/bin/gcc", "-dumpfullversion"], capture_output=True, text=True, check=False
                              ).stdout.strip()
    except OSError:
        return ""


def _configuration_key(options: KernelOptions) -> dict:
    return {"fragments": [path.read_text() for path in _all_fragments(options)], "compiler": _compiler(),
            "recipe": _RECIPE, "identity": _IDENTITY}


def _product_inputs(options: KernelOptions) -> dict:
    inputs = _configuration_key(options)
    if options.patches:
        inputs["patches"] = [patch.read_text(errors="replace") for patch in patches.series(options.patches)]
    if GUEST_MODULE.is_dir():
        inputs["module"] = cache.hash_of_tree(GUEST_MODULE)
    return inputs


def _request(options: KernelOptions) -> Path:
    """Remembers which product answered a request, so that a warm run asks nobody."""
    return _home() / "requests" / f"{cache.key_of(package=SOURCE_PACKAGE, **_product_inputs(options))}.json"


def find(options: KernelOptions) -> KernelProduct | None:
    """The built product, or None; builds and fetches nothing."""
    request = cache.recall(_request(options))
    folder = Path(request["folder"]) if request else None
    return KernelProduct(folder) if folder and (folder / "bzImage").exists() else None


def ensure(options: KernelOptions) -> KernelProduct:
    """The product, built if it is not there yet. A user's own tree is always brought up to date."""
    if options.source:
        return _ensure_own(options)
    found = find(options)
    if found and not options.update:
        return found
    packages.ensure(packages.KERNEL, options.offline)
    with cache.lock("kernel") as lock:
        found = find(options)
        if found and not options.update:
            return found
        log = cache.log_file("kernel")
        version, tarball = _obtain_source(options, log)
        folder = _home() / f"{version}-{cache.key_of(version=version, **_product_inputs(options))}"
        if not (folder / "bzImage").exists():
            stock = dataclasses.replace(options, patches=None)
            tree = _stock_tree(version, tarball, stock, log)
            if options.patches:
                if not options.fragments and find(stock) is None:
                    _make(tree, tree, stock, log, lock)
                tree = _patched_tree(tree, options, log)
            _make(tree, tree, options, log, lock)
            _collect(tree, tree, folder, options, log)
        cache.remember(_request(options), {"folder": str(folder)})
    return KernelProduct(folder)


def _local_version(options: KernelOptions) -> str:
    """Suffix of the release (`uname -r`). It tells a patched kernel from a stock one, and one configuration from another:
    the release is what a kernel compares before it takes a module, and a module of another configuration hangs it."""
    inputs = _product_inputs(options)
    inputs.pop("module", None)
    return f"{'-umbra' if options.patches else ''}-{cache.key_of(**inputs)[:8]}"


def _obtain_source(options: KernelOptions, log: Path) -> tuple[str, Path]:
    """Version and tarball of the kernel source. Called with the lock held."""
    sources = cache.root() / "sources"
    present = sorted(sources.glob("linux-*/*.tar.*"), key=lambda path: debian_source.version_order(path.parent.name))
    if present and not options.update:
        return present[-1].parent.name.removeprefix("linux-"), present[-1]
    if options.offline:
        raise UserError(ExitCode.ENVIRONMENT, f"With --offline, the kernel source is missing in {cache.root()}.",
                        "Run scripts/build-kernel with a network, or give --source.")
    cache.need_space(_GIGABYTES, "Building a kernel")

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


def _stock_tree(version: str, tarball: Path, options: KernelOptions, log: Path) -> Path:
    """The unpatched source tree for this version and configuration; built in by _make."""
    tree = _home() / "trees" / f"{version}-{cache.key_of(**_configuration_key(options))}"
    if not tree.is_dir():
        cache.need_space(_GIGABYTES, "A kernel tree")
        with cache.new_folder(tree) as new:
            progress.run("Unpacking the kernel source",
                         ["tar", "-C", new, "--strip-components=1", "--no-same-owner", "-xf", tarball], log)
    return tree


def _patched_tree(stock: Path, options: KernelOptions, log: Path) -> Path:
    """A copy of the stock tree with the series applied. The stock tree of the usual configuration is built first, so
    the copy is nearly built; with further fragments nobody asks for the stock kernel."""
    series = patches.series(options.patches)
    tree = stock.with_name(f"{stock.name}-{cache.key_of(series=options.patches)}")
    if not tree.is_dir():
        cache.need_space(_GIGABYTES, "A patched kernel tree")
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


def _make(source: Path, output: Path, options: KernelOptions, log: Path, lock: int) -> None:
    """Configures and builds image and modules in `output`; takes up an interrupted build."""
    make = _make_command(source, output, _local_version(options))
    variables = environment(**_IDENTITY)
    wanted = output / ".umbra-config"
    fragments = _all_fragments(options)
    text = "".join(path.read_text() for path in fragments) + "".join(_patches_of_kconfig(options))
    if not wanted.exists() or wanted.read_text() != text or not (output / ".config").exists():
        wanted.unlink(missing_ok=True)
        progress.run("Configuring the kernel", [*make, "allnoconfig"], log, env=variables, keep_open=[lock])
        progress.run("Merging the fragments",
                     [source / "scripts/kconfig/merge_config.sh", "-m", "-O", output, output / ".config", *fragments],
                     log, cwd=output, env=variables)
        progress.run("Resolving the configuration", [*make, "olddefconfig"], log, env=variables, keep_open=[lock])
        _check_configuration(output / ".config", options)
        cache.write_atomically(wanted, text)
    progress.run(f"{BUILDING} ({source.name})", [*make, "bzImage", "modules"], log, env=variables,
                 keep_open=[lock])


def _patches_of_kconfig(options: KernelOptions) -> list[str]:
    """Those of the series that change which options there are, and with it what the fragments can ask for."""
    series = patches.series(options.patches) if options.patches else []
    return [patch.read_text(errors="replace") for patch in series
            if any(Path(name).name.startswith("Kconfig") for name in patches.files_named_by(patch))]


def lost_options(config: str, fragment: str) -> list[str]:
    """Lines of a fragment that a resolved .config does not hold."""
    present = set(config.splitlines())
    lost = []
    for line in fragment.splitlines():
        if re.fullmatch(r"CONFIG_\w+=.+", line):
            name, value = line.split("=", 1)
            off = value == "n" and not any(other.startswith(f"{name}=") for other in present)
            if line not in present and not off:
                lost.append(line)
        elif match := re.fullmatch(r"# (CONFIG_\w+) is not set", line):
            if any(other.startswith(f"{match[1]}=") for other in present):
                lost.append(line)
    return lost


def _check_configuration(config: Path, options: KernelOptions) -> None:
    text = config.read_text()
    for fragment in _all_fragments(options):
        lost = lost_options(text, fragment.read_text())
        if not lost or fragment == SERIES_FRAGMENT:
            continue
        what = f"This kernel does not take what {fragment.name} asks for: {', '.join(lost)}."
        if options.source:
            # Another version's options may differ without harm.
            progress.say(f"Note: {what}")
        else:
            raise UserError(ExitCode.USAGE, what, "A dependency is missing in the fragment.")


def _collect(source: Path, output: Path, folder: Path, options: KernelOptions, log: Path) -> None:
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
        info = {"version": release, "key": folder.name, "fragments": [path.name for path in _all_fragments(options)],
                "patches": [patch.name for patch in patches.series(options.patches)] if options.patches else [],
                "modules": sorted(path.name for path in new.glob("*.ko")), "compiler": _compiler(),
                "tree": str(output)}
        (new / "build-info.json").write_text(json.dumps(info, indent=2, sort_keys=True) + "\n")


def _build_guest_module(source: Path, output: Path, into: Path, options: KernelOptions, log: Path) -> None:
    """Builds the test module of tests/guest/module in a copy, so that the project's tree stays clean."""
    if not GUEST_MODULE.is_dir():
        return
    area = into / "module-build"
    shutil.copytree(GUEST_MODULE, area)
    make = _make_command(source, output, _local_version(options))
    progress.run("Building the guest's test module", [*make, f"M={area}", "modules"], log,
                 env=environment(**_IDENTITY))
    built = list(area.rglob("*.ko"))
    if not built:
        raise UserError(ExitCode.ENVIRONMENT, f"{GUEST_MODULE} built no module.", f"The log is {log}.")
    for module in built:
        shutil.copyfile(module, into / module.name)
    cache.remove(area)


def _ensure_own(options: KernelOptions) -> KernelProduct:
    source = options.source
    check_source(source)
    packages.ensure(packages.KERNEL, options.offline)
    key = cache.key_of(source=source, fragments=[str(path) for path in options.fragments])
    with cache.lock(f"kernel-own-{key}") as lock:
        cache.need_space(_GIGABYTES / 2, "Building a kernel")
        log = cache.log_file("kernel-own")
        output = _home() / "trees" / f"own-{key}"
        output.mkdir(parents=True, exist_ok=True)
        _make(source, output, options, log, lock)
        folder = _home() / f"own-{key}"
        _collect(source, output, folder, options, log)
    return KernelProduct(folder)
