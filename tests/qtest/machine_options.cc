// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/machine_options.h"

#include <chrono>

#include "tests/qtest/child_process.h"
#include "tests/qtest/environment.h"

namespace umbra::qtest {
namespace {

// Far from what any step takes, so that a slow machine does not fail.
constexpr std::chrono::seconds kRefusalLimit{30};

std::string viommu_device(const MachineOptions& options) {
    std::string device(type_name(options.viommu));
    device += ",id=viommu,caching-mode=on";
    device += ",aw-bits=" + std::to_string(options.address_width);
    device += options.interrupt_remapping ? ",intremap=on" : ",intremap=off";
    return device + options.viommu_properties;
}

}  // namespace

std::vector<std::string> base_arguments() {
    const Environment& environment = Environment::get();
    std::vector<std::string> arguments = {environment.qemu};
    for (const std::string& folder : environment.data_folders) {
        arguments.insert(arguments.end(), {"-L", folder});
    }
    arguments.insert(arguments.end(), {"-nodefaults", "-display", "none", "-vga", "none",
                                       "-no-user-config", "-accel", "qtest"});
    return arguments;
}

void append_devices(std::vector<std::string>& arguments, const MachineOptions& options) {
    arguments.insert(arguments.end(),
                     {"-plugin", "file=" + Environment::get().plugin + options.plugin_options});
    if (options.viommu != Viommu::none) {
        arguments.insert(arguments.end(), {"-device", viommu_device(options)});
    }
    arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
}

std::string_view type_name(Viommu viommu) {
    switch (viommu) {
        case Viommu::intel:
            return "intel-iommu";
        case Viommu::umbra:
            return "umbra-viommu";
        case Viommu::none:
            break;
    }
    return "";
}

void PrintTo(Viommu viommu, std::ostream* stream) {
    *stream << type_name(viommu);
}

Refusal run_refused(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = base_arguments();
    words.insert(words.end(), arguments.begin(), arguments.end());
    ChildProcess child(words, {});
    Refusal refusal;
    refusal.status = child.wait_exit(kRefusalLimit);
    refusal.output = child.output();
    return refusal;
}

Refusal run_refused(const MachineOptions& options) {
    std::vector<std::string> more = {"-M", options.machine};
    append_devices(more, options);
    return run_refused(more);
}

}  // namespace umbra::qtest
