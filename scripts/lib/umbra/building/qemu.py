# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds QEMU from source, with its source and build tree kept.

The source is Debian's with Debian's patches, and with those of qemu-configs/patches, which mend faults of QEMU that
guests behind any vIOMMU run into. The plugin loads into a QEMU without them as well.

The plugin is compiled against both trees. They hold absolute paths, so the product is built where it stays and counts
as whole once its stamp is written.
"""

import dataclasses
import hashlib
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from umbra import cache, progress
from umbra.building import debian_source, packages, patches
from umbra.building.environment import environment, jobs
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

DEFAULT_VERSION = "10.0"
PATCHES = TREE / "qemu-configs" / "patches"
# What --version and QMP's query-version say of a QEMU with the patches.
PACKAGE_VERSION = "with Umbra's patches"
# Where each branch may be found; the last resort comes last.
_SUITES = ("trixie", "sid")
_FALLBACK_VERSION = "10"

# Static firmware is stripped from Debian's source; it comes from the packages in packages.FIRMWARE at run time.
# --export-dynamic lets a plugin use QEMU's own symbols.
CONFIGURE = ("--target-list=x86_64-softmmu", "--without-default-features", "--enable-kvm", "--enable-tcg",
             "--enable-plugins", "--enable-fdt=system", "--enable-pixman", "--enable-tools",
             "--enable-trace-backends=log", "--disable-docs", "--disable-install-blobs",
             "--extra-ldflags=-Wl,--export-dynamic")
TARGETS = ("qemu-system-x86_64", "qemu-img", "qemu-io")
_RECIPE = 2
_MINIMUM_MESON = (1, 5)
_GIGABYTES = 3


@dataclasses.dataclass(frozen=True)
class QemuOptions:
    """`source`: a source folder or tarball of the user's own, instead of Debian's. `unpatched`: without PATCHES. A
    source folder is the user's and never patched."""
    version: str = DEFAULT_VERSION
    source: Path | None = None
    unpatched: bool = False
    update: bool = False
    offline: bool = False

    @staticmethod
    def from_environment(**options: Any) -> "QemuOptions":
        own = os.environ.get("QEMU_SOURCE")
        options.setdefault("unpatched", os.environ.get("QEMU_UNPATCHED", "").lower()
                           not in ("", "0", "no", "false", "off"))
        return QemuOptions(source=Path(own).absolute() if own else None, **options)

    def patches(self) -> list[Path]:
        """The patches that the product has."""
        own_folder = self.source is not None and self.source.is_dir()
        return [] if self.unpatched or own_folder else patches.series(PATCHES)

    def configure(self) -> tuple[str, ...]:
        return (*CONFIGURE, f"--with-pkgversion={PACKAGE_VERSION}") if self.patches() else CONFIGURE


@dataclasses.dataclass(frozen=True)
class QemuProduct:
    """`patches`: names of those that were applied."""
    src: Path
    build: Path
    version: str
    patches: tuple[str, ...] = ()

    @property
    def binary(self) -> Path:
        return self.build / "qemu-system-x86_64"

    @property
    def image_tool(self) -> Path:
        return self.build / "qemu-img"


def _home() -> Path:
    return cache.root() / "qemu"


def _request(options: QemuOptions) -> Path:
    """Remembers which product answered a request, so that a warm run asks nobody."""
    inputs = {"version": options.version, "source": options.source, **_recipe(options)}
    if options.source and options.source.is_file():
        inputs["hash"] = _hash_of_file(options.source)
    return _home() / "requests" / f"{cache.key_of(**inputs)}.json"


def _recipe(options: QemuOptions) -> dict:
    """What a product depends on besides its source."""
    return {"configure": options.configure(), "recipe": _RECIPE,
            "patches": [patch.read_text(errors="replace") for patch in options.patches()]}


