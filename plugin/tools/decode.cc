// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/decode.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <string>
#include <vector>

#include "plugin/telemetry/schema.h"
#include "plugin/tools/errors.h"
#include "umbra.pb.h"

namespace umbra::tools {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using telemetry::schema::Field;
using telemetry::schema::Kind;
using telemetry::schema::MutableRecord;
namespace snapshot = telemetry::snapshot;
namespace v1 = telemetry::v1;

constexpr std::uint32_t kVersion = 1;

void assign(const MutableRecord& to, const Message& from);

std::uint64_t integer(const Message& from, const FieldDescriptor& field) {
    const Reflection& reflection = *from.GetReflection();
    return field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32 ? reflection.GetUInt32(from, &field)
                                                               : reflection.GetUInt64(from, &field);
}

void assign_list(const MutableRecord& to, const Field& list, const Message& from,
                 const FieldDescriptor& field) {
    const Reflection& reflection = *from.GetReflection();
    const int size = reflection.FieldSize(from, &field);
    if (static_cast<std::size_t>(size) > kMostElements) {
        throw InputError("list \"" + std::string(list.name) + "\" has " + std::to_string(size) +
                         " elements, more than " + std::to_string(kMostElements));
    }
    std::vector<const Message*> elements;
    elements.reserve(static_cast<std::size_t>(size));
    for (int i = 0; i < size; ++i) {
        elements.push_back(&reflection.GetRepeatedMessage(from, &field, i));
    }
    if (list.message->map_entry) {
        // The order of a map is random.
        std::ranges::sort(elements, {}, [](const Message* entry) {
            return entry->GetReflection()->GetString(*entry, entry->GetDescriptor()->field(0));
        });
    }
    for (const Message* element : elements) {
        assign(to.append(list), *element);
    }
}

// Both sides come from umbra.proto, so every field is there.
void assign(const MutableRecord& to, const Message& from) {
    const Reflection& reflection = *from.GetReflection();
    for (const Field& field : to.message().fields) {
        const FieldDescriptor& there =
            *from.GetDescriptor()->FindFieldByNumber(static_cast<int>(field.number));
        switch (field.kind) {
            case Kind::integer:
                to.integer(field) = integer(from, there);
                break;
            case Kind::enumeration: {
                // One that this program does not know yet becomes the first.
                const auto value = static_cast<std::size_t>(reflection.GetEnumValue(from, &there));
                to.integer(field) = value < field.values.size() ? value : 0;
                break;
            }
            case Kind::text:
                to.text(field) = reflection.GetString(from, &there);
                break;
            case Kind::message:
                assign(to.record(field), reflection.GetMessage(from, &there));
                break;
            case Kind::list:
                assign_list(to, field, from, there);
                break;
        }
    }
}

}  // namespace

snapshot::Snapshot decode(const Frame& frame) {
    const std::string place = "at byte " + std::to_string(frame.offset) + ": ";
    // The exception says it, and where.
    const google::protobuf::LogSilencer no_complaints_on_stderr;
    v1::Snapshot message;
    if (!message.ParseFromString(frame.bytes)) {
        throw InputError(place + "the message of " + std::to_string(frame.bytes.size()) +
                         " bytes is no snapshot, or it is damaged");
    }
    if (message.version() != kVersion) {
        throw InputError(place + "the snapshot has version " + std::to_string(message.version()) +
                         ", and this umbra-stat reads version " + std::to_string(kVersion));
    }
    snapshot::Snapshot made;
    try {
        assign(snapshot::mutable_record(made), message);
    } catch (const InputError& error) {
        throw InputError(place + error.what());
    }
    return made;
}

}  // namespace umbra::tools
