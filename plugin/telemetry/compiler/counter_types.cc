// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <string_view>

#include "plugin/telemetry/compiler/writers.h"

namespace umbra::schema_compiler {
namespace {

constexpr const char* kIncludes =
    "//\n"
    "// What the engine counts, and the enumerations that tell counts of a kind apart.\n"
    "//\n"
    "// Threading: structs of namespace telemetry have one writer, and readers on the same thread "
    "or\n"
    "// of a copy; those of namespace atomic have any number of both (counter.h).\n"
    "#pragma once\n\n"
    "#include <algorithm>\n#include <cstddef>\n#include <cstdint>\n\n"
    "#include \"plugin/telemetry/counter.h\"\n#include \"plugin/telemetry/histogram.h\"\n\n"
    "namespace umbra::telemetry {\n\n";

constexpr std::size_t kColumns = 100;

// `text` as a comment with lines of at most kColumns.
void write_comment(std::ostream& out, std::string_view indent, std::string_view text) {
    while (!text.empty()) {
        const std::size_t room = kColumns - indent.size() - 3;
        std::size_t end = text.size() <= room ? text.size() : text.rfind(' ', room);
        end = std::min(end, text.size());
        out << indent << "// " << text.substr(0, end) << '\n';
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

void write_enumeration(std::ostream& out, const Descriptor& message) {
    const std::string name = index_of(message);
    const std::vector<const FieldDescriptor*> fields = fields_of(message);
    write_comment(out, "", comment_of(message));
    out << "enum class " << name << " : std::uint8_t {\n";
    for (const FieldDescriptor* field : fields) {
        write_comment(out, "    ", comment_of(*field));
        out << "    " << field->name() << ",\n";
    }
    out << "};\ninline constexpr std::size_t k" << name << "s = " << fields.size() << ";\n"
        << "// The name as reports have it.\n"
        << "[[nodiscard]] constexpr const char* name_of(" << name << " value) {\n"
        << "    switch (value) {\n";
    for (const FieldDescriptor* field : fields) {
        out << "        case " << name << "::" << field->name() << ":\n            return \""
            << kebab(field->name()) << "\";\n";
    }
    out << "    }\n    return \"unknown\";\n}\n\n";
}

std::string member_type(const FieldDescriptor& field, Writers writers) {
    if (is_histogram(field.message_type())) {
        return "Histogram";
    }
    if (field.message_type() != nullptr) {
        return counter_name(*field.message_type());
    }
    return writers == Writers::several ? "Counter" : "std::uint64_t";
}

void write_members(std::ostream& out, const CounterStruct& counted) {
    for (const FieldDescriptor* field : counted_fields_of(*counted.message)) {
        const std::string type = member_type(*field, counted.writers);
        write_comment(out, "    ", comment_of(*field));
        out << "    " << type << ' ' << field->name()
            << (type == "std::uint64_t" ? " = 0;\n" : "{};\n");
    }
}

// Peaks come last: they look at members that are up to date.
std::vector<const FieldDescriptor*> peaks_last(const Descriptor& message) {
    std::vector<const FieldDescriptor*> fields = counted_fields_of(message);
    std::stable_partition(fields.begin(), fields.end(), [](const FieldDescriptor* field) {
        return about(*field).peak_of().empty();
    });
    return fields;
}

// Writes follow_peaks() if the struct has peaks, and returns whether it has.
bool write_follow_peaks(std::ostream& out, const CounterStruct& counted) {
    bool any = false;
    for (const FieldDescriptor* field : counted_fields_of(*counted.message)) {
        const std::string& of = about(*field).peak_of();
        if (of.empty()) {
            continue;
        }
        if (!any) {
            out << "\n    // Values as of now have changed: raises each peak to the value it is of.\n"
                   "    void follow_peaks() {\n";
            any = true;
        }
        const std::string& name = field->name();
        out << "        " << name << " = std::max(" << name << ", " << of << ");\n";
    }
    out << (any ? "    }\n" : "");
    return any;
}

void write_sum(std::ostream& out, const CounterStruct& counted) {
    const bool peaks = write_follow_peaks(out, counted);
    out << "\n    // Adds what `part` counted. Its values as of now are changes of this one's, "
           "modulo "
           "2^64;\n    // a peak follows the value it is of.\n    "
        << counted.name << "& operator+=(const " << counted.name << "& part) {\n";
    for (const FieldDescriptor* field : counted_fields_of(*counted.message)) {
        if (about(*field).peak_of().empty()) {
            const std::string& name = field->name();
            out << "        " << name << " += part." << name << ";\n";
        }
    }
    out << (peaks ? "        follow_peaks();\n" : "") << "        return *this;\n    }\n";
}

void write_clear(std::ostream& out, const CounterStruct& counted) {
    out << "\n    // Counts start again from 0";
    out << (counted.writers == Writers::one ? "; values as of now stay, and are their own peaks.\n"
                                            : ".\n");
    out << "    void clear() {\n";
    for (const FieldDescriptor* field : peaks_last(*counted.message)) {
        const std::string& name = field->name();
        const std::string& of = about(*field).peak_of();
        if (!of.empty()) {
            out << "        " << name << " = " << of << ";\n";
        } else if (is_histogram(field->message_type())) {
            out << "        " << name << " = {};\n";
        } else if (field->message_type() != nullptr || counted.writers == Writers::several) {
            out << "        " << name << ".clear();\n";
        } else if (!about(*field).gauge()) {
            out << "        " << name << " = 0;\n";
        }
    }
    out << "    }\n";
}

void write_any(std::ostream& out, const CounterStruct& counted) {
    out << "\n    // Whether a counter is above 0.\n    [[nodiscard]] bool any() const {\n"
        << "        return ";
    const char* separator = "";
    for (const FieldDescriptor* field : counted_fields_of(*counted.message)) {
        out << separator << field->name()
            << (field->message_type() != nullptr ? ".any()" : ".value() != 0");
        separator = " ||\n               ";
    }
    out << ";\n    }\n";
}

void write_struct(std::ostream& out, const CounterStruct& counted) {
    const Descriptor& message = *counted.message;
    write_comment(out, "", comment_of(message));
    out << "struct " << counted.name << " {\n";
    write_members(out, counted);
    if (!index_of(message).empty()) {
        write_index(out, message, counted.name,
                    member_type(*fields_of(message).front(), counted.writers));
    }
    if (is_shared(counted)) {
        write_sum(out, counted);
    }
    write_clear(out, counted);
    if (counted.writers == Writers::several) {
        write_any(out, counted);
    }
    out << "};\n\n";
}

}  // namespace

void write_index(std::ostream& out, const Descriptor& message, const std::string& name,
                 const std::string& member) {
    const std::string index = index_of(message);
    out << "\n    [[nodiscard]] const " << member << "& operator[](" << index
        << " value) const {\n        static constexpr " << member << " " << name
        << "::* kMembers[] = {\n";
    for (const FieldDescriptor* field : fields_of(message)) {
        out << "            &" << name << "::" << field->name() << ",\n";
    }
    out << "        };\n        return this->*kMembers[static_cast<std::size_t>(value)];\n    }\n"
        << "    [[nodiscard]] " << member << "& operator[](" << index << " value) {\n"
        << "        return const_cast<" << member << "&>(static_cast<const " << name
        << "&>(*this)[value]);\n    }\n";
}

void write_counter_types(std::ostream& out, const std::vector<const Descriptor*>& messages) {
    out << kNotice << kIncludes;
    for (const Descriptor* message : indices_of(messages)) {
        write_enumeration(out, *message);
    }
    const std::vector<CounterStruct> structs = counter_structs_of(messages);
    for (const CounterStruct& counted : structs) {
        if (counted.writers == Writers::one) {
            write_struct(out, counted);
        }
    }
    out << "namespace atomic {\n\n";
    for (const CounterStruct& counted : structs) {
        if (counted.writers == Writers::several) {
            write_struct(out, counted);
        }
    }
    out << "}  // namespace atomic\n\n}  // namespace umbra::telemetry\n";
}

}  // namespace umbra::schema_compiler
