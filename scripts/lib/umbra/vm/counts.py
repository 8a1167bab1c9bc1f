# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting what an invalidation causes, at each level, for an interval of the guest's work.

    guest -> vIOMMU      invalidations that the guest sent       (QEMU's trace events)
    vIOMMU -> VFIO       map and unmap calls                     (kprobes in the VFIO host's kernel)
    host -> its IOMMU    invalidations of the host's own IOMMU   (trace events of the testbed's QEMU)

What cannot be counted is None, never 0.
"""

import dataclasses
import re
from pathlib import Path

from umbra.vm.config import GuestConfig
from umbra.vm.guest import Guest
from umbra.vm.host import TestbedHost

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

# Kernel functions that every map and unmap of the backend goes through, in the VFIO host.
_KPROBES = {
    "type1": {"host_map_calls": "vfio_dma_do_map", "host_unmap_calls": "vfio_dma_do_unmap"},
    "iommufd": {"host_map_calls": "iommufd_ioas_map", "host_unmap_calls": "iommufd_ioas_unmap"},
}
_HOST_IOMMU_EVENTS = {
    "vtd_inv_desc_iotlb_global": "iotlb_global",
    "vtd_inv_desc_iotlb_domain": "iotlb_domain",
    "vtd_inv_desc_iotlb_pages": "iotlb_page",
}
_TRACING = "/sys/kernel/tracing"


@dataclasses.dataclass
class Counts:
    invalidations: dict
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
        self._probes = _KPROBES["iommufd" if config.iommufd else "type1"]
        self._log_offset = 0
        self._host_log_offset = 0
        self._kprobes = self._make_kprobes()

    def _make_kprobes(self) -> bool:
        lines = [f"cd {_TRACING} || exit 1"]
        for name, function in self._probes.items():
            lines.append(f"echo 'p:umbra/{name} {function}' >> kprobe_events || exit 1")
        return self._host.run("\n".join(lines)).status == 0

    def start(self) -> None:
        for event in self._events:
            self._guest.qmp.execute("trace-event-set-state", name=event, enable=True,
                                    ignore_unavailable=True)
        # A histogram trigger counts in the kernel; nothing is written to the trace buffer.
        if self._kprobes:
            self._host.run("\n".join(
                f"cd {_TRACING}/events/umbra/{name} && echo 'hist:keys=common_type' > trigger"
                for name in self._probes))
        # The log is never truncated: QEMU would go on at its old offset, behind a hole.
        self._log_offset = int(self._host.run("stat -c %s trace.log 2>/dev/null").stdout or 0)
        self._host_log_offset = self._host_log_size()

    def stop(self) -> Counts:
        host_iommu = self._count_host_iommu()
        for event in self._events:
            self._guest.qmp.execute("trace-event-set-state", name=event, enable=False,
                                    ignore_unavailable=True)
        return Counts(self._count_guest(), self._count_shadow(), host_iommu)

    def _count_guest(self) -> dict:
        if not self._events:
            return {}
        totals: dict[str, int | None] = {field: 0 for _, field in self._events.values()}
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

    def _count_shadow(self) -> dict:
        counts: dict[str, int | None] = {name: None for name in self._probes}
        if not self._kprobes:
            return counts
        for name in self._probes:
            done = self._host.run(f"cd {_TRACING}/events/umbra/{name} && cat hist && "
                                  "echo '!hist:keys=common_type' > trigger")
            hits = re.search(r"Hits:\s*(\d+)", done.stdout)
            if done.status == 0 and hits:
                counts[name] = int(hits[1])
        return counts

    def _host_log(self) -> Path | None:
        return self._host.rundir / "host-iommu.log" if isinstance(self._host, TestbedHost) else None

    def _host_log_size(self) -> int:
        log = self._host_log()
        return log.stat().st_size if log and log.exists() else 0

    def _count_host_iommu(self) -> dict:
        log = self._host_log()
        if log is None:
            return {field: None for field in _HOST_IOMMU_EVENTS.values()}
        totals = {field: 0 for field in _HOST_IOMMU_EVENTS.values()}
        with open(log, "rb") as lines:
            lines.seek(self._host_log_offset)
            for line in lines:
                name = line.split(b" ", 1)[0].decode("ascii", "replace")
                if name in _HOST_IOMMU_EVENTS:
                    totals[_HOST_IOMMU_EVENTS[name]] += 1
        return totals
