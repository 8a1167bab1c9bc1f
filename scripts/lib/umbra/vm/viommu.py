# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running umbra-viommu says about itself over QMP. The only place that knows the shape of its answers."""

from umbra.vm.qmp import Qmp

_PATH = "/machine/peripheral/viommu"


class Viommu:
    def __init__(self, qmp: Qmp):
        self._qmp = qmp

    def statistics(self) -> dict:
        return self._qmp.execute("qom-get", path=_PATH, property="statistics")

    def shadow(self) -> dict:
        """Counters of the unit's shadow: "map" and "unmap" (calls, failures, …), "live-mappings", "leaves", …"""
        return self.statistics()["shadow"]

    def domains(self) -> list[dict]:
        """The guest domains that have a shadow: as `shadow`, and "domain" and "devices" (how many)."""
        return self.shadow()["domains"]

    def devices(self) -> list[dict]:
        """What is shadowed: "source" (bus, device and function as one number), "mode", "domain", and counters of host
        calls. Devices behind a bridge may have one source, and may share a container of the host; then they are one."""
        return self.shadow()["devices"]

    def syncs(self) -> int:
        """How often a shadow was compared with the guest's tables, for whatever reason."""
        return sum(self.shadow()["syncs"].values())

    def invalidations(self) -> int:
        """What the guest sent, of the kinds that make a shadow be compared."""
        return sum(count for path in self.statistics()["invalidations"].values() for kind, count in path.items()
                   if kind.startswith(("iotlb-", "context-")))

    def verify(self) -> dict:
        """The guest's tables beside what is mapped on the host: "clean", "complete", "errors", "differences", …"""
        return self._qmp.execute("qom-get", path=_PATH, property="verify")
