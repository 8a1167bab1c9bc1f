// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow of one guest domain: a mirror of its second-stage tables, and the host bindings of all
// its devices. A sync walks the guest's tables once, compares each table page with its copy, and
// carries out what differs on every binding.
//
// A sync goes through IOVAs in ascending order and takes over what it has compared as it goes, so
// it can stop anywhere and go on from an IOVA later: what lies below is as the guest has it, what
// lies above is as it was. Each stop leaves host and mirror in step.
//
// A mapping whose translation did not change is not touched: neither if the guest wrote the entry
// again, nor if it moved the table page, nor if it replaced a large leaf by small ones with the
// same translation or the other way round. The only exception is a split (see planner.h), or a
// large leaf of which a part changes.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "plugin/shadow/clock.h"
#include "plugin/shadow/compare.h"
#include "plugin/shadow/delta.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/mirror.h"
#include "plugin/shadow/options.h"
#include "plugin/shadow/planner.h"
#include "plugin/shadow/ram_snapshot.h"
#include "plugin/shadow/range_list.h"
#include "plugin/shadow/trouble_log.h"
#include "plugin/telemetry/shadow_counters.h"

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

// What all domains of a unit have in common. Everything outlives them.
struct UnitResources {
    const GuestMemory& memory;
    const RamMap& ram;
    Events& events;
    const Clock& clock;
    const Options& options;
    const vtd::EntryFormat& format;
    telemetry::UnitShadowCounters& counters;

    TroubleThrottle throttle{clock};
    PageArena arena{};
    TableBudget tables{};
    // Used by one sync at a time.
    Delta delta{};
    Plan plan{};
};

// One sync on its way.
struct SyncJob {
    telemetry::SyncTrigger trigger = telemetry::SyncTrigger::domain;
    // False if guest tables need not be looked at: a device came to a domain that is in step.
    bool walk = true;

    // What is missing has to be gone through from the start.
    void restart_retries() {
        binding = 0;
        retry_range = 0;
        pass = {};
    }

    // Progress; owned by AddressSpace::run.
    enum class Phase : std::uint8_t { begin, walk, retry } phase = Phase::begin;
    std::size_t walk_range = 0;
    Iova cursor{};
    std::size_t binding = 0;
    std::size_t retry_range = 0;  // 0: what is lost, wherever it is; then the ranges of the job
    HostBinding::RetryPass pass{};
    std::uint64_t refused_mappings = 0;
    std::uint64_t refused_tables = 0;
    std::uint64_t loops = 0;
    std::uint64_t compare_ns = 0;
    std::uint64_t host_ns = 0;
};

class AddressSpace {
  public:
    AddressSpace(const DomainKey& key, UnitResources& unit);
    ~AddressSpace();
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;

    // The binding stays the caller's; nothing is mapped for it until a sync over everything.
    void attach(HostBinding& binding);
    // Unmaps what is mapped for it.
    void detach(HostBinding& binding);
    // The host has nothing of an attached binding any more.
    void forget(HostBinding& binding);

    // Pages that the guest has invalidated, for the next sync whose trigger is `page`. That sync
    // concerns them and nothing else; every other one concerns everything.
    void add_pages(IovaRange range) { waiting_.add(range); }
    // Whether a sync for pages is due.
    [[nodiscard]] bool pages_waiting() const { return !waiting_.empty(); }
    void drop_pages() { waiting_.clear(); }

    // Does some of `job`, until it is done (true) or the time has come (false; call again with the
    // same job before any other one). At least one table is done in each call, or one host call
    // made. `now_ns` is the time at the start, and afterwards that at the end.
    [[nodiscard]] bool run(SyncJob& job, std::uint64_t deadline_ns, std::uint64_t& now_ns);

    [[nodiscard]] const DomainKey& key() const { return key_; }
    [[nodiscard]] const std::vector<HostBinding*>& bindings() const { return bindings_; }
    [[nodiscard]] const Mirror& mirror() const { return mirror_; }
    [[nodiscard]] const RamSnapshot& ram() const { return ram_; }
    [[nodiscard]] const telemetry::DomainShadowCounters& counters() const { return counters_; }
    void clear_counters();

    // See TroubleLog.
    void machine_goes_on() { log_.machine_goes_on(); }

