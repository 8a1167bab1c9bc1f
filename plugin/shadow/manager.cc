// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/manager.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "plugin/shadow/address_space.h"
#include "plugin/shadow/host_binding.h"
#include "plugin/shadow/verify_domain.h"

namespace umbra::shadow {

using telemetry::SyncTrigger;

namespace {

// Syncs that are put off: one of a kind for each domain at most, so more are rare.
constexpr std::size_t kUsualJobs = 256;
constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

}  // namespace

class Manager::Implementation {
  public:
    Implementation(const Options& options, vtd::EntryFormat format, Ports ports)
        : options_(options),
          format_(format),
          contexts_(ports.contexts),
          unit_{.memory = ports.memory,
                .ram = ports.ram,
                .events = ports.events,
                .clock = ports.clock,
                .options = options_,
                .format = format_,
                .counters = counters_,
                .tables = {.limit = options.max_tables_unit}} {
        jobs_.reserve(kUsualJobs);
    }

    // ---- Devices ----

    struct Member {
        Device* device = nullptr;
        DeviceContext context;
        bool added = false;  // set_mode was called once
        telemetry::DeviceShadowCounters counters;
        std::unique_ptr<HostBinding> binding;  // null without a host mapper
        AddressSpace* space = nullptr;         // while the binding belongs to one
    };

    void add_device(Device& device) {
        if (find(device) != members_.end()) {
            return;
        }
        auto member = std::make_unique<Member>();
        member->device = &device;
        if (HostMapper* mapper = device.mapper()) {
            member->binding =
                std::make_unique<HostBinding>(*mapper, member->counters.host, counters_.host);
        }
        members_.push_back(std::move(member));
        Member* added = members_.back().get();
        update_contexts(
            [added](const Member& candidate, const DeviceContext&) { return &candidate == added; });
        run_unless_batched();
    }

    void remove_device(Device& device) {
        const auto found = find(device);
        if (found == members_.end()) {
            return;
        }
        leave(**found);
        retry_stuck();
        // What could not be unmapped leaves the unit's account together with the container.
        counters_.host.live_mappings -= (*found)->counters.host.live_mappings;
        counters_.host.pinned_bytes -= (*found)->counters.host.pinned_bytes;
        members_.erase(found);
        remove_empty_spaces();
    }

    void replay(Device& device) {
        const auto found = find(device);
        if (found == members_.end() || (*found)->space == nullptr) {
            return;
        }
        Member& member = **found;
        member.space->forget(*member.binding);
        add_job(*member.space, {.trigger = SyncTrigger::replay, .walk = false});
        restart_retries(*member.space);
        run_unless_batched();
    }

    void settle() { run_unless_batched(); }

    void ram_changed() {
        for (auto& [key, space] : spaces_) {
            add_job(*space, {.trigger = SyncTrigger::memory, .walk = false});
        }
        run_unless_batched();
    }

    void machine_goes_on() {
        for (auto& [key, space] : spaces_) {
            space->machine_goes_on();
            if (space->counters().host.missing_leaves != 0) {
                add_job(*space, {.trigger = SyncTrigger::memory, .walk = false});
            }
        }
        run_unless_batched();
    }

    // ---- Contexts ----

    // Reads the context entries of the devices that `concerned(member, context)` names, and moves
    // those whose context is another one than before.
    template <class Concerned>
    void update_contexts(Concerned&& concerned) {
        const std::uint64_t start = unit_.clock.now_ns();
        retry_stuck();
        changed_.clear();
        for (const auto& member : members_) {
            const DeviceContext context = enabled_
                                              ? contexts_.context_of(member->device->source_id())
                                              : DeviceContext{.mode = DmaMode::pass_through};
            if (concerned(*member, context) &&
                (!member->added || normalised(context) != member->context)) {
                changed_.emplace_back(member.get(), normalised(context));
            }
        }
        if (changed_.empty()) {
            return;
        }
        // First everybody leaves, then everybody comes: a mirror that a device leaves may be the
        // one that another comes to.
        for (const auto& [member, context] : changed_) {
            leave(*member);
        }
        for (const auto& [member, context] : changed_) {
            const bool other_mode = !member->added || context.mode != member->context.mode;
            member->context = context;
            member->added = true;
            if (other_mode) {
                member->device->set_mode(context.mode);
            }
            if (context.mode == DmaMode::translated && member->binding != nullptr) {
                join(*member);
            }
        }
        remove_empty_spaces();
        telemetry::SyncLatency& latency = counters_.latency[SyncTrigger::context];
        const std::uint64_t total = unit_.clock.now_ns() - start;
        ++counters_.sync.syncs[SyncTrigger::context];
        latency.host.record(total);
        latency.total.record(total);
        held_ns_ = held_ns_.value_or(0) + total;
    }

