// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/verification_json.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "plugin/telemetry/json.h"
#include "plugin/telemetry/json_writer.h"

namespace umbra::bridge {
namespace {

using shadow::Difference;
using shadow::HostMapping;
using telemetry::address_text;
using telemetry::JsonWriter;

std::string_view name_of(Access access) {
    constexpr std::array<std::string_view, 4> kNames = {"none", "read", "write", "read-write"};
    return kNames[static_cast<std::size_t>(access) & 3];
}

void write_side(JsonWriter& out, std::string_view name, const HostMapping& side) {
    out.open(name);
    out.member_string("guest", address_text(side.guest.value()));
    out.member_string("access", name_of(side.access));
    out.close();
}

}  // namespace

std::string verification_json(const shadow::Verification& verification) {
    JsonWriter out;
    out.open();
    out.member_bool("clean", verification.clean());
    out.member_bool("complete", verification.complete);
    if (verification.stopped_at) {
        out.member_string("stopped-at", address_text(verification.stopped_at->value()));
    }
    out.member("domains", verification.domains);
    out.member("devices", verification.devices);
    out.member("pages-checked", verification.pages_checked);
    out.member("errors", verification.errors);
    out.member("pending", verification.pending);
    out.open_list("differences");
    for (const Difference& difference : verification.differences) {
        out.open();
        out.member_string("kind", difference.kind == Difference::Kind::error ? "error" : "pending");
        out.member("domain", static_cast<std::uint64_t>(difference.domain));
        out.member("source", difference.source.value());
        out.member_string("iova", address_text(difference.expected.iova.value()));
        out.member("bytes", difference.expected.bytes);
        write_side(out, "expected", difference.expected);
        write_side(out, "actual", difference.actual);
        out.close();
    }
    out.close_list();
    out.close();
    return out.take();
}

}  // namespace umbra::bridge
