// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/wire.h"

#include <cstdint>
#include <string_view>

namespace umbra::telemetry {
namespace {

using schema::Field;
using schema::Kind;
using schema::Record;

// The wire types of a tag's lower three bits.
constexpr std::uint64_t kVarint = 0;
constexpr std::uint64_t kLengthDelimited = 2;

void append_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        out += static_cast<char>(static_cast<unsigned char>(value | 0x80));
    }
    out += static_cast<char>(static_cast<unsigned char>(value));
}

void append_bytes(std::string& out, const Field& field, std::string_view bytes) {
    append_varint(out, std::uint64_t{field.number} << 3 | kLengthDelimited);
    append_varint(out, bytes.size());
    out += bytes;
}

void append_field(std::string& out, const Record& record, const Field& field) {
    switch (field.kind) {
        case Kind::integer:
        case Kind::enumeration:
            // A reader takes what is missing for 0.
            if (const std::uint64_t value = record.integer(field); value != 0) {
                append_varint(out, std::uint64_t{field.number} << 3 | kVarint);
                append_varint(out, value);
            }
            break;
        case Kind::text:
            if (!record.text(field).empty()) {
                append_bytes(out, field, record.text(field));
            }
            break;
        case Kind::message:
            append_bytes(out, field, encode(record.record(field)));
            break;
        case Kind::list:
            for (std::size_t i = 0; i < record.size(field); ++i) {
                append_bytes(out, field, encode(record.at(field, i)));
            }
            break;
    }
}

}  // namespace

std::string encode(const Record& record) {
    std::string out;
    for (const Field& field : record.fields()) {
        append_field(out, record, field);
    }
    return out;
}

std::string encode_delimited(const Record& record) {
    const std::string message = encode(record);
    std::string out;
    append_varint(out, message.size());
    return out + message;
}

}  // namespace umbra::telemetry
