// SPDX-License-Identifier: GPL-2.0-or-later
//
// A JSON value as QEMU's monitor prints it. For reading answers in tests: numbers are doubles and
// signed 64-bit integers, strings are bytes, and what is missing or malformed is a JsonError.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace umbra::qtest {

class JsonError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

class Json {
  public:
    using Object = std::map<std::string, Json>;
    using List = std::vector<Json>;

    Json() = default;

    // The whole text must be one value, with white space around it at most.
    [[nodiscard]] static Json parse(std::string_view text);

    friend bool operator==(const Json&, const Json&) = default;

    [[nodiscard]] bool has(const std::string& member) const;
    // Members of objects. JsonError names the member that is missing.
    [[nodiscard]] const Json& operator[](const std::string& member) const;
    [[nodiscard]] const List& list() const { return get<List>("list"); }
    [[nodiscard]] const Object& object() const { return get<Object>("object"); }
    [[nodiscard]] const std::string& string() const { return get<std::string>("string"); }
    [[nodiscard]] std::int64_t integer() const { return get<std::int64_t>("integer"); }
    [[nodiscard]] bool boolean() const { return get<bool>("boolean"); }

  private:
    friend class JsonParser;
    using Value =
        std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Object>;

    explicit Json(Value value) : value_(std::move(value)) {}

    template <class T>
    [[nodiscard]] const T& get(const char* kind) const {
        const T* value = std::get_if<T>(&value_);
        if (value == nullptr) {
            throw JsonError(std::string("JSON value is no ") + kind);
        }
        return *value;
    }

    Value value_;
};

}  // namespace umbra::qtest
