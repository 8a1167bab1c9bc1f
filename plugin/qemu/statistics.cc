// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/statistics.h"

#include <cstddef>
#include <cstdint>

#include "plugin/qemu/json_writer.h"

namespace umbra {
namespace {

using vtd::Counters;
using vtd::DomainCounters;
using vtd::FaultReason;
using vtd::InvalidationKind;
using vtd::InvalidationPath;
using vtd::QueueError;

void write_invalidations(JsonWriter& out, const Counters& counters) {
    out.open("invalidations");
    for (std::size_t p = 0; p < vtd::kInvalidationPaths; ++p) {
        const auto path = static_cast<InvalidationPath>(p);
        out.open(name_of(path));
        for (std::size_t k = 0; k < vtd::kInvalidationKinds; ++k) {
            const auto kind = static_cast<InvalidationKind>(k);
            out.member(name_of(kind), counters.invalidation(kind, path));
        }
        out.close();
    }
    out.close();
    out.member("register-commands-refused", counters.register_commands_refused);
}

void write_queue(JsonWriter& out, const Counters& counters) {
    out.open("queue");
    out.member("tail-writes", counters.tail_writes);
    out.member("wait-descriptors", counters.wait_descriptors);
    out.member("wait-status", counters.wait_status);
    out.member("wait-interrupt", counters.wait_interrupt);
    out.member("wait-fence", counters.wait_fence);
    out.member("wait-status-lost", counters.wait_status_lost);
    out.open("errors");
    for (std::size_t e = 0; e < vtd::kQueueErrors; ++e) {
        const auto error = static_cast<QueueError>(e);
        out.member(name_of(error), counters.queue_error(error));
    }
    out.close();
    out.close();
}

void write_faults(JsonWriter& out, const Counters& counters) {
    out.open("faults");
    out.member("recorded", counters.faults_recorded);
    out.member("overflowed", counters.faults_overflowed);
    out.member("collapsed", counters.faults_collapsed);
    out.member("suppressed", counters.faults_suppressed);
    out.open("reasons");
    for (std::size_t code = 0; code < vtd::kFaultReasonCodes; ++code) {
        const auto reason = static_cast<FaultReason>(code);
        if (const std::uint64_t count = counters.fault(reason).value(); count > 0) {
            out.member(fault_reason_name(reason), count);
        }
    }
    out.close();
    out.close();
}

void write_domains(JsonWriter& out, const Counters& counters) {
    out.open("iotlb");
    out.member("hits", counters.iotlb_hits());
    out.member("misses", counters.iotlb_misses());
    out.close();

    out.open_list("domains");
    counters.domains.for_each([&](DomainId id, const DomainCounters& domain) {
        out.open();
        out.member("domain", static_cast<std::uint16_t>(id));
        out.member("iotlb-hits", domain.iotlb_hits);
        out.member("iotlb-misses", domain.iotlb_misses);
        out.member("domain-invalidations", domain.domain_invalidations);
        out.member("page-invalidations", domain.page_invalidations);
        out.member("pages-invalidated", domain.pages_invalidated);
        out.member("faults", domain.faults);
        out.close();
    });
    out.close_list();
}

}  // namespace

std::string statistics_json(const Counters& counters, std::string_view shadow) {
    JsonWriter out;
    out.open();
    out.member("version", std::uint64_t{1});
    write_invalidations(out, counters);
    write_queue(out, counters);
    write_faults(out, counters);
    write_domains(out, counters);
    out.member_json("shadow", shadow);
    out.close();
    return out.take();
}

}  // namespace umbra
