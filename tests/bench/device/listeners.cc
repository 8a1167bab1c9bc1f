// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/bench/device/listeners.h"

#include <stdexcept>
#include <string>

#include "plugin/probe/registers.h"

namespace umbra::bench {

Traffic Listeners::traffic() {
    Traffic sum;
    for (qtest::ProbeDriver& probe : probes_) {
        sum.calls += probe.get(UMBRA_PROBE_LISTEN_MAPS) + probe.get(UMBRA_PROBE_LISTEN_UNMAPS);
        sum.mapped += probe.get(UMBRA_PROBE_LISTEN_MAPPED_BYTES);
        sum.unmapped += probe.get(UMBRA_PROBE_LISTEN_UNMAPPED_BYTES);
    }
    return sum;
}

void Listeners::clear_traffic() {
    for (qtest::ProbeDriver& probe : probes_) {
        probe.clear_counters();
    }
}

void check(const char* operation, const Traffic& actual, const Expected& expected) {
    // A mapper may take a larger mapping apart to remove a piece of it, and so unmap and map more
    // than changed; but what is mapped in the end differs by what changed.
    const std::uint64_t mapped = expected.mapped * expected.devices;
    const std::uint64_t unmapped = expected.unmapped * expected.devices;
    const std::uint64_t holes = expected.unmapped == 0 ? 0 : expected.holes * expected.devices;
    const std::uint64_t taken = actual.unmapped - (actual.mapped - mapped);
    const bool net = taken >= unmapped && taken <= unmapped + holes;
    if (!net || actual.mapped < mapped || actual.unmapped < unmapped) {
        throw std::runtime_error(std::string(operation) + ": the listeners were told of " +
                                 std::to_string(actual.mapped) + " bytes mapped and " +
                                 std::to_string(actual.unmapped) + " unmapped instead of " +
                                 std::to_string(mapped) + " and " + std::to_string(unmapped));
    }
}

}  // namespace umbra::bench
