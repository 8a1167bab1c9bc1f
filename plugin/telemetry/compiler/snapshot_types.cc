// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <array>
#include <stdexcept>

#include "plugin/telemetry/compiler/writers.h"

namespace umbra::schema_compiler {
namespace {

namespace v1 = telemetry::v1;

constexpr const char* kIncludes =
    "#pragma once\n\n#include <cstdint>\n#include <string>\n#include <vector>\n\n"
    "#include \"counter_types.h\"\n#include \"plugin/telemetry/schema.h\"\n\n"
    "namespace umbra::telemetry::snapshot {\n\n";

const char* name_of(Kind kind) {
    constexpr std::array<const char*, 5> kNames = {"integer", "enumeration", "text", "message",
                                                   "list"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::string counter_type(const CounterStruct& counted) {
    return (counted.writers == Writers::several ? "atomic::" : "telemetry::") + counted.name;
}

// ---- The structs ----

void write_enumeration(std::ostream& out, const EnumDescriptor& type) {
    out << "enum class " << type.name() << " : std::uint64_t {\n";
    for (int i = 0; i < type.value_count(); ++i) {
        if (type.value(i)->number() != i) {
            throw std::runtime_error(type.full_name() + " must count from 0");
        }
        out << "    " << value_name(type, i) << " = " << i << ",\n";
    }
    out << "};\n\n";
}

// All have an initializer, so that whoever fills a struct in may leave members out.
std::string member_of(const FieldDescriptor& field) {
    switch (kind_of(field)) {
        case Kind::list:
            return "std::vector<" + type_name(*field.message_type()) + "> " + field.name() + "{}";
        case Kind::message:
            return type_name(*field.message_type()) + " " + field.name() + "{}";
        case Kind::text:
            return "std::string " + field.name() + "{}";
        case Kind::integer:
        case Kind::enumeration:
            break;
    }
    return "std::uint64_t " + field.name() + " = 0";
}

void write_struct(std::ostream& out, const Descriptor& message) {
    out << "struct " << type_name(message) << " {\n";
    for (const FieldDescriptor* field : fields_of(message)) {
        out << "    " << member_of(*field) << ";\n";
    }
    out << "};\n\n";
}

void write_fill_declarations(std::ostream& out, const std::vector<CounterStruct>& structs) {
    out << "// Puts what was counted into the struct of a snapshot; its other members stay.\n";
    for (const CounterStruct& counted : structs) {
        if (!is_shared(counted)) {
            out << "void fill(" << type_name(*counted.message) << "& to, const "
                << counter_type(counted) << "& from);\n";
        }
    }
    out << '\n';
}

// ---- Their tables ----

// What C++ would take for the end of a string is escaped.
std::string quoted(const std::string& text) {
    std::string made = "\"";
    for (const char letter : text) {
        if (letter == '"' || letter == '\\') {
            made += '\\';
        }
        made += letter;
    }
    return made + '"';
}

void write_field(std::ostream& out, const FieldDescriptor& field) {
    const v1::About& told = about(field);
    const auto flag = [](bool value) { return value ? "true" : "false"; };
    out << "    {.name = \"" << kebab(field.name())
        << "\",\n     .help = " << quoted(comment_of(field))
        << ",\n     .number = " << field.number()
        << ",\n     .kind = Kind::" << name_of(kind_of(field))
        << ",\n     .unit = Unit::" << value_name(*v1::Unit_descriptor(), told.unit())
        << ",\n     .gauge = " << flag(told.gauge()) << ",\n     .key = " << flag(told.key())
        << ",\n     .meta = " << flag(told.meta()) << ",\n     .inlined = " << flag(told.inlined())
        << ",\n     .offset = offsetof(" << type_name(*field.containing_type()) << ", "
        << field.name() << "),\n     .message = ";
    if (field.message_type() != nullptr) {
        out << "&k" << type_name(*field.message_type());
    } else {
        out << "nullptr";
    }
    out << ",\n     .values = {";
    if (field.enum_type() != nullptr) {
        out << "k" << field.enum_type()->name() << "Names";
    }
    out << "}},\n";
}

void write_names(std::ostream& out, const EnumDescriptor& type) {
    out << "constexpr std::array<std::string_view, " << type.value_count() << "> k" << type.name()
        << "Names = {\n";
    for (int i = 0; i < type.value_count(); ++i) {
        out << "    \"" << kebab(value_name(type, i)) << "\",\n";
    }
    out << "};\n\n";
}

void write_table(std::ostream& out, const Descriptor& message) {
    const std::string name = type_name(message);
    out << "constexpr std::array<Field, " << message.field_count() << "> k" << name
        << "Fields = {{\n";
    for (const FieldDescriptor* field : fields_of(message)) {
        write_field(out, *field);
    }
    out << "}};\nconstexpr Message k" << name << " = {\n    .name = \"" << name
        << "\",\n    .by = \"" << message.options().GetExtension(v1::by)
        << "\",\n    .map_entry = " << (message.options().map_entry() ? "true" : "false")
        << ",\n    .fields = k" << name << "Fields,\n    .list = schema::kListOperations<" << name
        << ">,\n};\n\n";
}

void write_fill(std::ostream& out, const CounterStruct& counted) {
    out << "void fill(" << type_name(*counted.message) << "& to, const " << counter_type(counted)
        << "& from) {\n";
    for (const FieldDescriptor* field : counted_fields_of(*counted.message)) {
        const std::string& name = field->name();
        const Descriptor* part = field->message_type();
        if (is_histogram(part)) {
            out << "    to." << name << " = distribution(from." << name << ");\n";
        } else if (part == nullptr) {
            out << "    to." << name << " = from." << name
                << (counted.writers == Writers::several ? ".value();\n" : ";\n");
        } else if (is_shared({.message = part,
                              .name = counter_name(*part),
                              .writers = counted.writers})) {
            out << "    to." << name << " = from." << name << ";\n";
        } else {
            out << "    fill(to." << name << ", from." << name << ");\n";
        }
    }
    out << "}\n\n";
}

}  // namespace

void write_snapshot_types(std::ostream& out, const std::vector<const Descriptor*>& messages) {
    const std::vector<CounterStruct> structs = counter_structs_of(messages);
    const auto counted_as_told = [&structs](const Descriptor* message) {
        return std::ranges::any_of(structs, [message](const CounterStruct& counted) {
            return counted.message == message && is_shared(counted);
        });
    };
    out << kNotice << kIncludes;
    for (const EnumDescriptor* type : enumerations_of(messages)) {
        write_enumeration(out, *type);
    }
    for (const Descriptor* message : messages) {
        if (counted_as_told(message)) {
            out << "using telemetry::" << type_name(*message) << ";\n\n";
        } else {
            write_struct(out, *message);
        }
    }
    write_fill_declarations(out, structs);
    out << "// The table of a struct.\ntemplate <class Struct>\n"
           "[[nodiscard]] const schema::Message& schema_of();\n";
    for (const Descriptor* message : messages) {
        out << "template <>\nconst schema::Message& schema_of<" << type_name(*message) << ">();\n";
    }
    out << "\ntemplate <class Struct>\n[[nodiscard]] schema::Record record(const Struct& data) {\n"
           "    return {schema_of<Struct>(), &data};\n}\n"
           "template <class Struct>\n"
           "[[nodiscard]] schema::MutableRecord mutable_record(Struct& data) {\n"
           "    return {schema_of<Struct>(), &data};\n}\n"
           "\n}  // namespace umbra::telemetry::snapshot\n";
}

void write_snapshot_tables(std::ostream& out, const std::string& header,
                           const std::vector<const Descriptor*>& messages) {
    out << kNotice << "#include \"" << header
        << "\"\n\n#include <array>\n#include <cstddef>\n#include <string_view>\n\n"
           "#include \"plugin/telemetry/distribution.h\"\n\n"
           "namespace umbra::telemetry::snapshot {\nnamespace {\n\n"
           "using schema::Field;\nusing schema::Kind;\nusing schema::Message;\n"
           "using schema::Unit;\n\n";
    for (const EnumDescriptor* type : enumerations_of(messages)) {
        write_names(out, *type);
    }
    for (const Descriptor* message : messages) {
        write_table(out, *message);
    }
    out << "}  // namespace\n\n";
    for (const CounterStruct& counted : counter_structs_of(messages)) {
        if (!is_shared(counted)) {
            write_fill(out, counted);
        }
    }
    for (const Descriptor* message : messages) {
        const std::string name = type_name(*message);
        out << "template <>\nconst Message& schema_of<" << name << ">() {\n    return k" << name
            << ";\n}\n";
    }
    out << "\n}  // namespace umbra::telemetry::snapshot\n";
}

}  // namespace umbra::schema_compiler