    void context_global() {
        update_contexts([](const Member&, const DeviceContext&) { return true; });
        run_unless_batched();
    }

    void context_devices(SourceMatch devices) {
        update_contexts([devices](const Member& member, const DeviceContext&) {
            return devices.covers(member.device->source_id());
        });
        run_unless_batched();
    }

    void translation_changed(bool enabled) {
        enabled_ = enabled;
        update_contexts([](const Member&, const DeviceContext&) { return true; });
        for (auto& [key, space] : spaces_) {
            add_job(*space, {.trigger = SyncTrigger::context});
        }
        run_unless_batched();
    }

    // ---- IOTLB invalidations ----

    void sync_all() {
        retry_stuck();
        for (auto& [key, space] : spaces_) {
            add_job(*space, {.trigger = SyncTrigger::global});
        }
        run_unless_batched();
    }

    void sync_domain(DomainId domain) {
        each_space_of(domain, [this](AddressSpace& space) {
            add_job(space, {.trigger = SyncTrigger::domain});
        });
        run_unless_batched();
    }

    void sync_pages(DomainId domain, IovaRange range) {
        each_space_of(domain, [&](AddressSpace& space) {
            if (space.pages_waiting() || add_job(space, {.trigger = SyncTrigger::page})) {
                space.add_pages(range);
            }
        });
        run_unless_batched();
    }

    // ---- Work ----

    void batch_begin() {
        if (batches_++ == 0) {
            held_ns_.reset();
            slice_used_ns_ = 0;
            batch_start_ns_ = options_.slice_ns == 0 ? 0 : unit_.clock.now_ns();
        }
    }
    [[nodiscard]] bool has_time() const {
        return options_.slice_ns == 0 || unit_.clock.now_ns() - batch_start_ns_ < options_.slice_ns;
    }
    void batch_end() {
        if (batches_ > 0 && --batches_ == 0) {
            record_hold();
        }
    }

    // All waits of a batch together have one slice. Who insists after it is over gets another one.
    void barrier() {
        if (options_.slice_ns == 0) {
            finish();
            return;
        }
        if (slice_used_ns_ >= options_.slice_ns) {
            slice_used_ns_ = 0;
        }
        slice_used_ns_ += work(options_.slice_ns - slice_used_ns_);
    }
    [[nodiscard]] bool caught_up() const {
        return jobs_.empty() && (options_.slice_ns == 0 || slice_used_ns_ < options_.slice_ns);
    }

    void finish() {
        (void)work(kNoLimit);
        if (batches_ == 0) {
            record_hold();
        }
    }

    // True if everything is done.
    bool run() {
        slice_used_ns_ = 0;
        (void)work(options_.slice_ns == 0 ? kNoLimit : options_.slice_ns);
        record_hold();
        return jobs_.empty();
    }

    // ---- Looking at it ----

    [[nodiscard]] Verification verify() const {
        Verification result;
        result.domains = spaces_.size();
        for (const auto& member : members_) {
            if (member->space != nullptr) {
                DomainVerifier(*member->space, unit_)
                    .verify(*member->binding, member->device->source_id(), result);
            }
        }
        return result;
    }

    void clear_counters() {
        counters_.clear();
        for (auto& [key, space] : spaces_) {
            space->clear_counters();
        }
        for (const auto& member : members_) {
            member->counters.clear();
        }
    }

    [[nodiscard]] const telemetry::UnitShadowCounters& counters() const { return counters_; }
    [[nodiscard]] const auto& spaces() const { return spaces_; }
    [[nodiscard]] const auto& members() const { return members_; }

  private:
    struct Job {
        AddressSpace* space = nullptr;
        SyncJob sync;
    };

    [[nodiscard]] std::vector<std::unique_ptr<Member>>::iterator find(const Device& device) {
        return std::find_if(members_.begin(), members_.end(),
                            [&](const auto& member) { return member->device == &device; });
    }

