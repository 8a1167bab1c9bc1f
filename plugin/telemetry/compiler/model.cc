// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/telemetry/compiler/model.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <stdexcept>

namespace umbra::schema_compiler {
namespace {

using google::protobuf::SourceLocation;
namespace v1 = telemetry::v1;

std::string lower(std::string text) {
    std::ranges::transform(text, text.begin(),
                           [](unsigned char letter) { return std::tolower(letter); });
    return text;
}

template <class Described>
std::string leading_comment(const Described& described) {
    SourceLocation location;
    if (!described.GetSourceLocation(&location)) {
        throw std::runtime_error("no source information: call protoc with --include_source_info");
    }
    std::string text;
    for (const char letter : location.leading_comments) {
        if (std::isspace(static_cast<unsigned char>(letter)) == 0) {
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

void add_message(const Descriptor& message, std::vector<const Descriptor*>& ordered) {
    if (std::ranges::find(ordered, &message) != ordered.end()) {
        return;
    }
    for (const FieldDescriptor* field : fields_of(message)) {
        if (field->message_type() != nullptr) {
            add_message(*field->message_type(), ordered);
        }
    }
    ordered.push_back(&message);
}

bool same_fields(const Descriptor& one, const Descriptor& other) {
    return std::ranges::equal(fields_of(one), fields_of(other), {}, &FieldDescriptor::name,
                              &FieldDescriptor::name);
}

std::string peak_of(const FieldDescriptor& field) {
    return about(field).peak_of();
}

void check_counted(const FieldDescriptor& field, Writers writers) {
    const std::string peak = peak_of(field);
    if (!peak.empty()) {
        const FieldDescriptor* of = field.containing_type()->FindFieldByName(peak);
        if (of == nullptr || !about(*of).gauge() || !about(field).gauge()) {
            throw std::runtime_error(field.full_name() + " is the peak of what is no gauge");
        }
    }
    const bool number = kind_of(field) == Kind::integer;
    if (!number && kind_of(field) != Kind::message) {
        throw std::runtime_error(field.full_name() + " cannot be counted: it must be computed");
    }
    if (writers == Writers::several &&
        (about(field).gauge() || is_histogram(field.message_type()))) {
        throw std::runtime_error(field.full_name() + " cannot be atomic: no plain count");
    }
}

void add_counter_struct(const Descriptor& message, Writers writers,
                        std::vector<CounterStruct>& ordered) {
    const std::string name = counter_name(message);
    const bool known = std::ranges::any_of(ordered, [&](const CounterStruct& other) {
        return other.name == name && other.writers == writers;
    });
    if (known || is_histogram(&message)) {
        return;
    }
    for (const FieldDescriptor* field : counted_fields_of(message)) {
        check_counted(*field, writers);
        if (field->message_type() != nullptr) {
            add_counter_struct(*field->message_type(), writers, ordered);
        }
    }
    ordered.push_back({.message = &message, .name = name, .writers = writers});
}

}  // namespace

std::string kebab(const std::string& name) {
    std::string text = lower(name);
    std::ranges::replace(text, '_', '-');
    return text;
}

std::string type_name(const Descriptor& message) {
    const Descriptor* outer = message.containing_type();
    return (outer != nullptr ? type_name(*outer) : std::string()) + message.name();
}

std::string value_name(const EnumDescriptor& type, int index) {
    const std::string name = lower(type.value(index)->name());
    const std::string prefix = lower(type.name()) + "_";
    if (!name.starts_with(prefix)) {
        throw std::runtime_error(name + " must begin with " + prefix);
    }
    return name.substr(prefix.size());
}

std::string comment_of(const FieldDescriptor& field) {
    return field.containing_type()->options().map_entry() ? std::string() : leading_comment(field);
}

std::string comment_of(const Descriptor& message) {
    return message.options().map_entry() ? std::string() : leading_comment(message);
}

const v1::About& about(const FieldDescriptor& field) {
    return field.options().GetExtension(v1::about);
}

Kind kind_of(const FieldDescriptor& field) {
    if (field.is_repeated()) {
        if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
            return Kind::list;
        }
    } else {
        switch (field.type()) {
            case FieldDescriptor::TYPE_UINT32:
            case FieldDescriptor::TYPE_UINT64:
                return Kind::integer;
            case FieldDescriptor::TYPE_STRING:
                return Kind::text;
            case FieldDescriptor::TYPE_ENUM:
                return Kind::enumeration;
            case FieldDescriptor::TYPE_MESSAGE:
                return Kind::message;
            default:
                break;
        }
    }
    throw std::runtime_error(field.full_name() + " has a type that is not supported here");
}

std::vector<const FieldDescriptor*> fields_of(const Descriptor& message) {
    std::vector<const FieldDescriptor*> fields;
    fields.reserve(static_cast<std::size_t>(message.field_count()));
    for (int i = 0; i < message.field_count(); ++i) {
        fields.push_back(message.field(i));
    }
    return fields;
}

std::vector<const Descriptor*> messages_of(const Descriptor& root) {
    std::vector<const Descriptor*> ordered;
    add_message(root, ordered);
    return ordered;
}

std::vector<const EnumDescriptor*> enumerations_of(const std::vector<const Descriptor*>& messages) {
    std::vector<const EnumDescriptor*> found;
    for (const Descriptor* message : messages) {
        for (const FieldDescriptor* field : fields_of(*message)) {
            const EnumDescriptor* type = field->enum_type();
            if (type != nullptr && std::ranges::find(found, type) == found.end()) {
                found.push_back(type);
            }
        }
    }
    return found;
}

std::string index_of(const Descriptor& message) {
    std::string name = message.options().GetExtension(v1::enumeration);
    const std::vector<const FieldDescriptor*> fields = fields_of(message);
    const auto differs = [&fields](const FieldDescriptor* field) {
        return kind_of(*field) != kind_of(*fields.front()) ||
               field->message_type() != fields.front()->message_type();
    };
    if (!name.empty() && std::ranges::any_of(fields, differs)) {
        throw std::runtime_error(message.full_name() + " needs fields of one type");
    }
    return name;
}

std::vector<const Descriptor*> indices_of(const std::vector<const Descriptor*>& messages) {
    std::vector<const Descriptor*> found;
    for (const Descriptor* message : messages) {
        if (index_of(*message).empty()) {
            continue;
        }
        const auto known = std::ranges::find_if(found, [message](const Descriptor* other) {
            return index_of(*other) == index_of(*message);
        });
        if (known == found.end()) {
            found.push_back(message);
        } else if (!same_fields(**known, *message)) {
            throw std::runtime_error(message->full_name() + " and " + (*known)->full_name() +
                                     " have one enumeration and need the same fields");
        }
    }
    return found;
}

std::vector<CounterStruct> counter_structs_of(const std::vector<const Descriptor*>& messages) {
    std::vector<CounterStruct> ordered;
    for (const Descriptor* message : messages) {
        if (!message->options().GetExtension(v1::counted_in).empty()) {
            const bool atomic = message->options().GetExtension(v1::atomic);
            add_counter_struct(*message, atomic ? Writers::several : Writers::one, ordered);
        }
    }
    return ordered;
}

std::vector<const FieldDescriptor*> counted_fields_of(const Descriptor& message) {
    std::vector<const FieldDescriptor*> fields = fields_of(message);
    std::erase_if(fields, [](const FieldDescriptor* field) {
        const v1::About& told = about(*field);
        return kind_of(*field) == Kind::list || told.key() || told.meta() || told.computed();
    });
    return fields;
}

std::string counter_name(const Descriptor& message) {
    const std::string& name = message.options().GetExtension(v1::counted_in);
    return name.empty() ? type_name(message) : name;
}

bool is_histogram(const Descriptor* message) {
    return message != nullptr && message->full_name() == "umbra.telemetry.v1.Histogram";
}

bool is_shared(const CounterStruct& counted) {
    const std::vector<const FieldDescriptor*> fields = counted_fields_of(*counted.message);
    return counted.writers == Writers::one && counted.name == type_name(*counted.message) &&
           fields == fields_of(*counted.message) &&
           std::ranges::all_of(fields, [](const FieldDescriptor* field) {
               const Descriptor* part = field->message_type();
               return part == nullptr ||
                      (!is_histogram(part) && is_shared({.message = part,
                                                         .name = counter_name(*part),
                                                         .writers = Writers::one}));
           });
}

}  // namespace umbra::schema_compiler
