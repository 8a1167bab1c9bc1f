# SPDX-License-Identifier: GPL-2.0-or-later
"""What 256 maps and 256 unmaps cause at each level, with each flush policy. Mixed into test cases."""

from typing import TYPE_CHECKING

from umbra.vm.counts import Counter, Counts

# What it is mixed into, for the type checker.
if TYPE_CHECKING:
    from vm_case import VmCase as _Case
else:
    _Case = object

HOLD = "workload hold pages_mapped=256 batch=64 operations=256 barrier=yes"


class PolicyCounts(_Case):
    def count_hold(self, guest, counter: Counter) -> Counts:
        counts = []
        self.do(guest, HOLD, {"prepared": counter.start, "measured": lambda: counts.append(counter.stop())})
        return counts[0]

    def check_counts(self, strict: Counts, queued: Counts) -> None:
        # Strict: each of the 256 maps and 256 unmaps is a page-selective flush of its own.
        self.assertEqual(strict.invalidations["iotlb_domain"], 0)
        self.assertGreaterEqual(strict.invalidations["iotlb_page"], 512)
        # Flush queue: maps stay page-selective, unmaps are drained by few domain flushes.
        self.assertGreaterEqual(queued.invalidations["iotlb_page"], 256)
        self.assertLess(queued.invalidations["iotlb_page"], 512)
        self.assertGreater(queued.invalidations["iotlb_domain"], 0)
        self.assertLess(queued.invalidations["iotlb_domain"], 256)
        for each in (strict, queued):
            self.assertGreater(each.shadow["host_map_calls"], 0)
            self.assertGreater(each.shadow["host_unmap_calls"], 0)
            self.assertGreater(sum(each.host_iommu.values()), 0)

    def check_own_counts(self, strict: Counts, queued: Counts) -> None:
        """What only Umbra can be asked."""
        for each in (strict, queued):
            # Its own count of host calls is what the VFIO host's kernel saw.
            self.assertEqual(each.shadow["own_map_calls"], each.shadow["host_map_calls"])
            self.assertEqual(each.shadow["own_unmap_calls"], each.shadow["host_unmap_calls"])
        # Many unmaps of a drain are few host calls.
        self.assertLess(queued.shadow["host_unmap_calls"], strict.shadow["host_unmap_calls"])
