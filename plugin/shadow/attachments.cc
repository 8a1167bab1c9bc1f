// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/attachments.h"

#include <algorithm>
#include <cstdint>

#include "plugin/shadow/verify_domain.h"

namespace umbra::shadow {

using telemetry::SyncTrigger;

Attachments::~Attachments() {
    while (!members_.empty()) {
        remove(*members_.back()->device);
    }
}

// ---- Devices ----

void Attachments::add(Device& device) {
    if (find(device) != members_.end()) {
        return;
    }
    auto member = std::make_unique<Member>();
    member->device = &device;
    if (HostMapper* mapper = device.mapper()) {
        member->binding =
            std::make_unique<HostBinding>(*mapper, member->counters.host, unit_.counters.host);
    }
    members_.push_back(std::move(member));
    const Member* added = members_.back().get();
    reread_members([added](const Member& candidate) { return &candidate == added; });
}

void Attachments::remove(Device& device) {
    const auto found = find(device);
    if (found == members_.end()) {
        return;
    }
    detach(**found);
    retry_stuck();
    members_.erase(found);
    remove_empty_domains();
}

void Attachments::replay(Device& device) {
    const auto found = find(device);
    if (found == members_.end() || (*found)->domain == nullptr) {
        return;
    }
    Domain& domain = *(*found)->domain;
    domain.forget(*(*found)->binding);
    jobs_.add(domain, {.trigger = SyncTrigger::replay, .walk = false});
    jobs_.restart_retries(domain);
}

Attachments::Members::iterator Attachments::find(const Device& device) {
    return std::find_if(members_.begin(), members_.end(),
                        [&](const auto& member) { return member->device == &device; });
}

// ---- Contexts ----

DeviceContext Attachments::context_of(const Member& member) const {
    if (!translation_) {
        return {.mode = DmaMode::pass_through};
    }
    const DeviceContext context = contexts_.context_of(member.device->source_id());
    return context.mode == DmaMode::translated ? context : DeviceContext{.mode = context.mode};
}

void Attachments::move_changed() {
    // All devices leave before any device comes: a mirror that a device leaves may be the one that
    // another device comes to.
    for (const auto& [member, context] : changed_) {
        detach(*member);
    }
    for (const auto& [member, context] : changed_) {
        const bool other_mode = !member->has_mode || context.mode != member->context.mode;
        member->context = context;
        member->has_mode = true;
        if (other_mode) {
            member->device->set_mode(context.mode);
        }
        if (context.mode == DmaMode::translated && member->binding != nullptr) {
            attach(*member);
        }
    }
    remove_empty_domains();
}

void Attachments::record(std::uint64_t start_ns) {
    const std::uint64_t total = unit_.clock.now_ns() - start_ns;
    ++unit_.syncs.syncs[SyncTrigger::context];
    telemetry::SyncLatency& latency = unit_.counters.latency[SyncTrigger::context];
    latency.host.record(total);
    latency.total.record(total);
    latency.wait.record(total);
    jobs_.add_hold(total);
}

void Attachments::attach(Member& member) {
    const DomainKey key = {member.context.domain, member.context.root, member.context.levels};
    std::unique_ptr<Domain>& domain = domains_[key];
    const bool fresh = domain == nullptr;
    if (fresh) {
        domain = std::make_unique<Domain>(key, unit_);
    }
    member.domain = domain.get();
    ++member.counters.attaches;
    domain->attach(*member.binding);
    jobs_.restart_retries(*domain);
    jobs_.add(*domain, {.trigger = SyncTrigger::attach, .walk = fresh});
}

void Attachments::detach(Member& member) {
    if (member.domain == nullptr) {
        return;
    }
    member.domain->detach(*member.binding);
    unit_.wants_retry = unit_.wants_retry || member.binding->has_stuck();
    jobs_.restart_retries(*member.domain);
    member.domain = nullptr;
    ++member.counters.detaches;
}

void Attachments::retry_stuck() {
    for (const auto& member : members_) {
        if (member->domain == nullptr && member->binding != nullptr &&
            member->binding->has_stuck()) {
            member->binding->retry_unmaps(IovaRange::everything());
        }
    }
}

std::uint64_t Attachments::trouble() const {
    std::uint64_t sum = 0;
    for (const auto& member : members_) {
        sum += member->binding != nullptr ? member->binding->trouble() : 0;
    }
    return sum;
}

void Attachments::remove_empty_domains() {
    std::erase_if(domains_, [this](const auto& entry) {
        const Domain& domain = *entry.second;
        if (!domain.bindings().empty()) {
            return false;
        }
        jobs_.drop(domain);
        return true;
    });
}

// ---- Looking at it ----

Verification Attachments::verify() const {
    Verification result;
    result.domains = domains_.size();
    for (const auto& member : members_) {
        if (member->domain != nullptr) {
            DomainVerifier(*member->domain, unit_)
                .verify(*member->binding, member->device->source_id(), result);
        }
    }
    return result;
}

}  // namespace umbra::shadow
