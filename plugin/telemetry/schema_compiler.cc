// SPDX-License-Identifier: GPL-2.0-or-later
//
// A step of the build: makes the structs of snapshot_types.h, and their tables (schema.h), from
// umbra.proto as protoc has parsed it. Knows as much of protobuf as umbra.proto uses, and refuses
// the rest: messages, enumerations, maps from string to number, unsigned numbers and strings.
//
//   schema_compiler umbra.desc snapshot_types.h snapshot_types.cc
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "umbra.pb.h"

namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::FileDescriptorSet;
using google::protobuf::SourceLocation;
namespace v1 = umbra::telemetry::v1;

std::string lower(std::string text) {
    std::ranges::transform(text, text.begin(),
                           [](unsigned char letter) { return std::tolower(letter); });
    return text;
}

std::string kebab(std::string text) {
    std::ranges::replace(text, '_', '-');
    return lower(text);
}

// Nested ones (of maps) too get a name of their own.
std::string type_name(const Descriptor& message) {
    const Descriptor* outer = message.containing_type();
    return (outer != nullptr ? type_name(*outer) : std::string()) + message.name();
}

// MODE_PASS_THROUGH of Mode is pass_through.
std::string value_name(const EnumDescriptor& type, int index) {
    const std::string name = lower(type.value(index)->name());
    const std::string prefix = lower(type.name()) + "_";
    if (!name.starts_with(prefix)) {
        throw std::runtime_error(name + " must begin with " + prefix);
    }
    return name.substr(prefix.size());
}

// The comment above, in one line, with what C++ would take for the end of a string escaped.
std::string help_of(const FieldDescriptor& field) {
    if (field.containing_type()->options().map_entry()) {
        return {};  // made by protoc
    }
    SourceLocation location;
    if (!field.GetSourceLocation(&location)) {
        throw std::runtime_error("no source information: call protoc with --include_source_info");
    }
    std::string text;
    for (const char letter : location.leading_comments) {
        if (std::isspace(static_cast<unsigned char>(letter)) == 0) {
            if (letter == '"' || letter == '\\') {
                text += '\\';
            }
            text += letter;
        } else if (!text.empty() && text.back() != ' ') {
            text += ' ';
        }
    }
    while (text.ends_with(' ')) {
        text.pop_back();
    }
    return text;
}

std::string kind_of(const FieldDescriptor& field) {
    if (field.is_repeated()) {
        if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
            return "list";
        }
    } else {
        switch (field.type()) {
            case FieldDescriptor::TYPE_UINT32:
            case FieldDescriptor::TYPE_UINT64:
                return "integer";
            case FieldDescriptor::TYPE_STRING:
                return "text";
            case FieldDescriptor::TYPE_ENUM:
                return "enumeration";
            case FieldDescriptor::TYPE_MESSAGE:
                return "message";
            default:
                break;
        }
    }
    throw std::runtime_error(field.full_name() + " has a type that is not supported here");
}

// All have an initializer, so that whoever fills a struct in may leave members out.
std::string member_of(const FieldDescriptor& field) {
    const std::string kind = kind_of(field);
    if (kind == "list") {
        return "std::vector<" + type_name(*field.message_type()) + "> " + field.name() + "{}";
    }
    if (kind == "message") {
        return type_name(*field.message_type()) + " " + field.name() + "{}";
    }
    return kind == "text" ? "std::string " + field.name() + "{}"
                          : "std::uint64_t " + field.name() + " = 0";
}

// Messages that others are made of come first.
void add_message(const Descriptor& message, std::set<const Descriptor*>& known,
                 std::vector<const Descriptor*>& ordered) {
    if (!known.insert(&message).second) {
        return;
    }
    for (int i = 0; i < message.field_count(); ++i) {
        if (const Descriptor* part = message.field(i)->message_type()) {
            add_message(*part, known, ordered);
        }
    }
    ordered.push_back(&message);
}

std::vector<const EnumDescriptor*> enumerations_of(const std::vector<const Descriptor*>& messages) {
    std::vector<const EnumDescriptor*> found;
    for (const Descriptor* message : messages) {
        for (int i = 0; i < message->field_count(); ++i) {
            const EnumDescriptor* type = message->field(i)->enum_type();
            if (type != nullptr && std::ranges::find(found, type) == found.end()) {
                found.push_back(type);
            }
        }
    }
    return found;
}

constexpr const char* kNotice =
    "// SPDX-License-Identifier: GPL-2.0-or-later\n"
    "// Made from umbra.proto by schema_compiler.\n";

