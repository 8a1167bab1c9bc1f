// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow of one unit. The manager turns the guest's invalidations into syncs of the guest
// domains concerned, and wires two parts:
//
//   Attachments   the devices, and the domain that each is attached to
//   JobQueue      the syncs that are put off, and when they are done
//
// A domain is identified by domain-id, top-level table and number of levels. All its devices share
// one mirror, and one walk of the guest's tables serves all of them.
//
// Within a batch of invalidations syncs are put off, and page-selective invalidations of neighbours
// become one sync. barrier() does the syncs, before the guest can see a wait descriptor complete.
// With slices (Options::slice_ns) barrier() does a part of a long sync. The guest sees the
// completion after run() has done the rest.
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

// The functions of InvalidationObserver are final, so that the unit's fan-out calls them directly.
class Manager : public vtd::InvalidationObserver {
  public:
    // The manager's ports to the outside. All outlive the manager.
    struct Ports {
        const GuestMemory& memory;
        const RamMap& ram;
        const ContextSource& contexts;
        Events& events;
        const Clock& clock;
    };

    // `format` is the format of the unit's second-stage entries. Translation counts as off until
    // translation_changed(true).
    Manager(const Options& options, vtd::EntryFormat format, Ports ports);
    // Removes every device.
    ~Manager() override;
    Manager(const Manager&) = delete;
    Manager& operator=(const Manager&) = delete;

    // ---- Devices ----

    // Puts the device into the mode and domain that the guest's tables give it, and maps what the
    // domain maps. `device` stays the caller's and lives until it is removed. Does nothing if the
    // device was added before.
    void add_device(Device& device);
    // Unmaps everything that was mapped for the device, and does not call its set_mode. Does
    // nothing if the device was not added.
    void remove_device(Device& device);
    // The device's host mapper lost everything, or has new listeners behind it. Maps everything
    // again that the device's domain maps. Changes that the guest has not invalidated yet are not
    // taken over.
    void replay(Device& device);

    // The guest renumbered its buses. Each device gets the context of its current source-id.
    void sources_changed();

    // Does all syncs that were put off, unless a batch is under way: then the batch's barrier does
    // them.
    void settle();

    // The RamMap has another generation. Every leaf whose RAM lies elsewhere is unmapped at once,
    // and mapped anew; what takes longer than a slice is left for run(), as is all that was put off
    // before. Without this call the next sync of each domain does so. That suffices as long as the
    // old host memory stays in its place.
    void ram_changed();

    // A machine that was stopped is about to go on. Maps that the host refused are tried again, at
    // once, until the host refuses again. While holds_machine() is true afterwards, the machine
    // must not go on; Events::stop_machine() was called.
    void machine_goes_on();
    // With OnMapError::stop: whether a map that the host refused is still missing.
    [[nodiscard]] bool holds_machine() const { return unit_.map_errors.holding_domains != 0; }
    // Another choice of the operator. With OnMapError::report nothing holds the machine from here
    // on; with OnMapError::stop the next refusal does.
    void set_on_map_error(OnMapError choice);

    // ---- What the host refused ----

    // In how many milliseconds retry() is due: from 1,000 to 64,000, longer with each call of
    // retry() that changed nothing. 0 if nothing is missing and nothing is stuck, or if syncs are
    // left to do anyway.
    [[nodiscard]] unsigned retry_delay_ms();
    // Puts off, for run(), a sync of each domain that misses anything or has anything stuck. The
    // cause may have gone without the guest's doing: an operator raised a limit, or another domain
    // made room.
    void retry();

    // ---- vtd::InvalidationObserver ----

    void invalidated(const vtd::Invalidation& invalidation) final;
    void translation_changed(bool enabled) final;
    void interrupt_remapping_changed(bool enabled) final;
    void batch_begin() final;
    void barrier() final;
    void batch_end() final;
    // Whether no sync is left. While false, vtd::Unit::resume() has to be called now and then.
    [[nodiscard]] bool caught_up() const final;
    // Whether nothing holds the machine.
    [[nodiscard]] bool may_complete() const final;
    // Whether the batch began less than a slice ago, no matter what used the time.
    [[nodiscard]] bool has_time() const final;

    // Does syncs that were put off, for a slice (Options::slice_ns) and never much longer. Returns
    // whether no sync is left.
    [[nodiscard]] bool run();

    // ---- Looking at it ----

    // Compares the guest's tables with the host's mappings. The budgets bound the work, and no time
    // limit does: 65,536 pages take some milliseconds.
    [[nodiscard]] Verification verify() const;

    // The counts of syncs in it are as of this call; the others are kept up to date.
    [[nodiscard]] const telemetry::UnitShadowCounters& counters() const;
    // Sets counts and histograms to zero. Gauges stay.
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
    // Each of these functions settles jobs_.
    void reread_all_contexts();
    void sync_all(const SyncJob& sync);
    void sync_domain(DomainId id);
    void sync_pages(DomainId id, IovaRange pages);

    unsigned retries_ = 0;       // that changed nothing
    std::uint64_t trouble_ = 0;  // when retry_delay_ms() was last called

    const Options options_;
    const vtd::EntryFormat format_;
    mutable telemetry::UnitShadowCounters counters_;  // counters() sums up `sync`
    UnitResources unit_;
    JobQueue jobs_;
    Attachments attachments_;
};

}  // namespace umbra::shadow
