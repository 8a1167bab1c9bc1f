// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/json.h"

#include <charconv>

namespace umbra::qtest {

// Recursive descent. QEMU nests a few levels deep; the limit guards the stack.
class JsonParser {
  public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json whole() {
        Json value = parse_value(0);
        skip_space();
        if (at_ != text_.size()) {
            fail("text after the value");
        }
        return value;
    }

  private:
    static constexpr int kDepthLimit = 64;

    [[noreturn]] void fail(const std::string& what) const {
        throw JsonError("JSON, byte " + std::to_string(at_) + ": " + what);
    }

    void skip_space() {
        while (at_ < text_.size() &&
               std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
            at_++;
        }
    }

    char peek() {
        skip_space();
        if (at_ == text_.size()) {
            fail("unexpected end");
        }
        return text_[at_];
    }

    void expect(char c) {
        if (peek() != c) {
            fail(std::string("expected ") + c);
        }
        at_++;
    }

    bool accept(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) {
            return false;
        }
        at_ += word.size();
        return true;
    }

    Json parse_value(int depth) {
        if (depth > kDepthLimit) {
            fail("nested too deeply");
        }
        switch (peek()) {
            case '{':
                return parse_object(depth);
            case '[':
                return parse_list(depth);
            case '"':
                return Json(parse_string());
            default:
                break;
        }
        if (accept("true")) {
            return Json(true);
        }
        if (accept("false")) {
            return Json(false);
        }
        if (accept("null")) {
            return {};
        }
        return parse_number();
    }

    Json parse_object(int depth) {
        Json result;
        auto& object = result.value_.emplace<Json::Object>();
        expect('{');
        while (peek() != '}') {
            std::string name = parse_string();
            expect(':');
            object.insert_or_assign(std::move(name), parse_value(depth + 1));
            if (peek() != ',') {
                break;
            }
            at_++;
        }
        expect('}');
        return result;
    }

    Json parse_list(int depth) {
        Json result;
        auto& list = result.value_.emplace<Json::List>();
        expect('[');
        while (peek() != ']') {
            list.push_back(parse_value(depth + 1));
            if (peek() != ',') {
                break;
            }
            at_++;
        }
        expect(']');
        return result;
    }

    std::string parse_string() {
        std::string text;
        expect('"');
        for (;;) {
            if (at_ == text_.size()) {
                fail("string without an end");
            }
            const char c = text_[at_++];
            if (c == '"') {
                return text;
            }
            text += c == '\\' ? parse_escape() : std::string(1, c);
        }
    }

    std::string parse_escape() {
        if (at_ == text_.size()) {
            fail("string without an end");
        }
        const char c = text_[at_++];
        switch (c) {
            case 'n':
                return "\n";
            case 'r':
                return "\r";
            case 't':
                return "\t";
            case 'b':
                return "\b";
            case 'f':
                return "\f";
            case 'u': {
                unsigned code = 0;
                const std::string_view digits = text_.substr(at_, 4);
                const auto [end, error] =
                    std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
                if (error != std::errc() || end != digits.data() + 4) {
                    fail("bad \\u escape");
                }
                at_ += 4;
                return code < 0x80 ? std::string(1, static_cast<char>(code)) : "?";
            }
            default:
                return std::string(1, c);
        }
    }

    Json parse_number() {
        const char* const begin = text_.data() + at_;
        const char* const end = text_.data() + text_.size();
        std::int64_t integer = 0;
        const auto whole = std::from_chars(begin, end, integer);
        const bool fraction =
            whole.ptr < end && (*whole.ptr == '.' || *whole.ptr == 'e' || *whole.ptr == 'E');
        if (whole.ec == std::errc() && !fraction) {
            at_ += static_cast<std::size_t>(whole.ptr - begin);
            return Json(integer);
        }
        double real = 0;
        const auto parsed = std::from_chars(begin, end, real);
        if (parsed.ec != std::errc()) {
            fail("expected a value");
        }
        at_ += static_cast<std::size_t>(parsed.ptr - begin);
        return Json(real);
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

Json Json::parse(std::string_view text) {
    return JsonParser(text).whole();
}

bool Json::has(const std::string& member) const {
    return object().count(member) != 0;
}

const Json& Json::operator[](const std::string& member) const {
    const Object& members = object();
    const auto found = members.find(member);
    if (found == members.end()) {
        throw JsonError("JSON object has no member " + member);
    }
    return found->second;
}

}  // namespace umbra::qtest