void write_header(std::ostream& out, const std::vector<const Descriptor*>& messages) {
    out << kNotice
        << "#pragma once\n\n#include <cstdint>\n#include <string>\n#include <vector>\n\n"
           "#include \"plugin/telemetry/schema.h\"\n\nnamespace umbra::telemetry::snapshot {\n\n";
    for (const EnumDescriptor* type : enumerations_of(messages)) {
        out << "enum class " << type->name() << " : std::uint64_t {\n";
        for (int i = 0; i < type->value_count(); ++i) {
            if (type->value(i)->number() != i) {
                throw std::runtime_error(type->full_name() + " must count from 0");
            }
            out << "    " << value_name(*type, i) << " = " << i << ",\n";
        }
        out << "};\n\n";
    }
    for (const Descriptor* message : messages) {
        out << "struct " << type_name(*message) << " {\n";
        for (int i = 0; i < message->field_count(); ++i) {
            out << "    " << member_of(*message->field(i)) << ";\n";
        }
        out << "};\n\n";
    }
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

void write_field(std::ostream& out, const FieldDescriptor& field) {
    const v1::About& about = field.options().GetExtension(v1::about);
    const auto flag = [](bool value) { return value ? "true" : "false"; };
    out << "    {.name = \"" << kebab(field.name()) << "\",\n     .help = \"" << help_of(field)
        << "\",\n     .number = " << field.number() << ",\n     .kind = Kind::" << kind_of(field)
        << ",\n     .unit = Unit::" << value_name(*v1::Unit_descriptor(), about.unit())
        << ",\n     .gauge = " << flag(about.gauge()) << ",\n     .key = " << flag(about.key())
        << ",\n     .meta = " << flag(about.meta())
        << ",\n     .inlined = " << flag(about.inlined()) << ",\n     .offset = offsetof("
        << type_name(*field.containing_type()) << ", " << field.name() << "),\n     .message = ";
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

void write_source(std::ostream& out, const std::string& header,
                  const std::vector<const Descriptor*>& messages) {
    out << kNotice << "#include \"" << header
        << "\"\n\n#include <array>\n#include <cstddef>\n#include <string_view>\n\n"
           "namespace umbra::telemetry::snapshot {\nnamespace {\n\n"
           "using schema::Field;\nusing schema::Kind;\nusing schema::Message;\n"
           "using schema::Unit;\n\n";
    for (const EnumDescriptor* type : enumerations_of(messages)) {
        out << "constexpr std::array<std::string_view, " << type->value_count() << "> k"
            << type->name() << "Names = {\n";
        for (int i = 0; i < type->value_count(); ++i) {
            out << "    \"" << kebab(value_name(*type, i)) << "\",\n";
        }
        out << "};\n\n";
    }
    for (const Descriptor* message : messages) {
        const std::string name = type_name(*message);
        out << "constexpr std::array<Field, " << message->field_count() << "> k" << name
            << "Fields = {{\n";
        for (int i = 0; i < message->field_count(); ++i) {
            write_field(out, *message->field(i));
        }
        out << "}};\nconstexpr Message k" << name << " = {\n    .name = \"" << name
            << "\",\n    .by = \"" << message->options().GetExtension(v1::by)
            << "\",\n    .map_entry = " << (message->options().map_entry() ? "true" : "false")
            << ",\n    .fields = k" << name << "Fields,\n    .list = schema::kListOperations<"
            << name << ">,\n};\n\n";
    }
    out << "}  // namespace\n\n";
    for (const Descriptor* message : messages) {
        const std::string name = type_name(*message);
        out << "template <>\nconst Message& schema_of<" << name << ">() {\n    return k" << name
            << ";\n}\n";
    }
    out << "\n}  // namespace umbra::telemetry::snapshot\n";
}

std::ofstream open_output(const char* path) {
    std::ofstream file(path);
    file.exceptions(std::ios::badbit | std::ios::failbit);
    return file;
}

void compile(const char* description, const char* header, const char* source) {
    FileDescriptorSet set;
    std::ifstream input(description, std::ios::binary);
    if (!set.ParseFromIstream(&input)) {
        throw std::runtime_error(std::string("cannot read ") + description);
    }
    DescriptorPool pool;
    const FileDescriptor* file = nullptr;
    for (const auto& part : set.file()) {
        file = pool.BuildFile(part);
        if (file == nullptr) {
            throw std::runtime_error(part.name() + " does not fit together");
        }
    }
    const Descriptor* snapshot = pool.FindMessageTypeByName("umbra.telemetry.v1.Snapshot");
    if (snapshot == nullptr) {
        throw std::runtime_error("there is no message Snapshot");
    }
    std::set<const Descriptor*> known;
    std::vector<const Descriptor*> messages;
    add_message(*snapshot, known, messages);

    std::ofstream header_file = open_output(header);
    write_header(header_file, messages);
    std::ofstream source_file = open_output(source);
    const std::string path = header;
    write_source(source_file, path.substr(path.rfind('/') + 1), messages);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: schema_compiler DESCRIPTORS HEADER SOURCE\n";
        return 2;
    }
    try {
        compile(argv[1], argv[2], argv[3]);
    } catch (const std::exception& error) {
        std::cerr << "schema_compiler: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
