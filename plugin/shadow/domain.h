// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow of one guest domain: a mirror of its second-stage tables, a host binding for each of
// its devices, and its counters. A sync walks the guest's tables once, compares them with the
// mirror, and carries out the differences on every binding.
//
// A sync is a job. It takes one call of run() or several, and has three phases:
//
//   begin   settles which IOVAs the job concerns, and tries again to unmap what is stuck there
//   walk    compares guest tables with the mirror, range by range (see table_sync.h)
//   retry   tries again to map leaves that any binding misses
//
// Each call first follows guest RAM (see ram_follower.h) and maps the leaves that an earlier call
// put off. After each call the host has what the mirror says, but for leaves that are known to be
// missing and stretches that are known to be stuck (see host_binding.h).
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "counter_types.h"
#include "plugin/shadow/bindings.h"
#include "plugin/shadow/delta_builder.h"
#include "plugin/shadow/domain_leaves.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/ram_follower.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/range_list.h"
#include "plugin/shadow/sync_job.h"
#include "plugin/shadow/sync_run.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/shadow/unit_resources.h"

namespace umbra::shadow {

// What makes two devices share a domain.
struct DomainKey {
    DomainId domain{};
    Gpa root;
    unsigned levels = 0;

    friend bool operator==(const DomainKey&, const DomainKey&) = default;
    // By domain first.
    friend bool operator<(const DomainKey& a, const DomainKey& b) {
        return std::tie(a.domain, a.root, a.levels) < std::tie(b.domain, b.root, b.levels);
    }
};

class Domain {
  public:
    // `unit` outlives the domain.
    Domain(const DomainKey& key, UnitResources& unit);
    ~Domain();
    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    // The binding stays the caller's. Nothing is mapped for it until a sync over everything.
    void attach(HostBinding& binding);
    // Unmaps all that is mapped for the binding.
    void detach(HostBinding& binding);
    // The host holds nothing for the attached binding any more.
    void forget(HostBinding& binding);

    // Adds pages that the guest has invalidated. The next job whose trigger is `page` concerns all
    // pages added since the one before. A job with another trigger concerns everything.
    void add_pages(IovaRange range) { waiting_.add(range); }
    // Whether pages wait for a job.
    [[nodiscard]] bool pages_waiting() const { return !waiting_.empty(); }
    void drop_pages() { waiting_.clear(); }

    // Works on `job` until it is done (true) or the deadline has passed (false). In the latter case
    // the next call is for the same job. Each call does at least one table or makes one host call.
    // The caller puts the present time into `now_ns`; run() leaves the time of its end there.
    [[nodiscard]] bool run(SyncJob& job, std::uint64_t deadline_ns, std::uint64_t& now_ns);

    // Takes the current map of guest RAM over. What moved or went is unmapped at once. Where there
    // is no time until `deadline_ns`, maps are put off: a job has to follow.
    void follow_ram(std::uint64_t deadline_ns);

    [[nodiscard]] const DomainKey& key() const { return key_; }
    [[nodiscard]] const std::vector<HostBinding*>& bindings() const { return bindings_.list(); }
    [[nodiscard]] const Mirror& mirror() const { return leaves_.mirror; }
    [[nodiscard]] const RamSnapshot& ram() const { return leaves_.ram; }
    [[nodiscard]] const telemetry::DomainShadowCounters& counters() const { return counters_; }
    void clear_counters();
    // Adds what the domain's syncs counted. The values "as of now" are in the unit's already.
    void add_counts_to(telemetry::SyncCounters& sum) const;

    // See TroubleLog.
    void machine_goes_on() { log_.machine_goes_on(); }
    void insist_on_stop() { log_.insist(); }
    void let_machine_go() { log_.let_go(); }

  private:
    void begin(SyncJob& job, SyncRun& run);
    // walk() is the phase of that name, and advance() all that follows begin(). Both return false
    // if they stopped for the time.
    [[nodiscard]] bool walk(SyncJob& job, SyncRun& run, DeltaBuilder& delta);
    [[nodiscard]] bool advance(SyncJob& job, SyncRun& run, DeltaBuilder& delta);
    void finish(SyncJob& job, std::uint64_t now_ns);
    // Brings the values "as of now" of domain and unit up to date.
    void account();
    // Trouble with host calls is told once for all devices, so it has healed when no device misses
    // a leaf, or has anything stuck.
    void heal_calls();
    // `job` has walked everything. What it did not refuse is in place.
    void heal_refusals(const SyncJob& job);

    const DomainKey key_;
    UnitResources& unit_;
    DomainLeaves leaves_;
    RamFollower ram_follower_;
    TroubleLog log_;
    Bindings bindings_;
    telemetry::DomainShadowCounters counters_;
    RangeList waiting_;
    RangeList ranges_;  // of the job that has begun
};

}  // namespace umbra::shadow
