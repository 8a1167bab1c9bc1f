// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/manager.h"

#include <algorithm>
#include <limits>

namespace umbra::shadow {

using telemetry::SyncTrigger;

namespace {

bool misses_anything(const Domain& domain) {
    return std::any_of(domain.bindings().begin(), domain.bindings().end(),
                       [](const HostBinding* binding) { return binding->has_missing(); });
}

bool wants_retry(const Domain& domain) {
    return std::any_of(
        domain.bindings().begin(), domain.bindings().end(),
        [](const HostBinding* binding) { return binding->has_missing() || binding->has_stuck(); });
}

// A retry is due after a second; each one that leaves something to do doubles the time to the next.
constexpr unsigned kFirstRetryMs = 1000;
constexpr unsigned kMostDoublings = 6;

}  // namespace

Manager::Manager(const Options& options, vtd::EntryFormat format, Ports ports)
    : options_(options),
      format_(format),
      unit_{.memory = ports.memory,
            .ram = ports.ram,
            .events = ports.events,
            .clock = ports.clock,
            .options = options_,
            .format = format_,
            .counters = counters_,
            .tables = {.limit = options.max_tables_unit}},
      jobs_(options_, ports.clock, counters_.lock_hold),
      attachments_(unit_, ports.contexts, jobs_) {}

Manager::~Manager() = default;

// ---- Devices ----

void Manager::add_device(Device& device) {
    attachments_.add(device);
    jobs_.settle();
}

void Manager::remove_device(Device& device) {
    attachments_.remove(device);
}

void Manager::replay(Device& device) {
    attachments_.replay(device);
    jobs_.settle();
}

void Manager::sources_changed() {
    reread_all_contexts();
}

void Manager::settle() {
    jobs_.settle();
}

void Manager::ram_changed() {
    const std::uint64_t start = unit_.clock.now_ns();
    const std::uint64_t slice = options_.slice_ns == 0
                                    ? std::numeric_limits<std::uint64_t>::max() - start
                                    : options_.slice_ns;
    attachments_.each_domain([&](Domain& domain) {
        domain.follow_ram(start + slice);
        jobs_.add(domain, {.trigger = SyncTrigger::memory, .walk = false});
    });
    const std::uint64_t used = unit_.clock.now_ns() - start;
    jobs_.add_hold(used);
    jobs_.spend(slice - std::min(slice, used));
}

void Manager::machine_goes_on() {
    attachments_.each_domain([this](Domain& domain) {
        domain.machine_goes_on();
        if (misses_anything(domain)) {
            jobs_.add(domain, {.trigger = SyncTrigger::memory, .walk = false});
        }
    });
    jobs_.settle();
    if (holds_machine()) {
        attachments_.each_domain([](Domain& domain) { domain.insist_on_stop(); });
    }
}

void Manager::set_on_map_error(OnMapError choice) {
    unit_.map_errors.choice = choice;
    if (choice == OnMapError::report) {
        attachments_.each_domain([](Domain& domain) { domain.let_machine_go(); });
    }
}

unsigned Manager::retry_delay_ms() {
    if (!unit_.wants_retry || !jobs_.caught_up()) {
        return 0;
    }
    const std::uint64_t trouble = attachments_.trouble();
    if (trouble != trouble_) {
        trouble_ = trouble;
        retries_ = 0;
    }
    unit_.wants_retry = trouble != 0;
    return trouble == 0 ? 0 : kFirstRetryMs << std::min(retries_, kMostDoublings);
}

void Manager::retry() {
    if (!jobs_.caught_up()) {
        return;
    }
    ++retries_;
    attachments_.retry_stuck();
    attachments_.each_domain([this](Domain& domain) {
        if (wants_retry(domain)) {
            jobs_.add(domain, {.trigger = SyncTrigger::retry, .walk = false});
        }
    });
}

void Manager::reread_all_contexts() {
    attachments_.reread_all();
    jobs_.settle();
}

void Manager::sync_all(const SyncJob& sync) {
    attachments_.each_domain([&](Domain& domain) { jobs_.add(domain, sync); });
    jobs_.settle();
}

void Manager::sync_domain(DomainId id) {
    attachments_.each_domain_of(
        id, [this](Domain& domain) { jobs_.add(domain, {.trigger = SyncTrigger::domain}); });
    jobs_.settle();
}

void Manager::sync_pages(DomainId id, IovaRange pages) {
    attachments_.each_domain_of(id, [&](Domain& domain) { jobs_.add_pages(domain, pages); });
    jobs_.settle();
}

// ---- vtd::InvalidationObserver ----

void Manager::invalidated(const vtd::Invalidation& invalidation) {
    switch (invalidation.kind) {
        // A domain-selective invalidation concerns the devices that were in the domain,
        // pass-through ones included. It also concerns the devices whose entries were cached under
        // domain 0 because the entries are not valid (specification 6.5.2.1). Reading all contexts
        // again costs little, and other devices stay as they are.
        case vtd::InvalidationKind::context_global:
        case vtd::InvalidationKind::context_domain:
            reread_all_contexts();
            break;
        case vtd::InvalidationKind::context_device:
            attachments_.reread(
                [&](SourceId source) { return invalidation.devices.covers(source); });
            jobs_.settle();
            break;
        case vtd::InvalidationKind::iotlb_global:
            attachments_.retry_stuck();
            sync_all({.trigger = SyncTrigger::global});
            break;
        case vtd::InvalidationKind::iotlb_domain:
            sync_domain(invalidation.domain);
            break;
        // The tables above the leaves are looked at even if the guest gives the hint that only
        // leaves changed. That costs three more loads, and makes a wrong hint harmless.
        case vtd::InvalidationKind::iotlb_page:
            if (invalidation.range == IovaRange::everything()) {
                sync_domain(invalidation.domain);
            } else {
                sync_pages(invalidation.domain, invalidation.range);
            }
            break;
        // The device's own TLB is the host's business: an unmap on the host reaches that TLB.
        // Interrupts are the platform's business.
        case vtd::InvalidationKind::device_tlb:
        case vtd::InvalidationKind::interrupt_global:
        case vtd::InvalidationKind::interrupt_index:
            break;
    }
}

void Manager::interrupt_remapping_changed(bool /*enabled*/) {}

void Manager::translation_changed(bool enabled) {
    attachments_.set_translation(enabled);
    attachments_.reread_all();
    sync_all({.trigger = SyncTrigger::context});
}

void Manager::batch_begin() {
    jobs_.batch_begin();
}

void Manager::barrier() {
    jobs_.barrier();
}

void Manager::batch_end() {
    jobs_.batch_end();
}

bool Manager::caught_up() const {
    return jobs_.caught_up();
}

bool Manager::may_complete() const {
    return !holds_machine();
}

bool Manager::has_time() const {
    return jobs_.has_time();
}

bool Manager::run() {
    return jobs_.run();
}

// ---- Looking at it ----

Verification Manager::verify() const {
    return attachments_.verify();
}

const telemetry::UnitShadowCounters& Manager::counters() const {
    counters_.sync = unit_.syncs;
    for (const auto& [key, domain] : attachments_.domains()) {
        domain->add_counts_to(counters_.sync);
    }
    return counters_;
}

void Manager::clear_counters() {
    counters_.clear();
    unit_.syncs.clear();
    attachments_.each_domain([](Domain& domain) { domain.clear_counters(); });
    for (const auto& member : attachments_.members()) {
        member->counters.clear();
    }
}

void Manager::visit_domains(const std::function<void(const DomainView&)>& visit) const {
    for (const auto& [key, domain] : attachments_.domains()) {
        visit({key.domain, key.root, key.levels, domain->bindings().size(), domain->counters()});
    }
}

void Manager::visit_devices(const std::function<void(const DeviceView&)>& visit) const {
    for (const auto& member : attachments_.members()) {
        visit({member->device->source_id(), member->context, member->binding != nullptr,
               member->counters});
    }
}

}  // namespace umbra::shadow