def _hash_of_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _product(folder: Path) -> QemuProduct | None:
    stamp = cache.read_stamp(folder)
    if stamp is None:
        return None
    product = QemuProduct(Path(stamp["source"]), folder / "build", stamp["version"], tuple(stamp["patches"]))
    return product if product.binary.exists() and product.src.is_dir() else None


def find(options: QemuOptions) -> QemuProduct | None:
    """The built product, or None; builds and fetches nothing."""
    request = cache.recall(_request(options))
    return _product(Path(request["folder"])) if request else None


def ensure(options: QemuOptions) -> QemuProduct:
    """The product, built if it is not there yet. A user's own source folder is always brought up to date."""
    _check_source(options.source)
    own_folder = options.source is not None and options.source.is_dir()
    found = find(options)
    if found and not options.update and not own_folder:
        return found
    packages.ensure(packages.QEMU, options.offline)
    with cache.lock("qemu") as lock:
        found = find(options)
        if found and not options.update and not own_folder:
            return found
        folder, source, version = _obtain_source(options)
        product = _product(folder)
        if product is None or own_folder:
            product = _build(folder, source, version, options, lock)
        cache.remember(_request(options), {"folder": str(folder)})
    return product


def _check_source(source: Path | None) -> None:
    if source is None:
        return
    if source.is_dir():
        if not (source / "configure").is_file() or not (source / "include/hw/qdev-core.h").is_file():
            raise UserError(ExitCode.USAGE, f"QEMU_SOURCE={source} holds no QEMU source (no configure in it).")
    elif not source.is_file():
        raise UserError(ExitCode.USAGE, f"QEMU_SOURCE={source} does not exist.")
    elif not tarfile.is_tarfile(source):
        raise UserError(ExitCode.USAGE, f"QEMU_SOURCE={source} is neither a folder nor a tar archive.")


def version_of(source: Path) -> str:
    """QEMU's own: 10.0.13."""
    try:
        return (source / "VERSION").read_text().strip()
    except OSError:
        raise UserError(ExitCode.USAGE, f"{source} holds no QEMU source (no VERSION in it).") from None


def _obtain_source(options: QemuOptions) -> tuple[Path, Path, str]:
    """Returns the product's folder, the source tree and its version. Called with the lock held."""
    key = _recipe(options)
    if options.source and options.source.is_dir():
        version = version_of(options.source)
        return _home() / f"own-{cache.key_of(path=options.source, **key)}", options.source, version
    cache.need_space(_GIGABYTES, "Building QEMU")
    if options.source:
        digest = _hash_of_file(options.source)
        folder = _home() / f"tarball-{cache.key_of(hash=digest, **key)}"
        log = cache.log_file("qemu-source")
        source = cache.root() / "sources" / f"qemu-tarball-{digest[:12]}"
        if not source.is_dir():
            with cache.new_folder(source) as new:
                progress.run(f"Unpacking {options.source.name}",
                             ["tar", "-C", new, "--strip-components=1", "--no-same-owner", "-xf", options.source], log)
                version_of(new)
        return folder, _patched(source, folder, options, log), version_of(source)
    if options.offline:
        raise UserError(ExitCode.ENVIRONMENT, f"With --offline, QEMU {options.version} is missing in {cache.root()}.",
                        "Run scripts/build-qemu with a network, or set QEMU_SOURCE to a source folder or tarball.")
    wanted = [options.version]
    if options.version == DEFAULT_VERSION:
        wanted.append(_FALLBACK_VERSION)
    log = cache.log_file("qemu-source")
    version, source = debian_source.fetch("qemu", wanted, _SUITES, "deb-src", log, lambda suite, found:
                                          _unpacked(suite, found, log))
    folder = _home() / f"{debian_source.upstream_version(version)}-{cache.key_of(version=version, **key)}"
    return folder, _patched(source, folder, options, log), version


