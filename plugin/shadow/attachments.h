// SPDX-License-Identifier: GPL-2.0-or-later
//
// Which device is attached to which guest domain: the devices behind one unit, the domains that
// they make, and the context entries that decide.
//
// A domain lives as long as a device with a host mapper is attached to it. A device without a host
// mapper gets its mode and is attached to no domain. Context entries are read again when the guest
// invalidates them, and compared with those that were read before: a device whose context is the
// same is not touched.
//
// An attached device needs a sync. Attachments puts it into the queue of jobs, and its caller
// settles the queue.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "counter_types.h"
#include "plugin/shadow/device.h"
#include "plugin/shadow/domain.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/job_queue.h"
#include "plugin/shadow/verify.h"

namespace umbra::shadow {

class Attachments {
  public:
    // One device.
    struct Member {
        Device* device = nullptr;
        DeviceContext context;  // as read last; domain, root and levels only if translated
        bool has_mode = false;  // set_mode was called once
        telemetry::DeviceShadowCounters counters;
        std::unique_ptr<HostBinding> binding;  // null without a host mapper
        Domain* domain = nullptr;              // null while it is attached to none
    };
    using Members = std::vector<std::unique_ptr<Member>>;
    using Domains = std::map<DomainKey, std::unique_ptr<Domain>>;

    // All outlive the object. Translation counts as off until set_translation(true).
    Attachments(UnitResources& unit, const ContextSource& contexts, JobQueue& jobs)
        : unit_(unit), contexts_(contexts), jobs_(jobs) {}
    // Removes every device.
    ~Attachments();
    Attachments(const Attachments&) = delete;
    Attachments& operator=(const Attachments&) = delete;

    // ---- Devices ----

    // Each does nothing if the device is there already, or is not there.
    void add(Device& device);
    void remove(Device& device);
    // The device's host mapper lost everything: puts off a sync that maps it again.
    void replay(Device& device);

    // ---- Contexts ----

    // Takes effect with the next look at the contexts.
    void set_translation(bool enabled) { translation_ = enabled; }
    // Reads the context entries of the devices for which `concerned(SourceId)` is true, and moves
    // those whose context is another one than before.
    template <class Concerned>
    void reread(Concerned&& concerned) {
        reread_members([&](const Member& member) { return concerned(member.device->source_id()); });
    }
    void reread_all() {
        reread_members([](const Member&) { return true; });
    }

    // Tries again to unmap what the host did not let go of devices that left their domain.
    void retry_stuck();
    // How many leaves are missing and stretches stuck, with all devices together.
    [[nodiscard]] std::uint64_t trouble() const;

    // ---- Domains ----

    // Both call `visit(Domain&)`.
    template <class Visit>
    void each_domain(Visit&& visit) {
        for (auto& [key, domain] : domains_) {
            visit(*domain);
        }
    }
    // Devices of one domain-id have different tables while the guest is about to change them.
    template <class Visit>
    void each_domain_of(DomainId id, Visit&& visit) {
        auto at = domains_.lower_bound({id, Gpa(0), 0});
        while (at != domains_.end() && at->first.domain == id) {
            visit(*at->second);
            ++at;
        }
    }

    // ---- Looking at it ----

    [[nodiscard]] const Members& members() const { return members_; }
    [[nodiscard]] const Domains& domains() const { return domains_; }
    [[nodiscard]] Verification verify() const;

  private:
    [[nodiscard]] Members::iterator find(const Device& device);
    [[nodiscard]] DeviceContext context_of(const Member& member) const;
    template <class Concerned>
    void reread_members(Concerned&& concerned);
    // Moves the members of `changed_` to their new contexts.
    void move_changed();
    void record(std::uint64_t start_ns);
    void attach(Member& member);
    void detach(Member& member);
    void remove_empty_domains();

    UnitResources& unit_;
    const ContextSource& contexts_;
    JobQueue& jobs_;
    bool translation_ = false;
    Members members_;
    Domains domains_;
    std::vector<std::pair<Member*, DeviceContext>> changed_;  // of the last reread
};

template <class Concerned>
void Attachments::reread_members(Concerned&& concerned) {
    const std::uint64_t start = unit_.clock.now_ns();
    retry_stuck();
    changed_.clear();
    for (const auto& member : members_) {
        const DeviceContext context = context_of(*member);
        if (concerned(*member) && (!member->has_mode || context != member->context)) {
            changed_.emplace_back(member.get(), context);
        }
    }
    if (!changed_.empty()) {
        move_changed();
        record(start);
    }
}

}  // namespace umbra::shadow
