# SPDX-License-Identifier: GPL-2.0-or-later
"""What is built, and what that takes: packages, sources, patches, QEMU, kernels, images, the plugin.

    product  a folder in the cache that is whole once it is there (umbra.cache)
    source   a Debian source package, as the machine's own archive has it (umbra.building.debian_source)
    options  what one build depends on; the same options give the same product

umbra.building.products has them all: what a launcher, a measurement or a test asks for.
"""