def _patched(source: Path, folder: Path, options: QemuOptions, log: Path) -> Path:
    """The source tree of a product: `source` itself, or a copy of it in `folder` with the patches."""
    series = options.patches()
    if not series:
        return source
    tree = folder / "src"
    if not tree.is_dir():
        with cache.new_folder(tree) as new:
            # A copy of links, besides the files that the patches name: those must not change in `source`.
            progress.run("Copying QEMU's source", ["cp", "-al", f"{source}/.", new], log)
            for name in set().union(*(patches.files_named_by(patch) for patch in series)):
                (new / name).unlink(missing_ok=True)
            try:
                patches.apply(series, source, new, log)
            except UserError as error:
                raise UserError(error.code, str(error).strip(),
                                "QEMU_UNPATCHED=1 in the environment leaves the patches out.") from None
    return tree


def _unpacked(suite: debian_source.Suite, version: str, log: Path) -> Path:
    """The source tree of a version, with Debian's patches applied; downloaded unless it is there."""
    tree = cache.root() / "sources" / f"qemu-{cache.key_of(version=version)}"
    if tree.is_dir():
        return tree
    with cache.new_folder(tree.with_name(tree.name + "-download")) as download:
        dsc = suite.fetch_source("qemu", version, download, log)
        with cache.new_folder(tree) as new:
            # dpkg-source makes its target folder itself.
            progress.run("Unpacking QEMU's source", ["dpkg-source", "--no-check", "-x", dsc, new / "x"], log)
            for part in (new / "x").iterdir():
                part.rename(new / part.name)
            (new / "x").rmdir()
    cache.remove(tree.with_name(tree.name + "-download"))
    return tree


def _system_meson_suffices() -> bool:
    try:
        reply = subprocess.run(["/usr/bin/meson", "--version"], capture_output=True, text=True, check=False).stdout
        return tuple(int(part) for part in reply.strip().split(".")[:2]) >= _MINIMUM_MESON
    except (OSError, ValueError):
        return False


def _meson_path(offline: bool) -> str:
    """PYTHONPATH with a meson that QEMU accepts; empty where the system's one is new enough."""
    if _system_meson_suffices():
        return ""
    folder = cache.root() / "meson"
    if not folder.is_dir():
        if offline:
            raise UserError(ExitCode.ENVIRONMENT, "With --offline, meson 1.5 or newer is missing.",
                            "Install it, or run scripts/build-qemu once with a network.")
        log = cache.log_file("meson")
        with cache.new_folder(folder) as new:
            suites = (f"{debian_source.codename()}-backports", "trixie")
            _, deb = debian_source.fetch("meson", ("1",), suites, "deb", log,
                                         lambda suite, version: suite.fetch_package("meson", version, new, log))
            progress.run("Unpacking meson", ["dpkg", "-x", deb, new], log)
            deb.unlink()
    return str(folder / "usr/lib/python3/dist-packages")


def _build(folder: Path, source: Path, version: str, options: QemuOptions, lock: int) -> QemuProduct:
    log = cache.log_file("qemu")
    build = folder / "build"
    meson = _meson_path(options.offline)
    variables = environment(**({"PYTHONPATH": meson} if meson else {}))
    # configure has no way to go on after it was killed; ninja has.
    configured = build / ".umbra-configured"
    if not configured.exists():
        cache.remove(build)
        build.mkdir(parents=True)
        progress.run(f"Configuring QEMU {debian_source.upstream_version(version)}",
                     [source / "configure", "--python=/usr/bin/python3", *options.configure()], log, cwd=build,
                     env=variables, keep_open=[lock])
        configured.touch()
    progress.run(f"Building QEMU {debian_source.upstream_version(version)}",
                 ["ninja", f"-j{jobs()}", *TARGETS], log, cwd=build, env=variables, keep_open=[lock])
    check = subprocess.run([build / TARGETS[0], "--version"], capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise UserError(ExitCode.ENVIRONMENT, f"The QEMU that was built does not start: {check.stderr.strip()}.")
    names = [patch.name for patch in options.patches()]
    cache.write_stamp(folder, {"source": str(source), "version": version, "configure": options.configure(),
                               "patches": names})
    return QemuProduct(source, build, version, tuple(names))
