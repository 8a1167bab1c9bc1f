// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/environment.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>

namespace umbra::qtest {
namespace {

std::string environment_variable(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : otherwise;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) {
        if (!part.empty()) {
            parts.push_back(part);
        }
    }
    return parts;
}

}  // namespace

const Environment& Environment::get() {
    static const Environment environment = [] {
        Environment found;
        found.qemu = environment_variable("UMBRA_QEMU_BIN", UMBRA_DEFAULT_QEMU_BIN);
        found.plugin = environment_variable("UMBRA_PLUGIN", UMBRA_DEFAULT_PLUGIN);
        found.data_folders =
            split(environment_variable("UMBRA_QEMU_DATA", UMBRA_DEFAULT_QEMU_DATA), ':');
        return found;
    }();
    return environment;
}

std::string Environment::problem() const {
    if (qemu.empty() || ::access(qemu.c_str(), X_OK) != 0) {
        return "no QEMU: UMBRA_QEMU_BIN names no qemu-system-x86_64 (\"" + qemu + "\")";
    }
    if (plugin.empty() || ::access(plugin.c_str(), R_OK) != 0) {
        return "no plugin: UMBRA_PLUGIN names no umbra.so (\"" + plugin + "\")";
    }
    return {};
}

}  // namespace umbra::qtest
