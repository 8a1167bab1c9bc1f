// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tables that describe the structs of snapshot_types.h, which the build makes from umbra.proto (see
// schema_compiler.cc): for each message its fields, with name, number, meaning, and where in the
// struct they are. Encoding, JSON, OpenMetrics and differences walk these tables, so none of them
// has a list of counters of its own, and the plugin needs no protobuf library at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace umbra::telemetry::schema {

// What a field's member of the struct is.
enum class Kind : std::uint8_t {
    integer,      // std::uint64_t
    enumeration,  // std::uint64_t, an index of Field::values
    text,         // std::string
    message,      // a struct
    list,         // std::vector of structs
};

enum class Unit : std::uint8_t { none, bytes, nanoseconds, address, source_id };

struct Message;

// The options are those of umbra.proto's About.
struct Field {
    std::string_view name;  // in lower case, with hyphens
    std::string_view help;  // one sentence, or empty
    std::uint32_t number = 0;
    Kind kind = Kind::integer;
    Unit unit = Unit::none;
    bool gauge = false;
    bool key = false;
    bool meta = false;
    bool inlined = false;
    std::size_t offset = 0;
    const Message* message = nullptr;            // of a message or a list's elements
    std::span<const std::string_view> values{};  // names of an enumeration
};

// How to deal with a std::vector of a message's structs.
struct ListOperations {
    std::size_t (*size)(const void* list);
    const void* (*at)(const void* list, std::size_t index);
    void* (*append)(void* list);
};

template <class Struct>
inline constexpr ListOperations kListOperations = {
    .size = [](const void* list) { return static_cast<const std::vector<Struct>*>(list)->size(); },
    .at = [](const void* list, std::size_t index) -> const void* {
        return &(*static_cast<const std::vector<Struct>*>(list))[index];
    },
    .append = [](void* list) -> void* {
        return &static_cast<std::vector<Struct>*>(list)->emplace_back();
    },
};

struct Message {
    std::string_view name;
    std::string_view by;     // what the fields split a number by, or empty
    bool map_entry = false;  // fields "key" and "value" of a protobuf map
    std::span<const Field> fields;
    ListOperations list;
};

// A struct and its description.
class Record {
  public:
    Record(const Message& message, const void* data) : message_(&message), data_(data) {}

    [[nodiscard]] const Message& message() const { return *message_; }
    [[nodiscard]] std::span<const Field> fields() const { return message_->fields; }

    [[nodiscard]] std::uint64_t integer(const Field& field) const {
        return *static_cast<const std::uint64_t*>(member(field));
    }
    [[nodiscard]] const std::string& text(const Field& field) const {
        return *static_cast<const std::string*>(member(field));
    }
    [[nodiscard]] Record record(const Field& field) const {
        return {*field.message, member(field)};
    }
    [[nodiscard]] std::size_t size(const Field& list) const {
        return list.message->list.size(member(list));
    }
    [[nodiscard]] Record at(const Field& list, std::size_t index) const {
        return {*list.message, list.message->list.at(member(list), index)};
    }
    // For a struct of which the caller knows the type: that of a schema_of<>().
    [[nodiscard]] const void* data() const { return data_; }

  private:
    [[nodiscard]] const void* member(const Field& field) const {
        return static_cast<const std::byte*>(data_) + field.offset;
    }

    const Message* message_;
    const void* data_;
};

// The same, to be filled in.
class MutableRecord {
  public:
    MutableRecord(const Message& message, void* data) : message_(&message), data_(data) {}

    [[nodiscard]] const Message& message() const { return *message_; }
    [[nodiscard]] std::uint64_t& integer(const Field& field) const {
        return *static_cast<std::uint64_t*>(member(field));
    }
    [[nodiscard]] std::string& text(const Field& field) const {
        return *static_cast<std::string*>(member(field));
    }
    [[nodiscard]] MutableRecord record(const Field& field) const {
        return {*field.message, member(field)};
    }
    [[nodiscard]] MutableRecord append(const Field& list) const {
        return {*list.message, list.message->list.append(member(list))};
    }

  private:
    [[nodiscard]] void* member(const Field& field) const {
        return static_cast<std::byte*>(data_) + field.offset;
    }

    const Message* message_;
    void* data_;
};

}  // namespace umbra::telemetry::schema
