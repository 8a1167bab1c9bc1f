# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel under test: given as an image, or built from Debian's source or the user's with patches."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from umbra import cache, progress
from umbra.building import kernel, kernel_config, kernel_image, kernel_tree, patches
from umbra.building.kernel_config import KernelOptions
from umbra.building.kernel_image import KernelProduct


@dataclasses.dataclass(frozen=True)
class Subject:
    """`modules` go into the guest's image and are loaded at boot, `kunit_modules` by the case that runs them."""
    name: str
    bzimage: Path
    modules: list[Path]
    kunit_modules: list[Path]

    @staticmethod
    def of_product(product: KernelProduct) -> "Subject":
        return Subject(product.version, product.bzimage, product.modules, product.kunit_modules)


@dataclasses.dataclass(frozen=True)
class SubjectOptions:
    """What the command line says. `patches`: folder of a series, or None. `extra`: patches on top of it."""
    image: Path | None = None
    modules: tuple[Path, ...] = ()
    source: Path | None = None
    patches: Path | None = None
    extra: tuple[Path, ...] = ()
    debug: bool = False
    offline: bool = False


class BuildFailed(Exception):
    """The kernel does not compile: a failure of what is tested, not of this machine."""


def obtain(options: SubjectOptions) -> Subject:
    """Builds the kernel under test if that is not done yet. Raises BuildFailed."""
    if options.image:
        return _given(options.image, options.modules)
    with _compiling():
        return Subject.of_product(_build(options))


def obtain_series(options: SubjectOptions, members: list[Path]) -> Subject:
    """Debian's source with these patches, which belong to options.patches. Raises BuildFailed."""
    with _compiling(), composed_series(options.patches, members) as folder:
        return Subject.of_product(kernel.ensure(KernelOptions(patches=folder, **_common(options))))


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    try:
        yield
    except progress.StepFailed as error:
        if error.title.startswith(kernel_tree.BUILDING):
            raise BuildFailed(str(error)) from None
        raise


def _common(options: SubjectOptions) -> dict:
    fragments = (kernel_config.fragment_path("debug"),) if options.debug else ()
    return {"fragments": fragments, "offline": options.offline}


def _given(image: Path, modules: Sequence[Path]) -> Subject:
    kernel_image.check_bzimage(image)
    found = sorted(path for folder in modules for path in folder.rglob("*.ko"))
    kunit = [path for path in found if kernel_image.is_kunit_module(path)]
    return Subject(image.name, image, [path for path in found if path not in kunit], kunit)


def _build(options: SubjectOptions) -> KernelProduct:
    common = _common(options)
    if options.source and not (options.patches or options.extra):
        return kernel.ensure(KernelOptions(source=options.source, **common))
    if options.source:
        return _build_patched_source(options, options.source, common)
    if not options.extra:
        return kernel.ensure(KernelOptions(patches=options.patches, **common))
    series = patches.series(options.patches) if options.patches else []
    with composed_series(options.patches, [*series, *options.extra]) as folder:
        return kernel.ensure(KernelOptions(patches=folder, **common))


@contextlib.contextmanager
def composed_series(base: Path | None, members: list[Path]) -> Iterator[Path]:
    """A folder with these patches as a series. There is one for each base, so that all variants of a series share a
    built tree, and going from one to the next compiles what differs between them."""
    key = cache.key_of(base=base)
    with cache.lock(f"regress-series-{key}"):
        folder = cache.root() / "regress" / f"series-{key}"
        with cache.new_folder(folder) as new:
            names = [f"{number:04d}-{path.name}" for number, path in enumerate(members, 1)]
            for name, path in zip(names, members, strict=True):
                shutil.copyfile(path, new / name)
            (new / "series").write_text("".join(f"{name}\n" for name in names))
        yield folder


def _build_patched_source(options: SubjectOptions, source: Path, common: dict) -> KernelProduct:
    """The user's tree is never written to: a copy is patched, brought up to date first if it is there already."""
    kernel_image.check_source(source)
    series = [*(patches.series(options.patches) if options.patches else []), *options.extra]
    key = cache.key_of(source=source)
    with cache.lock(f"regress-source-{key}"):
        cache.need_space(4.0, "A copy of the kernel source")
        log = cache.log_file("regress-source")
        copy = cache.root() / "regress" / f"source-{key}"
        copy.mkdir(parents=True, exist_ok=True)
        progress.run("Copying the kernel source",
                     ["cp", "-a", "--update", "--reflink=auto", f"{source}/.", copy], log)
        patches.apply(series, source, copy, log)
        return kernel.ensure(KernelOptions(source=copy, **common))
