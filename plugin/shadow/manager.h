// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow of one unit: it knows the devices, keeps one Domain for each guest domain that
// has a device with a host mapper, and turns the guest's invalidations into syncs of the spaces
// concerned, and only of those.
//
// Which domain a device belongs to is re-read from the guest's root and context entries when the
// guest invalidates its context cache, and compared with what was known: a device whose context
// did not change is not touched. A domain is identified by domain-id, top-level table and number of
// levels; all its devices share one mirror, and one walk serves all.
//
// Work is put off within a batch of invalidations: page-selective ones that touch each other become
// one sync. It is done in barrier(), before the guest can see a wait descriptor complete. A lot of
// work can be done in slices (Options::slice_ns): then the guest sees the completion later, when
// run() has done the rest.
//
// Threading: everything from one thread at a time (QEMU: with the big lock held).
#pragma once

#include <cstdint>
#include <functional>

#include "counter_types.h"
#include "plugin/shadow/attachments.h"
#include "plugin/shadow/clock.h"
#include "plugin/shadow/device.h"
#include "plugin/shadow/domain.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/job_queue.h"
#include "plugin/shadow/options.h"
#include "plugin/shadow/ram_map.h"
#include "plugin/shadow/verify.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/ports.h"
#include "plugin/vtd/second_stage.h"

namespace umbra::shadow {

class Manager : public vtd::InvalidationObserver {
  public:
    // All of them outlive the manager.
    struct Ports {
        const GuestMemory& memory;
        const RamMap& ram;
        const ContextSource& contexts;
        Events& events;
        const Clock& clock;
    };

    // `format` is that of the unit's second-stage entries. Translation counts as off until
    // translation_changed(true).
    Manager(const Options& options, vtd::EntryFormat format, Ports ports);
    // Removes every device.
    ~Manager() override;
    Manager(const Manager&) = delete;
    Manager& operator=(const Manager&) = delete;

    // ---- Devices ----

    // The device is put into the mode and domain that the guest's tables give it, and what its
    // domain maps is mapped. `device` stays the caller's and outlives its stay here. Adding one
    // that is there does nothing.
    void add_device(Device& device);
    // Everything that was mapped for it is unmapped; its set_mode is not called. Removing one that
    // is not there does nothing.
    void remove_device(Device& device);
    // The device's host mapper holds nothing any more, or has new listeners behind it: everything
    // that its domain maps is mapped again. What the guest has changed without invalidating it
    // stays as it was invalidated last.
    void replay(Device& device);

    // Devices may have other source-ids than before: each gets the context that its own one has.
    void sources_changed();

    // Does all that was put off, at once. Within a batch nothing: its barrier does it.
    void settle();

    // The RamMap has another generation: what lies elsewhere now is mapped anew, at once. Without
    // this call it happens with the next sync of each domain, which suffices if the old host memory
    // stays where it was until then.
    void ram_changed();

    // A machine that stood still goes on: what the host refused is tried again, at once. With
    // OnMapError::stop another refusal stops it again.
    void machine_goes_on();

    // ---- vtd::InvalidationObserver ----

    void invalidated(const vtd::Invalidation& invalidation) override;
    void translation_changed(bool enabled) override;
    void interrupt_remapping_changed(bool enabled) override;
    void batch_begin() override;
    void barrier() override;
    void batch_end() override;
    // False while there is work left. Somebody has to call vtd::Unit::resume() then, now and then.
    [[nodiscard]] bool caught_up() const override;
    // False when the batch under way has taken a slice, whoever took it.
    [[nodiscard]] bool has_time() const override;

    // Does work that was put off, for a slice (Options::slice_ns) and never much longer, and
    // returns whether all is done.
    [[nodiscard]] bool run();

    // ---- Looking at it ----

    // Compares guest tables with what is mapped on the host. Bounded by the budgets, not by time:
    // some milliseconds for 65,536 pages.
    [[nodiscard]] Verification verify() const;

    [[nodiscard]] const telemetry::UnitShadowCounters& counters() const { return counters_; }
    // Counts and histograms to zero; values "as of now" stay.
    void clear_counters();

    struct DomainView {
        DomainId domain{};
        Gpa root;
        unsigned levels = 0;
        std::size_t devices = 0;
        const telemetry::DomainShadowCounters& counters;
    };
    struct DeviceView {
        SourceId source;
        DeviceContext context;
        bool has_mapper = false;
        const telemetry::DeviceShadowCounters& counters;
    };
    void visit_domains(const std::function<void(const DomainView&)>& visit) const;
    void visit_devices(const std::function<void(const DeviceView&)>& visit) const;

  private:
    // All settle the queue.
    void reread_all_contexts();
    void sync_all(const SyncJob& sync);
    void sync_domain(DomainId id);
    void sync_pages(DomainId id, IovaRange pages);

    const Options options_;
    const vtd::EntryFormat format_;
    telemetry::UnitShadowCounters counters_;
    UnitResources unit_;
    JobQueue jobs_;
    Attachments attachments_;
};

}  // namespace umbra::shadow