    // Only translated contexts have a domain and a table.
    [[nodiscard]] static DeviceContext normalised(const DeviceContext& context) {
        return context.mode == DmaMode::translated ? context : DeviceContext{.mode = context.mode};
    }

    void join(Member& member) {
        const DomainKey key = {member.context.domain, member.context.root, member.context.levels};
        std::unique_ptr<AddressSpace>& space = spaces_[key];
        const bool fresh = space == nullptr;
        if (fresh) {
            space = std::make_unique<AddressSpace>(key, unit_);
        }
        member.space = space.get();
        ++member.counters.attaches;
        space->attach(*member.binding);
        restart_retries(*space);
        add_job(*space, {.trigger = SyncTrigger::attach, .walk = fresh});
    }

    void leave(Member& member) {
        if (member.space == nullptr) {
            return;
        }
        member.space->detach(*member.binding);
        restart_retries(*member.space);
        member.space = nullptr;
        ++member.counters.detaches;
    }

    // Devices outside of every domain can have mappings left that the host did not let go.
    void retry_stuck() {
        for (const auto& member : members_) {
            if (member->space == nullptr && member->binding != nullptr &&
                member->binding->has_stuck()) {
                member->binding->retry_unmaps(IovaRange::everything());
            }
        }
    }

    void remove_empty_spaces() {
        std::erase_if(spaces_, [this](const auto& entry) {
            AddressSpace* space = entry.second.get();
            if (!space->bindings().empty()) {
                return false;
            }
            std::erase_if(jobs_, [space](const Job& job) { return job.space == space; });
            return true;
        });
    }

    // The bindings of a space are others than when its jobs began.
    void restart_retries(const AddressSpace& space) {
        for (Job& job : jobs_) {
            if (job.space == &space) {
                job.sync.restart_retries();
            }
        }
    }

    template <class Visit>
    void each_space_of(DomainId domain, Visit&& visit) {
        auto at = spaces_.lower_bound({domain, Gpa(0), 0});
        while (at != spaces_.end() && at->first.domain == domain) {
            visit(*at->second);
            ++at;
        }
    }

    // Puts a sync off, and returns true; or false if one that has not begun yet covers it.
    bool add_job(AddressSpace& space, const SyncJob& sync) {
        const auto waiting = [&](const Job& job) {
            return job.space == &space && job.sync.phase == SyncJob::Phase::begin;
        };
        const bool covered = std::any_of(jobs_.begin(), jobs_.end(), [&](const Job& job) {
            const bool looks_at_all = job.sync.walk && job.sync.trigger != SyncTrigger::page;
            return waiting(job) && (looks_at_all || job.sync.trigger == sync.trigger);
        });
        if (covered) {
            return false;
        }
        if (sync.walk && sync.trigger != SyncTrigger::page && space.pages_waiting()) {
            std::erase_if(jobs_, [&](const Job& job) {
                return waiting(job) && job.sync.trigger == SyncTrigger::page;
            });
            space.drop_pages();
        }
        jobs_.push_back({&space, sync});
        return true;
    }

    // Does jobs for about `budget_ns`; returns how long it took.
    std::uint64_t work(std::uint64_t budget_ns) {
        if (jobs_.empty()) {
            return 0;
        }
        const std::uint64_t start = unit_.clock.now_ns();
        const std::uint64_t deadline = budget_ns == kNoLimit ? kNoLimit : start + budget_ns;
        std::uint64_t now = start;
        std::size_t done = 0;
        while (done < jobs_.size() && jobs_[done].space->run(jobs_[done].sync, deadline, now)) {
            ++done;
            if (now >= deadline) {
                break;
            }
        }
        jobs_.erase(jobs_.begin(), jobs_.begin() + static_cast<std::ptrdiff_t>(done));
        held_ns_ = held_ns_.value_or(0) + (now - start);
        return now - start;
    }

    void record_hold() {
        if (held_ns_) {
            counters_.lock_hold.record(*held_ns_);
            held_ns_.reset();
        }
    }

    void run_unless_batched() {
        if (batches_ == 0) {
            finish();
        }
    }

