// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/telemetry/samples.h"

#include "plugin/telemetry/schema.h"
#include "plugin/telemetry/wire.h"

namespace umbra::testing {
namespace {

using telemetry::schema::Field;
using telemetry::schema::Kind;
using telemetry::schema::MutableRecord;
namespace snapshot = telemetry::snapshot;

void fill(const MutableRecord& record, std::uint64_t& next) {
    for (const Field& field : record.message().fields) {
        switch (field.kind) {
            case Kind::integer:
                record.integer(field) = next++;
                break;
            case Kind::enumeration:
                record.integer(field) = 1 + next++ % (field.values.size() - 1);
                break;
            case Kind::text:
                record.text(field) = "text-" + std::to_string(next++);
                break;
            case Kind::message:
                fill(record.record(field), next);
                break;
            case Kind::list:
                fill(record.append(field), next);
                fill(record.append(field), next);
                break;
        }
    }
}

}  // namespace

snapshot::Snapshot filled_snapshot(std::uint64_t first) {
    snapshot::Snapshot made;
    std::uint64_t next = first;
    fill(snapshot::mutable_record(made), next);
    made.version = 1;
    made.unit = "viommu";
    made.taken_unix_ns = 1'700'000'000'123'456'789 + first;
    made.counting_since_ns = 5;
    made.taken_ns = 1'000'000'000 * first;
    return made;
}

snapshot::Snapshot empty_snapshot() {
    snapshot::Snapshot made;
    made.version = 1;
    made.unit = "viommu";
    return made;
}

std::string delimited(const snapshot::Snapshot& snapshot) {
    return telemetry::encode_delimited(snapshot::record(snapshot));
}

}  // namespace umbra::testing
