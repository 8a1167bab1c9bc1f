# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting what an invalidation causes, at each level, for an interval of the guest's work.

    guest -> vIOMMU      invalidations that the guest sent       (QEMU's trace events; Umbra's counters)
    vIOMMU -> VFIO       map and unmap calls                     (a kprobe in the VFIO host's kernel)
    host -> its IOMMU    invalidations of the host's own IOMMU   (trace events of the testbed's QEMU)

What cannot be counted is None, never 0.
"""

import dataclasses
import re
from collections.abc import Mapping

from umbra.vm.config import GuestConfig
from umbra.vm.guest import Guest
from umbra.vm.viommu import Viommu

# Trace event of the guest's QEMU -> where it is counted, by vIOMMU.
_INTEL_EVENTS = {
    "vtd_inv_desc_iotlb_global": ("invalidations", "iotlb_global"),
    "vtd_inv_desc_iotlb_domain": ("invalidations", "iotlb_domain"),
    "vtd_inv_desc_iotlb_pages": ("invalidations", "iotlb_page"),
    "vtd_inv_desc_cc_global": ("invalidations", "context"),
    "vtd_inv_desc_cc_domain": ("invalidations", "context"),
    "vtd_inv_desc_cc_device": ("invalidations", "context"),
    "vtd_inv_desc_cc_devices": ("invalidations", "context"),
    "vtd_inv_desc_wait_sw": ("invalidations", "wait"),
    "vtd_inv_desc_wait_irq": ("invalidations", "wait"),
}
_VIRTIO_EVENTS = {
    "virtio_iommu_map": ("requests", "map"),
    "virtio_iommu_unmap": ("requests", "unmap"),
}

# The kernel function in the VFIO host that takes the backend's ioctls (command in the second
# argument), and the commands that are counted (Linux: include/uapi/linux/vfio.h, iommufd.h).
_IOCTLS = {
    "type1": ("vfio_iommu_type1_ioctl", {0x3b71: "host_map_calls", 0x3b72: "host_unmap_calls"}),
    "iommufd": ("iommufd_fops_ioctl", {0x3b85: "host_map_calls", 0x3b86: "host_unmap_calls"}),
}

# Umbra's own counters ("statistics" of the device) -> where they are counted.
_UMBRA_KINDS = {
    "iotlb-global": "iotlb_global", "iotlb-domain": "iotlb_domain", "iotlb-page": "iotlb_page",
    "context-global": "context", "context-domain": "context", "context-device": "context",
}
_TRACING = "/sys/kernel/tracing"


@dataclasses.dataclass
class Counts:
    invalidations: Mapping
    shadow: dict
    host_iommu: dict


class Counter:
    """Counts between `start` and `stop`. One for each guest; the guest must be up."""

    def __init__(self, guest: Guest):
        self._guest = guest
        self._host = guest.host
        config: GuestConfig = guest.config
        self._events = {"qemu-intel": _INTEL_EVENTS, "qemu-virtio": _VIRTIO_EVENTS}.get(
            config.viommu, {})
        self._own = config.viommu == "umbra"
        self._own_before: dict = {}
        self._function, self._commands = _IOCTLS["iommufd" if config.iommufd else "type1"]
        self._log_offset = 0
        self._host_iommu_before: dict = {}
        self._probed = self._make_probe()

    def _make_probe(self) -> bool:
        if not self._guest.config.passthrough:
            return False
        return self._host.run(f"cd {_TRACING} && "
                              f"echo 'p:umbra/calls {self._function} command=%si:x32' > kprobe_events"
                              ).status == 0

    def start(self) -> None:
        for event in self._events:
            self._guest.qmp.execute("trace-event-set-state", name=event, enable=True,
                                    ignore_unavailable=True)
        # A histogram trigger counts in the kernel; nothing is written to the trace buffer.
        if self._probed:
            self._host.run(f"echo 'hist:keys=command.hex' > {_TRACING}/events/umbra/calls/trigger")
        # The log is never truncated: QEMU would go on at its old offset, behind a hole.
        self._log_offset = int(self._host.run("stat -c %s trace.log 2>/dev/null").stdout or 0)
        self._host_iommu_before = self._host.iommu_invalidations()
        if self._own:
            self._own_before = self._own_counts()

    def stop(self) -> Counts:
        host_iommu = self._count_host_iommu()
        for event in self._events:
            self._guest.qmp.execute("trace-event-set-state", name=event, enable=False,
                                    ignore_unavailable=True)
        shadow = self._count_shadow()
        if not self._own:
            return Counts(self._count_guest(), shadow, host_iommu)
        own = {name: value - self._own_before[name] for name, value in self._own_counts().items()}
        for name in ("own_map_calls", "own_unmap_calls"):
            shadow[name] = own.pop(name)
        return Counts(own, shadow, host_iommu)

    def _own_counts(self) -> dict:
        """Umbra's counters so far, from the device itself."""
        statistics = Viommu(self._guest.qmp).statistics()
        counts = {field: 0 for field in _UMBRA_KINDS.values()}
        for path in statistics["invalidations"].values():
            for kind, field in _UMBRA_KINDS.items():
                counts[field] += path[kind]
        counts["wait"] = statistics["queue"]["wait-descriptors"]
        counts["own_map_calls"] = statistics["shadow"]["map"]["calls"]
        counts["own_unmap_calls"] = statistics["shadow"]["unmap"]["calls"]
        return counts

    def _count_guest(self) -> Mapping[str, int | None]:
        if not self._events:
            return {}
        totals = {field: 0 for _, field in self._events.values()}
        # `vtd_inv_desc_iotlb_pages domain 0x…`: the first word of a log line names the event.
        script = (f"tail -c +{self._log_offset + 1} trace.log | "
                  "awk '{n[$1]++} END {for (k in n) print n[k], k}'")
        done = self._host.run(script, timeout=120)
        if done.status != 0:
            return {field: None for field in totals}
        for count, name in re.findall(r"^\s*(\d+)\s+(\w+)\s*$", done.stdout, re.M):
            if name in self._events:
                totals[self._events[name][1]] += int(count)
        return totals

    def _count_shadow(self) -> dict[str, int | None]:
        unknown: dict[str, int | None] = dict.fromkeys(self._commands.values())
        if not self._probed:
            return unknown
        done = self._host.run(f"cd {_TRACING}/events/umbra/calls && cat hist && "
                              "echo '!hist:keys=command.hex' > trigger")
        if done.status != 0:
            return unknown
        counts = {name: 0 for name in self._commands.values()}
        for command, hits in re.findall(r"command:\s*([0-9a-fx]+)\s*}\s*hitcount:\s*(\d+)",
                                        done.stdout):
            name = self._commands.get(int(command, 16))
            if name:
                counts[name] += int(hits)
        return {**counts}

    def _count_host_iommu(self) -> dict:
        now = self._host.iommu_invalidations()
        return {kind: None if count is None else count - self._host_iommu_before[kind]
                for kind, count in now.items()}
