// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the schema compiler asks umbra.proto: names as C++ and reports have them, comments, and
// which fields the engine counts in structs of its own. Every function throws std::runtime_error,
// with the name of the field or message, for what umbra.proto must not say.
#pragma once

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "umbra.pb.h"

namespace umbra::schema_compiler {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

// "iotlb_page" as reports have it: "iotlb-page".
[[nodiscard]] std::string kebab(const std::string& name);

// The struct of a message. Nested messages (of maps) get a name of their own too.
[[nodiscard]] std::string type_name(const Descriptor& message);

// MODE_PASS_THROUGH of Mode is pass_through.
[[nodiscard]] std::string value_name(const EnumDescriptor& type, int index);

// The comment above, in one line; empty without one, and for what protoc made.
[[nodiscard]] std::string comment_of(const FieldDescriptor& field);
[[nodiscard]] std::string comment_of(const Descriptor& message);

[[nodiscard]] const telemetry::v1::About& about(const FieldDescriptor& field);

// What the value of a field is; schema.h has the same names.
enum class Kind : std::uint8_t { integer, enumeration, text, message, list };
[[nodiscard]] Kind kind_of(const FieldDescriptor& field);

[[nodiscard]] std::vector<const FieldDescriptor*> fields_of(const Descriptor& message);

// `root` and the messages it is made of, parts before what is made of them.
[[nodiscard]] std::vector<const Descriptor*> messages_of(const Descriptor& root);

// The enumerations of umbra.proto that fields of `messages` have for their type.
[[nodiscard]] std::vector<const EnumDescriptor*> enumerations_of(
    const std::vector<const Descriptor*>& messages);

// Option "enumeration": empty, or the name of the enumeration that indexes the message's struct.
// Such a message has fields of one type.
[[nodiscard]] std::string index_of(const Descriptor& message);

// Of `messages`, one for each name of an enumeration that indexes them: the first. The others have
// the same fields.
[[nodiscard]] std::vector<const Descriptor*> indices_of(
    const std::vector<const Descriptor*>& messages);

// ---- Counting ----

// Who writes the counters of a struct: one thread, or several.
enum class Writers : std::uint8_t { one, several };

// A struct that the engine counts in, and the message that tells what it counted.
struct CounterStruct {
    const Descriptor* message;
    std::string name;
    Writers writers;
};

// The structs that option "counted_in" names, and those they are made of, parts first.
[[nodiscard]] std::vector<CounterStruct> counter_structs_of(
    const std::vector<const Descriptor*>& messages);

// The fields that such a struct has a member for: all but keys, lists, and what is meta or
// computed.
[[nodiscard]] std::vector<const FieldDescriptor*> counted_fields_of(const Descriptor& message);

// The name of the struct that counts `message`.
[[nodiscard]] std::string counter_name(const Descriptor& message);

[[nodiscard]] bool is_histogram(const Descriptor* message);

// Whether the struct that counts is the one of the snapshot as well: it has the same numbers, and
// one thread writes them.
[[nodiscard]] bool is_shared(const CounterStruct& counted);

}  // namespace umbra::schema_compiler
