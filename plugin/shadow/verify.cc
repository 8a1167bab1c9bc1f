// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/verify.h"

#include <array>
#include <cstdio>

namespace umbra::shadow {
namespace {

const char* to_string(Access access) {
    constexpr std::array<const char*, 4> kNames = {"nothing", "r-", "-w", "rw"};
    return kNames.at(static_cast<std::size_t>(access));
}

std::string describe(const HostMapping& mapping) {
    if (mapping.access == Access::none) {
        return "nothing";
    }
    std::array<char, 96> text{};
    std::snprintf(text.data(), text.size(), "gpa 0x%llx host 0x%llx %s",
                  static_cast<unsigned long long>(mapping.guest.value()),
                  static_cast<unsigned long long>(mapping.host.value()), to_string(mapping.access));
    return text.data();
}

}  // namespace

std::string Difference::to_string() const {
    std::array<char, 128> text{};
    std::snprintf(text.data(), text.size(), "domain %u, device %02x:%02x.%x, iova 0x%llx-0x%llx: ",
                  static_cast<unsigned>(domain), static_cast<unsigned>(source.bus()),
                  static_cast<unsigned>(source.devfn() >> 3),
                  static_cast<unsigned>(source.devfn() & 7),
                  static_cast<unsigned long long>(expected.iova.value()),
                  static_cast<unsigned long long>((expected.iova + (expected.bytes - 1)).value()));
    return text.data() + ("expected " + describe(expected)) + ", actual " + describe(actual) +
           (kind == Kind::pending ? " (pending)" : " (error)");
}

}  // namespace umbra::shadow
