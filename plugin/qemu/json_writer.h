// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writes JSON for the properties of the device: appends members and keeps track of commas. Names
// and strings are not escaped: all are literals of this program, or numbers that it formatted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "plugin/vtd/counters.h"

namespace umbra {

class JsonWriter {
  public:
    void open(std::string_view name = {}) { begin(name, '{'); }
    void open_list(std::string_view name) { begin(name, '['); }
    void close() { end('}'); }
    void close_list() { end(']'); }

    void member(std::string_view name, std::uint64_t value) {
        separate(name);
        text_ += std::to_string(value);
        first_ = false;
    }
    void member(std::string_view name, const vtd::Counter& counter) {
        member(name, counter.value());
    }
    void member_string(std::string_view name, std::string_view value) {
        separate(name);
        text_ += '"';
        text_ += value;
        text_ += '"';
        first_ = false;
    }
    void member_bool(std::string_view name, bool value) {
        separate(name);
        text_ += value ? "true" : "false";
        first_ = false;
    }
    // `json` is a whole JSON value.
    void member_json(std::string_view name, std::string_view json) {
        separate(name);
        text_ += json;
        first_ = false;
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    void separate(std::string_view name) {
        if (!first_) {
            text_ += ", ";
        }
        if (!name.empty()) {
            text_ += '"';
            text_ += name;
            text_ += "\": ";
        }
    }
    void begin(std::string_view name, char bracket) {
        separate(name);
        text_ += bracket;
        first_ = true;
    }
    void end(char bracket) {
        text_ += bracket;
        first_ = false;
    }

    std::string text_;
    bool first_ = true;
};

}  // namespace umbra
