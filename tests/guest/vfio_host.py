# SPDX-License-Identifier: GPL-2.0-or-later
"""What the testbed host's kernel has mapped and pinned for devices that were passed through, from its own books."""

from umbra.vm.host import TestbedHost

# A line a mapping: IOVA, then an entry of each of the levels 5 to 3, 2 or 1: fewer make larger pages.
_TRANSLATIONS = "/sys/kernel/debug/iommu/intel/{}/domain_translation_struct"
_COUNT_PAGES = """awk '
    /^0x/ { entries = NF - 2; pages += entries == 5 ? 1 : entries == 4 ? 512 : 262144 }
    END { print pages + 0 }' """
# Counters of each CPU reach the sum now and then, and whenever stat_refresh is read.
_PINS = """cat /proc/sys/vm/stat_refresh
    awk '$1 == "nr_foll_pin_acquired" { pins += $2 }
         $1 == "nr_foll_pin_released" { pins -= $2 }
         END { print pins }' /proc/vmstat"""


class VfioHost:
    def __init__(self, host: TestbedHost):
        self._host = host

    def _number(self, script: str) -> int:
        done = self._host.run(script)
        assert done.status == 0 and done.stdout.strip().isdigit(), f"{script}: {done}"
        return int(done.stdout)

    def pinned_pages(self) -> int:
        """Pages that somebody has pinned for DMA and not let go of: nobody does so there but VFIO. A page that two
        mappings pin counts twice."""
        return self._number(_PINS)

    def mapped_pages(self, address: str) -> int:
        """4 KiB pages in the table that the host's IOMMU uses for the device at `address`."""
        return self._number(_COUNT_PAGES + _TRANSLATIONS.format(address))

    def holders(self) -> str:
        """Processes that have a VFIO or iommufd file open, with the files."""
        return self._host.run("ls -l /proc/[0-9]*/fd 2>/dev/null | "
                              "grep -E '/dev/(vfio|iommu)|anon_inode:.*(vfio|iommufd)'").stdout

    def faults(self) -> list[str]:
        """What the host's IOMMU has complained of since the last call."""
        return [line for line in self._host.run("dmesg -c").stdout.splitlines() if "fault addr" in line]
