// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/json.h"

#include <array>
#include <cinttypes>
#include <cstdio>

#include "plugin/telemetry/distribution.h"
#include "plugin/telemetry/json_writer.h"
#include "snapshot_types.h"

namespace umbra::telemetry {
namespace {

using schema::Field;
using schema::Kind;
using schema::Record;
using schema::Unit;

void write_fields(JsonWriter& out, const Record& record);

void write_list(JsonWriter& out, const Record& record, const Field& field) {
    const std::size_t size = record.size(field);
    if (field.message->map_entry) {
        out.open(field.name);
        for (std::size_t i = 0; i < size; ++i) {
            const Record entry = record.at(field, i);
            out.member(entry.text(entry.fields()[0]), entry.integer(entry.fields()[1]));
        }
        out.close();
        return;
    }
    out.open_list(field.name);
    for (std::size_t i = 0; i < size; ++i) {
        out.open();
        write_fields(out, record.at(field, i));
        out.close();
    }
    out.close_list();
}

void write_field(JsonWriter& out, const Record& record, const Field& field) {
    switch (field.kind) {
        case Kind::integer:
            if (field.unit == Unit::address) {
                out.member_string(field.name, address_text(record.integer(field)));
            } else {
                out.member(field.name, record.integer(field));
            }
            break;
        case Kind::enumeration:
            out.member_string(field.name, value_name(field, record.integer(field)));
            break;
        case Kind::text:
            out.member_string(field.name, record.text(field));
            break;
        case Kind::message:
            if (field.inlined) {
                write_fields(out, record.record(field));
            } else {
                out.open(field.name);
                write_fields(out, record.record(field));
                out.close();
            }
            break;
        case Kind::list:
            write_list(out, record, field);
            break;
    }
}

void write_fields(JsonWriter& out, const Record& record) {
    for (const Field& field : record.fields()) {
        write_field(out, record, field);
    }
    if (const snapshot::Histogram* histogram = as_histogram(record)) {
        out.member("mean", mean(*histogram));
        out.member("p50", quantile(*histogram, 0.5));
        out.member("p90", quantile(*histogram, 0.9));
        out.member("p99", quantile(*histogram, 0.99));
    }
}

}  // namespace

std::string to_json(const Record& record) {
    JsonWriter out;
    out.open();
    write_fields(out, record);
    out.close();
    return out.take();
}

std::string address_text(std::uint64_t address) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%" PRIx64, address);
    return text.data();
}

}  // namespace umbra::telemetry