  private:
    // ---- The walk ----
    // All take the IOVAs to look at, and return false if the time has come; then cursor_ is the
    // first IOVA that was not done.

    // `range` lies within the table.
    [[nodiscard]] bool sync_table(Table& table, IovaRange range);
    // Entries [first, last] one by one.
    [[nodiscard]] bool sync_entries(Table& table, const std::uint64_t* guest, unsigned first,
                                    unsigned last, IovaRange range);
    // The same of a table of the lowest level.
    void sync_leaves(Table& table, const std::uint64_t* guest, unsigned first, unsigned last);
    // The leaf at `first` is gone, and so are as many after it, up to `last`, as are not present
    // any more. All of them are mapped, and each is in one stretch of RAM. Returns the last one.
    // `value` is what the guest has at `first`.
    unsigned remove_run(Table& table, const std::uint64_t* guest, unsigned first, unsigned last,
                        std::uint64_t value);
    // The guest has the leaf `value` at `first`, where there is none in the copy: takes it over,
    // and as many new ones after it, up to `last`, as are in RAM and within the budget. Returns the
    // slot after the last one, which is `first` if that one itself takes more care.
    [[nodiscard]] unsigned add_leaves(Table& table, const std::uint64_t* guest, unsigned first,
                                      unsigned last, std::uint64_t value);
    // Tables below those of the 64 entries from 64 * `word` on that are set in `entries`. The
    // entries themselves did not change.
    [[nodiscard]] bool sync_children(Table& table, unsigned word, std::uint64_t entries,
                                     IovaRange range);
    // Entry `slot` has become `value`.
    [[nodiscard]] bool change_entry(Table& table, unsigned slot, std::uint64_t value,
                                    IovaRange range);
    // The entry that leads to `child` leads to another page, or grants another access. The latter
    // concerns all below it, and is carried out table by table as the walk comes to each.
    [[nodiscard]] bool change_table(Table& child, const vtd::DecodedEntry& entry, IovaRange range);
    static void mark_access_changed(Table& table);
    // Takes away the leaves that are mapped otherwise than what the guest has in their place now.
    // The comparison that follows finds those that come.
    void apply_access(Table& table, const std::uint64_t* guest);
    // Entry `slot`, empty so far, has become a table or a leaf.
    [[nodiscard]] bool add_table(Table& table, unsigned slot, std::uint64_t value,
                                 const vtd::DecodedEntry& entry, IovaRange range);
    // Takes over what the guest has from `first` on, below `end`, as long as it is new, goes on
    // from `value`, the leaf before it, and stays in `run`. Returns the slot after the last one.
    [[nodiscard]] unsigned copy_stretch(Table& table, const std::uint64_t* guest, unsigned first,
                                        unsigned end, std::uint64_t value, const RamRun& run) const;
    // `entry` is `value`, decoded.
    void add_leaf(Table& table, unsigned slot, std::uint64_t value, const vtd::DecodedEntry& entry);
    // One beyond max-mappings, or a table full of them.
    void refuse_leaf(IovaRange range);
    // The leaf at `slot`, which is `entry`, is gone.
    void remove_leaf(Table& table, unsigned slot, const vtd::DecodedEntry& entry);
    // The table is gone with all below it. If the time comes, what is left of it stays, and the
    // entry that leads to it as well.
    [[nodiscard]] bool remove_table(Table& table);
    void remove_leaves_at_once(Table& table);
    [[nodiscard]] bool time_is_up(Iova done);

    // ---- The same translation in leaves of another size ----

    // A leaf has become a table, or a table a leaf. True if nothing that is translated changed;
    // then the mirror has the new form. If false, nothing was done.
    [[nodiscard]] bool refine_leaf(Table& table, unsigned slot, std::uint64_t value,
                                   const vtd::DecodedEntry& entry);
    [[nodiscard]] bool coarsen_table(Table& child, std::uint64_t value,
                                     const vtd::DecodedEntry& entry);
    // Takes over what is below `table` as long as it translates to `guest` onwards with `access`,
    // without a gap. Adds up the leaves.
    [[nodiscard]] bool adopt(Table& table, Gpa guest, Access access, std::uint64_t& leaves);
    [[nodiscard]] bool translates_to(const Table& table, Gpa guest, Access access) const;
    // Takes `table` out of the mirror with all below it, as if it had never been there.
    void drop(Table& table);

