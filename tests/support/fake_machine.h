// SPDX-License-Identifier: GPL-2.0-or-later
//
// The surroundings of a shadow::Manager, under a test's control: guest memory, the map of guest
// RAM, context entries, devices with recorders, time, and messages to the operator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plugin/shadow/manager.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/second_stage.h"
#include "tests/support/recorder.h"

namespace umbra::testing {

// Memory that holds page tables: `pages` pages from GPA 0 on, every page aligned.
class TableMemory final : public GuestMemory {
  public:
    explicit TableMemory(std::size_t pages) : pages_(pages) {}

    [[nodiscard]] std::uint64_t* entry(Gpa table, unsigned slot) {
        return &pages_[table.value() / kPageSize].entries[slot];
    }
    [[nodiscard]] bool contains(Gpa page) const { return page.value() / kPageSize < pages_.size(); }
    [[nodiscard]] std::size_t pages() const { return pages_.size(); }

    [[nodiscard]] bool read(Gpa address, std::span<std::byte> into) const override {
        const std::byte* page = page_pointer(address.align_down(kPageSize));
        const std::uint64_t offset = address.offset_in(kPageSize);
        if (page == nullptr || offset + into.size() > kPageSize) {
            return false;
        }
        std::memcpy(into.data(), page + offset, into.size());
        return true;
    }
    [[nodiscard]] bool write(Gpa /*address*/, std::span<const std::byte> /*from*/) override {
        return false;
    }
    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override {
        return contains(page) && !(unplugged_ && page >= *unplugged_)
                   ? reinterpret_cast<const std::byte*>(&pages_[page.value() / kPageSize])
                   : nullptr;
    }
    [[nodiscard]] std::uint64_t generation() const override { return generation_; }

    // Takes away the memory from this page on. With nullopt, all memory is there again.
    void unplug(std::optional<Gpa> from) {
        unplugged_ = from;
        ++generation_;
    }

  private:
    struct alignas(4096) Page {
        std::uint64_t entries[kEntriesPerTable] = {};
    };
    std::vector<Page> pages_;
    std::optional<Gpa> unplugged_;
    std::uint64_t generation_ = 0;
};

// A manager with one function for each kind of invalidation.
class InvalidatedManager final : public shadow::Manager {
  public:
    using Manager::Manager;

    void context_global() { invalidated(vtd::Invalidation::context_global()); }
    void context_domain(DomainId domain) { invalidated(vtd::Invalidation::context_domain(domain)); }
    void context_device(DomainId domain, SourceId source, unsigned function_mask) {
        invalidated(vtd::Invalidation::context_device(domain, SourceMatch(source, function_mask)));
    }
    void iotlb_global() { invalidated(vtd::Invalidation::iotlb_global()); }
    void iotlb_domain(DomainId domain) { invalidated(vtd::Invalidation::iotlb_domain(domain)); }
    void iotlb_pages(DomainId domain, Iova address, unsigned address_mask, bool leaf_only) {
        invalidated(vtd::Invalidation::iotlb_page(domain, IovaRange::pages(address, address_mask),
                                                  leaf_only));
    }
};

class FakeRamMap final : public shadow::RamMap {
  public:
    [[nodiscard]] std::uint64_t generation() const override { return generation_; }
    void list(std::vector<shadow::RamRun>& runs) const override { runs = runs_; }

    void set(std::vector<shadow::RamRun> runs) {
        runs_ = std::move(runs);
        ++generation_;
    }
    [[nodiscard]] const std::vector<shadow::RamRun>& runs() const { return runs_; }

    // The host memory that a device reaches at `guest` with `access`. Access none: no memory.
    struct Target {
        HostAddress host;
        Access access = Access::none;
        friend bool operator==(const Target&, const Target&) = default;
    };
    [[nodiscard]] Target resolve(Gpa guest, Access access) const {
        for (const shadow::RamRun& run : runs_) {
            if (guest >= run.first && guest - run.first < run.bytes) {
                const Access allowed = run.read_only ? access & Access::read : access;
                return allowed == Access::none ? Target{}
                                               : Target{run.host + (guest - run.first), allowed};
            }
        }
        return {};
    }

