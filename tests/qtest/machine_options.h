// SPDX-License-Identifier: GPL-2.0-or-later
//
// What a test asks of its machine, and the QEMU command line that this makes.
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace umbra::qtest {

enum class Viommu { none, intel, umbra };

// The name of the QOM type; empty for none.
[[nodiscard]] std::string_view type_name(Viommu viommu);
// For GoogleTest.
void PrintTo(Viommu viommu, std::ostream* stream);

struct MachineOptions {
    Viommu viommu = Viommu::umbra;
    unsigned address_width = 48;
    bool interrupt_remapping = true;
    std::string viommu_properties{};  // further ones, each with a comma before it
    std::string plugin_options{};     // options of -plugin, each with a comma before it
    std::string machine = "q35";
    unsigned memory_mib = 512;
    unsigned cpus = 1;
    std::vector<std::string> arguments{};  // after the vIOMMU, one word each
};

// The first words of every command line: QEMU itself, its firmware folders, and no default devices.
[[nodiscard]] std::vector<std::string> base_arguments();
// Appends the plugin, the vIOMMU, and the devices of `options`.
void append_devices(std::vector<std::string>& arguments, const MachineOptions& options);

// QEMU that is expected to refuse its command line. The exit status is nullopt if it did not exit.
struct Refusal {
    std::optional<int> status;
    std::string output;
};
[[nodiscard]] Refusal run_refused(const MachineOptions& options);
[[nodiscard]] Refusal run_refused(const std::vector<std::string>& arguments);

}  // namespace umbra::qtest