    // ---- Deltas ----
    // Mostly ascending; what belongs before something that is there already, as when a page's
    // invalidation turns out to concern all of a table, has that carried out first.

    // `entry` is what the mirror has at `slot`. An addition can be of several joined leaves.
    void emit_addition(Table& table, unsigned slot, const vtd::DecodedEntry& entry,
                       std::uint64_t bytes);
    void emit_removal(Table& table, unsigned slot, const vtd::DecodedEntry& entry);
    [[nodiscard]] vtd::DecodedEntry decoded(const Table& table, unsigned slot) const;
    void push_addition(const HostMapping& mapping);
    // Whether the addition `before` (may be null) and `mapping`, which lies in `run`, can be one
    // host call.
    [[nodiscard]] bool can_join(const HostMapping* before, const HostMapping& mapping,
                                const RamRun& run) const;
    // The leaves [first, end) of the table belong to the host mapping of the leaf before.
    void mark_joined(Table& table, unsigned first, unsigned end);
    void push_removal(const Removal& removal);
    // Whether the removal emitted last ended inside a mapping that goes on at `iova`.
    [[nodiscard]] bool cut_before(Iova iova) const;
    // The leaf after `slot`, if it is joined to it.
    [[nodiscard]] LeafRef joined_successor(Table& table, unsigned slot) const;
    [[nodiscard]] bool same_on_host(Access before, Access after, Gpa guest,
                                    std::uint64_t bytes) const;
    void look_at_bindings();
    void flush_if_full();
    void flush();

    // Leaves that are one mapping on the host, as RAM was before it changed.
    struct HostRun {
        LeafRef first{};
        Iova end{};
        bool some_move = false;
        bool some_stay = false;
    };
    // Guest RAM may have moved: what resolves differently is mapped anew, together with all that is
    // one mapping with it.
    void check_ram();
    void follow_ram(const HostRun& run);
    void begin(SyncJob& job);
    // Before the first host call of a job for any of them. A sync that finds nothing changed does
    // not touch the bindings, so that it costs the same for any number of devices.
    void begin_bindings();
    // Of what is stuck in the ranges of the job.
    void retry_unmaps();
    // What an earlier call, or this one, had no time to map.
    [[nodiscard]] bool map_put_off();
    [[nodiscard]] bool walk(SyncJob& job);
    [[nodiscard]] bool retry(SyncJob& job);
    void finish(SyncJob& job);
    // Calls that were refused are told once for all devices, so they have healed when no device has
    // any.
    void heal_calls();
    void account();

    const DomainKey key_;
    UnitResources& unit_;
    const CompareFunctions& compare_;
    RamSnapshot ram_;
    RamSnapshot previous_ram_;
    Mirror mirror_;
    TroubleLog log_;
    std::vector<HostBinding*> bindings_;
    telemetry::DomainShadowCounters counters_;
    RangeList waiting_;
    RangeList ranges_;     // of the job that has begun
    IovaRange concerned_;  // the one under way, and what turned out to belong to it
    // Leaves are joined to one host mapping within blocks of this size only, a power of two: what
    // the guest mapped by itself it can unmap by itself, and then nothing else has to go with it.
    std::uint64_t join_block_ = kPageSize;

    std::uint64_t leaves_ = 0;
    // Leaves that are not in one stretch of RAM as a whole.
    std::uint64_t irregular_leaves_ = 0;
    // True once any leaf was joined to the one before it.
    bool joins_ = false;
    // Whether any binding misses a leaf, and whether anything is stuck. As of the start of the call
    // under way, or of the last host calls since; so it can be true for longer than there is
    // anything.
    bool any_missing_ = false;
    bool any_stuck_ = false;
    bool began_bindings_ = false;  // of the job that has begun

    // Of the call of run() under way.
    telemetry::SyncCounters tally_;
    std::uint64_t deadline_ns_ = 0;
    Deadline deadline_{unit_.clock, 0};  // the same, for host calls
    std::uint64_t host_ns_ = 0;
    unsigned ticks_ = 0;
    bool time_up_ = false;
    Iova cursor_;
};

}  // namespace umbra::shadow
