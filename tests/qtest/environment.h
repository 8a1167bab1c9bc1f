// SPDX-License-Identifier: GPL-2.0-or-later
//
// The QEMU and the plugin that the tests run on.
#pragma once

#include <string>
#include <vector>

namespace umbra::qtest {

// UMBRA_QEMU_BIN (a qemu-system-x86_64), UMBRA_PLUGIN (umbra.so) and UMBRA_QEMU_DATA (firmware
// folders, separated by colons): from the environment, or else as CMake was configured.
struct Environment {
    std::string qemu;
    std::string plugin;
    std::vector<std::string> data_folders;

    static const Environment& get();
    // Empty if everything is there; else a sentence that says what is missing.
    [[nodiscard]] std::string problem() const;
};

}  // namespace umbra::qtest
