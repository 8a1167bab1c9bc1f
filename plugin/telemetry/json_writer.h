// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writes JSON: appends members and keeps track of commas.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace umbra::telemetry {

class JsonWriter {
  public:
    // Without a name: the whole, or an element of a list.
    void open(std::string_view name = {}) { begin(name, '{'); }
    void open_list(std::string_view name) { begin(name, '['); }
    void close() { end('}'); }
    void close_list() { end(']'); }

    void member(std::string_view name, std::uint64_t value) { raw(name, std::to_string(value)); }
    void member_bool(std::string_view name, bool value) { raw(name, value ? "true" : "false"); }
    void member_string(std::string_view name, std::string_view value) {
        separate(name);
        quote(value);
        first_ = false;
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    void raw(std::string_view name, std::string_view value) {
        separate(name);
        text_ += value;
        first_ = false;
    }
    void separate(std::string_view name) {
        if (!first_) {
            text_ += ", ";
        }
        if (!name.empty()) {
            quote(name);
            text_ += ": ";
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
    void quote(std::string_view value) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        text_ += '"';
        for (const char letter : value) {
            const auto code = static_cast<unsigned char>(letter);
            if (letter == '"' || letter == '\\') {
                text_ += '\\';
                text_ += letter;
            } else if (code < 0x20) {
                text_ += "\\u00";
                text_ += kDigits[code >> 4];
                text_ += kDigits[code & 0xf];
            } else {
                text_ += letter;
            }
        }
        text_ += '"';
    }

    std::string text_;
    bool first_ = true;
};

}  // namespace umbra::telemetry
