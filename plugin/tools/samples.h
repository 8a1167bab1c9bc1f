// SPDX-License-Identifier: GPL-2.0-or-later
//
// A snapshot as a list of samples, each with a name and labels of its own: what is nested becomes
// part of the name, and elements of lists and alternatives (umbra.proto's "by") become labels.
//
//   shadow-syncs {unit="viommu", trigger="page"} 811
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugin/telemetry/schema.h"
#include "snapshot_types.h"

namespace umbra::tools {

struct Sample {
    enum class Kind : std::uint8_t { counter, gauge, state, histogram };

    std::string name;  // words with hyphens between
    std::vector<std::pair<std::string, std::string>> labels;
    Kind kind = Kind::counter;
    telemetry::schema::Unit unit = telemetry::schema::Unit::none;
    std::string_view help;
    std::uint64_t value = 0;                                    // of a state: its index
    const telemetry::schema::Field* field = nullptr;            // has the names of a state
    const telemetry::snapshot::Histogram* histogram = nullptr;  // belongs to the snapshot
};

// Samples of one name do not have to be neighbours; no two have the same name and labels. Valid as
// long as `snapshot`.
[[nodiscard]] std::vector<Sample> samples_of(const telemetry::snapshot::Snapshot& snapshot);

// "00:05.0", as PCI functions are called.
[[nodiscard]] std::string source_text(std::uint64_t source);

}  // namespace umbra::tools
