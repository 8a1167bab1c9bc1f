// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/samples.h"

#include <array>
#include <cstdio>
#include <set>

#include "plugin/telemetry/distribution.h"
#include "plugin/telemetry/json.h"

namespace umbra::tools {
namespace {

using telemetry::schema::Field;
using telemetry::schema::Kind;
using telemetry::schema::Record;
using telemetry::schema::Unit;

std::string key_text(const Record& record, const Field& field) {
    if (field.kind == Kind::text) {
        return record.text(field);
    }
    switch (field.unit) {
        case Unit::address:
            return telemetry::address_text(record.integer(field));
        case Unit::source_id:
            return source_text(record.integer(field));
        default:
            return std::to_string(record.integer(field));
    }
}

// Names of lists are plurals.
std::string singular(std::string_view name) {
    return std::string(name.ends_with('s') ? name.substr(0, name.size() - 1) : name);
}

class Walk {
  public:
    void record(const Record& record, const std::string& name,
                std::vector<std::pair<std::string, std::string>> labels, std::string_view help) {
        for (const Field& field : record.fields()) {
            if (field.key) {
                labels.emplace_back(field.name, key_text(record, field));
            }
        }
        for (const Field& field : record.fields()) {
            if (!field.key && !field.meta) {
                this->field(record, field, name, labels, help);
            }
        }
    }

    std::vector<Sample> take() { return std::move(samples_); }

  private:
    using Labels = std::vector<std::pair<std::string, std::string>>;

    static std::string join(const std::string& name, std::string_view more) {
        return name.empty() ? std::string(more) : name + "-" + std::string(more);
    }

    void field(const Record& record, const Field& field, const std::string& owner, Labels labels,
               std::string_view owner_help) {
        const std::string_view by = record.message().by;
        std::string name = owner;
        std::string_view help = owner_help;
        if (!by.empty()) {
            labels.emplace_back(by, field.name);
        } else if (!field.inlined) {
            name = join(owner, field.name);
            help = field.help.empty() ? owner_help : field.help;
        }
        switch (field.kind) {
            case Kind::integer:
                samples_.push_back(
                    {.name = name,
                     .labels = std::move(labels),
                     .kind = field.gauge ? Sample::Kind::gauge : Sample::Kind::counter,
                     .unit = field.unit,
                     .help = help,
                     .value = record.integer(field),
                     .field = &field});
                break;
            case Kind::enumeration:
                samples_.push_back({.name = name,
                                    .labels = std::move(labels),
                                    .kind = Sample::Kind::state,
                                    .help = help,
                                    .value = record.integer(field),
                                    .field = &field});
                break;
            case Kind::message:
                message(record.record(field), name, std::move(labels), help);
                break;
            case Kind::list:
                list(record, field, owner, labels, help);
                break;
            case Kind::text:
                break;
        }
    }

    void message(const Record& message, const std::string& name, Labels labels,
                 std::string_view help) {
        if (const auto* histogram = telemetry::as_histogram(message)) {
            samples_.push_back({.name = name,
                                .labels = std::move(labels),
                                .kind = Sample::Kind::histogram,
                                .unit = Unit::nanoseconds,
                                .help = help,
                                .histogram = histogram});
            return;
        }
        record(message, name, std::move(labels), help);
    }

    void list(const Record& owner, const Field& list, const std::string& name, const Labels& labels,
              std::string_view help) {
        std::set<std::string> keys;
        for (std::size_t i = 0; i < owner.size(list); ++i) {
            const Record element = owner.at(list, i);
            Labels own = labels;
            if (list.message->map_entry) {
                own.emplace_back(singular(list.name), element.text(element.fields()[0]));
                samples_.push_back({.name = join(name, list.name),
                                    .labels = std::move(own),
                                    .help = help,
                                    .value = element.integer(element.fields()[1]),
                                    .field = &list});
                continue;
            }
            // Devices on buses that the guest has not numbered yet have the same source-id.
            if (!keys.insert(key_of(element)).second) {
                own.emplace_back("element", std::to_string(i));
            }
            record(element, join(name, singular(list.name)), std::move(own), help);
        }
    }

    static std::string key_of(const Record& element) {
        std::string key;
        for (const Field& field : element.fields()) {
            if (field.key) {
                key += key_text(element, field) + ' ';
            }
        }
        return key;
    }

    std::vector<Sample> samples_;
};

}  // namespace

std::vector<Sample> samples_of(const telemetry::snapshot::Snapshot& snapshot) {
    Walk walk;
    walk.record(telemetry::snapshot::record(snapshot), "", {}, "");
    return walk.take();
}

std::string source_text(std::uint64_t source) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%02x:%02x.%x",
                  static_cast<unsigned>(source >> 8 & 0xff),
                  static_cast<unsigned>(source >> 3 & 0x1f), static_cast<unsigned>(source & 7));
    return text.data();
}

}  // namespace umbra::tools
