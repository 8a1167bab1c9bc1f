// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/difference.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "plugin/telemetry/schema.h"

namespace umbra::tools {
namespace {

using telemetry::schema::Field;
using telemetry::schema::Kind;
using telemetry::schema::MutableRecord;
using telemetry::schema::Record;
namespace snapshot = telemetry::snapshot;

bool is_key(const Record& record, const Field& field) {
    return field.key || (record.message().map_entry && &field == record.fields().data());
}

std::string key_of(const Record& record) {
    std::string key;
    for (const Field& field : record.fields()) {
        if (is_key(record, field)) {
            key += field.kind == Kind::text ? record.text(field)
                                            : std::to_string(record.integer(field));
            key += '\n';
        }
    }
    return key;
}

void subtract(const MutableRecord& to, const Record* earlier, const Record& later);

void subtract_list(const MutableRecord& to, const Field& list, const Record* earlier,
                   const Record& later) {
    std::unordered_map<std::string, std::size_t> known;
    for (std::size_t i = 0; earlier != nullptr && i < earlier->size(list); ++i) {
        known.emplace(key_of(earlier->at(list, i)), i);
    }
    for (std::size_t i = 0; i < later.size(list); ++i) {
        const Record element = later.at(list, i);
        if (const auto found = known.find(key_of(element)); found != known.end()) {
            const Record before = earlier->at(list, found->second);
            subtract(to.append(list), &before, element);
        } else {
            subtract(to.append(list), nullptr, element);
        }
    }
}

void subtract(const MutableRecord& to, const Record* earlier, const Record& later) {
    for (const Field& field : later.fields()) {
        switch (field.kind) {
            case Kind::integer: {
                const bool counts = !field.gauge && !field.meta && !is_key(later, field);
                const std::uint64_t value = later.integer(field);
                const std::uint64_t before =
                    counts && earlier != nullptr ? earlier->integer(field) : 0;
                // Less than before: a device or domain went and came back.
                to.integer(field) = value >= before ? value - before : value;
                break;
            }
            case Kind::enumeration:
                to.integer(field) = later.integer(field);
                break;
            case Kind::text:
                to.text(field) = later.text(field);
                break;
            case Kind::message:
                if (earlier != nullptr) {
                    const Record before = earlier->record(field);
                    subtract(to.record(field), &before, later.record(field));
                } else {
                    subtract(to.record(field), nullptr, later.record(field));
                }
                break;
            case Kind::list:
                subtract_list(to, field, earlier, later);
                break;
        }
    }
}

}  // namespace

snapshot::Snapshot difference(const snapshot::Snapshot& earlier, const snapshot::Snapshot& later) {
    const bool same =
        earlier.unit == later.unit && earlier.counting_since_ns == later.counting_since_ns;
    snapshot::Snapshot made;
    const Record before = snapshot::record(earlier);
    subtract(snapshot::mutable_record(made), same ? &before : nullptr, snapshot::record(later));
    return made;
}

double seconds_between(const snapshot::Snapshot& earlier, const snapshot::Snapshot& later) {
    return later.taken_ns > earlier.taken_ns
               ? static_cast<double>(later.taken_ns - earlier.taken_ns) / 1e9
               : 0;
}

}  // namespace umbra::tools