  private:
    std::vector<shadow::RamRun> runs_;
    std::uint64_t generation_ = 1;
};

class FakeContexts final : public shadow::ContextSource {
  public:
    [[nodiscard]] shadow::DeviceContext context_of(SourceId source) const override {
        ++reads;
        const auto found = entries.find(source.value());
        return found == entries.end() ? shadow::DeviceContext{} : found->second;
    }
    void translate(SourceId source, DomainId domain, Gpa root, unsigned levels = 4) {
        entries[source.value()] = {shadow::DmaMode::translated, domain, root, levels};
    }
    void pass_through(SourceId source) {
        entries[source.value()] = {.mode = shadow::DmaMode::pass_through};
    }
    void block(SourceId source) { entries.erase(source.value()); }

    std::map<std::uint16_t, shadow::DeviceContext> entries;
    mutable std::uint64_t reads = 0;
};

class FakeEvents final : public shadow::Events {
  public:
    void trouble(const shadow::Event& event) override { troubles.push_back(event); }
    void healed(DomainId /*domain*/, shadow::Trouble trouble) override {
        healings.push_back(trouble);
    }
    void stop_machine(const shadow::Event& /*event*/) override { ++stops; }

    [[nodiscard]] std::size_t count(shadow::Trouble trouble) const {
        std::size_t found = 0;
        for (const shadow::Event& event : troubles) {
            found += event.trouble == trouble ? 1 : 0;
        }
        return found;
    }

    std::vector<shadow::Event> troubles;
    std::vector<shadow::Trouble> healings;
    unsigned stops = 0;
};

// Stands still, or moves by `step` each time it is read.
class FakeClock final : public shadow::Clock {
  public:
    [[nodiscard]] std::uint64_t now_ns() const override {
        if (at_look) {
            at_look();
        }
        return now += step;
    }
    mutable std::uint64_t now = 1000;
    std::uint64_t step = 0;
    // Called at each look, so in the middle of syncs.
    std::function<void()> at_look;
};

class FakeDevice final : public shadow::Device {
  public:
    explicit FakeDevice(SourceId source) : source(source) {}

    [[nodiscard]] SourceId source_id() const override { return source; }
    [[nodiscard]] shadow::HostMapper* mapper() override { return has_mapper ? &recorder : nullptr; }
    void set_mode(shadow::DmaMode mode) override {
        modes.push_back(mode);
        mapped_at_mode.push_back(recorder.mappings().size());
    }

    SourceId source;
    bool has_mapper = true;
    host::Recorder recorder;
    std::vector<shadow::DmaMode> modes;
    std::vector<std::size_t> mapped_at_mode;
};

// A manager with all its ports. Guest RAM for DMA starts at kRam; no memory is behind it, because
// the manager never reads it. Table pages are the first `table_pages` pages of guest memory.
class FakeMachine {
  public:
    static constexpr Gpa kRam{0x1'0000'0000};
    static constexpr std::uint64_t kRamBytes = std::uint64_t{64} << 30;
    static constexpr HostAddress kHost{0x7f00'0000'0000};

    explicit FakeMachine(const shadow::Options& options = {}, std::size_t table_pages = 256)
        : memory(table_pages), manager(options, format, {memory, ram, contexts, events, clock}) {
        ram.set({{kRam, kRamBytes, kHost, false}});
        manager.translation_changed(true);
    }

    static constexpr vtd::EntryFormat format{48, false};
    TableMemory memory;
    FakeRamMap ram;
    FakeContexts contexts;
    FakeEvents events;
    FakeClock clock;
    InvalidatedManager manager;
};

}  // namespace umbra::testing
