# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds Linux for guests and for the testbed host.

What the VMs need is copied out of a tree (umbra.building.kernel_tree) into a product folder:

    bzImage  config  System.map  Module.symvers  *.ko  kunit/*.ko  dma_map_benchmark  build-info.json
"""

import dataclasses
from pathlib import Path

from umbra import cache
from umbra.building import packages
from umbra.building.kernel_config import KernelOptions, product_inputs
from umbra.building.kernel_image import KernelProduct, check_source
from umbra.building.kernel_tree import (GIGABYTES, SOURCE_PACKAGE, build_in, collect, home, obtain_source, patched_tree,
                                        stock_tree)


def find(options: KernelOptions) -> KernelProduct | None:
    """The built product, or None; builds and fetches nothing."""
    request = cache.recall(_request(options))
    folder = Path(request["folder"]) if request else None
    return KernelProduct(folder) if folder and (folder / "bzImage").exists() else None


def ensure(options: KernelOptions) -> KernelProduct:
    """The product, built if it is not there yet. A user's own tree is always brought up to date."""
    if options.source:
        return _ensure_own(options, options.source)
    found = find(options)
    if found and not options.update:
        return found
    packages.ensure(packages.KERNEL, options.offline)
    with cache.lock("kernel") as lock:
        found = find(options)
        if found and not options.update:
            return found
        log = cache.log_file("kernel")
        version, tarball = obtain_source(options, log)
        folder = home() / f"{version}-{cache.key_of(version=version, **product_inputs(options))}"
        if not (folder / "bzImage").exists():
            stock = dataclasses.replace(options, patches=None)
            tree = stock_tree(version, tarball, stock, log)
            if options.patches:
                if not options.fragments and find(stock) is None:
                    build_in(tree, tree, stock, log, lock)
                tree = patched_tree(tree, options.patches, log)
            build_in(tree, tree, options, log, lock)
            collect(tree, tree, folder, options, log)
        cache.remember(_request(options), {"folder": str(folder)})
    return KernelProduct(folder)


def _ensure_own(options: KernelOptions, source: Path) -> KernelProduct:
    check_source(source)
    packages.ensure(packages.KERNEL, options.offline)
    key = cache.key_of(source=source, fragments=[str(path) for path in options.fragments])
    with cache.lock(f"kernel-own-{key}") as lock:
        cache.need_space(GIGABYTES / 2, "Building a kernel")
        log = cache.log_file("kernel-own")
        output = home() / "trees" / f"own-{key}"
        output.mkdir(parents=True, exist_ok=True)
        build_in(source, output, options, log, lock)
        folder = home() / f"own-{key}"
        collect(source, output, folder, options, log)
    return KernelProduct(folder)


def _request(options: KernelOptions) -> Path:
    """Remembers which product answered a request, so that a warm run asks nobody."""
    return home() / "requests" / f"{cache.key_of(package=SOURCE_PACKAGE, **product_inputs(options))}.json"