    const Options options_;
    const vtd::EntryFormat format_;
    const ContextSource& contexts_;
    telemetry::UnitShadowCounters counters_;
    UnitResources unit_;
    bool enabled_ = false;
    unsigned batches_ = 0;
    std::optional<std::uint64_t> held_ns_;  // spent on jobs since the batch began, if on any
    std::uint64_t slice_used_ns_ = 0;       // of the slice under way
    std::uint64_t batch_start_ns_ = 0;

    std::map<DomainKey, std::unique_ptr<AddressSpace>> spaces_;
    std::vector<std::unique_ptr<Member>> members_;
    std::vector<std::pair<Member*, DeviceContext>> changed_;
    std::vector<Job> jobs_;

  public:
    ~Implementation() {
        while (!members_.empty()) {
            remove_device(*members_.back()->device);
        }
    }
    Implementation(const Implementation&) = delete;
    Implementation& operator=(const Implementation&) = delete;
};

Manager::Manager(const Options& options, vtd::EntryFormat format, Ports ports)
    : implementation_(std::make_unique<Implementation>(options, format, ports)) {}

Manager::~Manager() = default;

void Manager::add_device(Device& device) {
    implementation_->add_device(device);
}

void Manager::remove_device(Device& device) {
    implementation_->remove_device(device);
}

void Manager::replay(Device& device) {
    implementation_->replay(device);
}

void Manager::sources_changed() {
    implementation_->context_global();
}

void Manager::settle() {
    implementation_->settle();
}

void Manager::ram_changed() {
    implementation_->ram_changed();
}

void Manager::machine_goes_on() {
    implementation_->machine_goes_on();
}

void Manager::invalidated(const vtd::Invalidation& invalidation) {
    switch (invalidation.kind) {
        // A domain-selective one concerns devices that were in the domain, pass-through ones
        // included, and those whose entries were cached under domain 0 because they are not valid
        // (specification 6.5.2.1). A look at all costs little, and those that it does not concern
        // are as they were.
        case vtd::InvalidationKind::context_global:
        case vtd::InvalidationKind::context_domain:
            implementation_->context_global();
            break;
        case vtd::InvalidationKind::context_device:
            implementation_->context_devices(invalidation.devices);
            break;
        case vtd::InvalidationKind::iotlb_global:
            implementation_->sync_all();
            break;
        case vtd::InvalidationKind::iotlb_domain:
            implementation_->sync_domain(invalidation.domain);
            break;
        // Also with the hint that only leaves changed the tables above are looked at: three more
        // loads, and a guest whose hint is wrong only gets what it asked for.
        case vtd::InvalidationKind::iotlb_page:
            if (invalidation.range == IovaRange::everything()) {
                implementation_->sync_domain(invalidation.domain);
            } else {
                implementation_->sync_pages(invalidation.domain, invalidation.range);
            }
            break;
        // The device's own TLB is the host's business: an unmap on the host reaches it. Interrupts
        // are the platform's.
        case vtd::InvalidationKind::device_tlb:
        case vtd::InvalidationKind::interrupt_global:
        case vtd::InvalidationKind::interrupt_index:
            break;
    }
}

void Manager::interrupt_remapping_changed(bool /*enabled*/) {}

void Manager::translation_changed(bool enabled) {
    implementation_->translation_changed(enabled);
}

void Manager::batch_begin() {
    implementation_->batch_begin();
}

void Manager::barrier() {
    implementation_->barrier();
}

bool Manager::caught_up() const {
    return implementation_->caught_up();
}

bool Manager::has_time() const {
    return implementation_->has_time();
}

void Manager::batch_end() {
    implementation_->batch_end();
}

bool Manager::run() {
    return implementation_->run();
}

Verification Manager::verify() const {
    return implementation_->verify();
}

const telemetry::UnitShadowCounters& Manager::counters() const {
    return implementation_->counters();
}

void Manager::clear_counters() {
    implementation_->clear_counters();
}

void Manager::visit_domains(const std::function<void(const DomainView&)>& visit) const {
    for (const auto& [key, space] : implementation_->spaces()) {
        visit({key.domain, key.root, key.levels, space->bindings().size(), space->counters()});
    }
}

void Manager::visit_devices(const std::function<void(const DeviceView&)>& visit) const {
    for (const auto& member : implementation_->members()) {
        visit({member->device->source_id(), member->context, member->binding != nullptr,
               member->counters});
    }
}

}  // namespace umbra::shadow
