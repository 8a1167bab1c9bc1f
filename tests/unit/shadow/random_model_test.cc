// SPDX-License-Identifier: GPL-2.0-or-later
//
// A model guest does whatever guests do to second-stage tables, in random order, and invalidates
// now and then. After each invalidation the host has, in the invalidated range, exactly what a slow
// walk of the guest's tables finds there. A failing sequence is shrunk before it is shown.
//
// The file is long because the model, its operations and the kinds of runs are one: each operation
// is drawn, carried out, judged and printed here.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/guest_tables.h"
#include "tests/unit/shadow/shrink.h"

namespace umbra::testing {
namespace {

using shadow::Options;
using vtd::level_span;

constexpr std::uint64_t kRegionBytes = level_span(2);
constexpr unsigned kRegionPages = 512;
// Regions of 2 MiB: three in a row, two across a 1 GiB boundary, that of the interrupt range, and
// the last one there is.
constexpr std::array<Iova, 7> kRegions = {
    Iova(0),           Iova(0x20'0000),   Iova(0x40'0000),       Iova(0x3fe0'0000),
    Iova(0x4000'0000), Iova(0xfee0'0000), Iova(0xffff'ffe0'0000)};
constexpr IovaRange kInterrupts = {Iova(0xfee0'0000), Iova(0xfeef'ffff)};
constexpr unsigned kPages = kRegions.size() * kRegionPages;
constexpr DomainId kDomain{7};

enum class Op : std::uint8_t {
    map,
    unmap,
    change_access,
    map_large,
    split_large,
    fill,
    merge,
    unlink_table,
    move_table,
    share_table,
    reserve,
    table_access,
    leaf_nowhere,
    table_nowhere,
    unlink_upper,
    invalidate_pages,
    invalidate_region,
    invalidate_batch,
    invalidate_domain,
    invalidate_all,
    invalidate_context,
    move_device,
    replay_device,
    move_ram,
    fail_some,
    fail_none,
};

struct Step {
    Op op;
    std::uint32_t a;
    std::uint32_t b;
    std::uint32_t c;
};

std::string to_string(const std::vector<Step>& steps) {
    constexpr std::array<const char*, 26> kNames = {"map",
                                                    "unmap",
                                                    "change_access",
                                                    "map_large",
                                                    "split_large",
                                                    "fill",
                                                    "merge",
                                                    "unlink_table",
                                                    "move_table",
                                                    "share_table",
                                                    "reserve",
                                                    "table_access",
                                                    "leaf_nowhere",
                                                    "table_nowhere",
                                                    "unlink_upper",
                                                    "invalidate_pages",
                                                    "invalidate_region",
                                                    "invalidate_batch",
                                                    "invalidate_domain",
                                                    "invalidate_all",
                                                    "invalidate_context",
                                                    "move_device",
                                                    "replay_device",
                                                    "move_ram",
                                                    "fail_some",
                                                    "fail_none"};
    std::ostringstream text;
    for (const Step& step : steps) {
        text << "  {Op::" << kNames.at(static_cast<std::size_t>(step.op)) << ", " << step.a << ", "
             << step.b << ", " << step.c << "},\n";
    }
    return text.str();
}

struct Setup {
    Options options{};
    unsigned devices = 1;
    bool failures = false;
    bool ram_moves = true;
    // Now and then something happens between two slices.
    bool busy = false;
};

class Model {
  public:
    explicit Model(const Setup& setup)
        : setup_(setup), machine_(setup.options, 24), tables_(machine_) {
        set_ram(0);
        machine_.clock.step = 1;
        for (unsigned i = 0; i < setup.devices; ++i) {
            devices_.push_back(
                std::make_unique<FakeDevice>(SourceId(0, static_cast<std::uint8_t>(8 * (i + 1)))));
            FakeDevice& device = *devices_.back();
            host::Recorder& recorder = device.recorder;
            if (i % 2 == 1) {
                // In the middle of a region, across two, and around the interrupt range.
                recorder.host_holes = {{Iova(0x4'3000), Iova(0x5'6fff)},
                                       {Iova(0x3f'0000), Iova(0x41'0fff)},
                                       {Iova(0xfede'0000), Iova(0xfef8'0fff)}};
            }
            recorder.on_unmapped = [this, &device](const shadow::HostMapping& mapping) {
                gone_.push_back({&device, mapping});
            };
            if (setup.failures) {
                recorder.fail = [this](bool, Iova, std::uint64_t) {
                    return failing_ && random_() % 4 == 0 ? ENOMEM : 0;
                };
            }
            machine_.contexts.translate(device.source, kDomain, tables_.root());
            machine_.manager.add_device(device);
        }
    }
    ~Model() {
        for (const auto& device : devices_) {
            machine_.manager.remove_device(*device);
        }
    }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // What is wrong after `steps`, if anything.
    std::optional<std::string> run(const std::vector<Step>& steps) {
        for (const Step& step : steps) {
            apply(step);
            if (problem_) {
                return problem_;
            }
        }
        failing_ = false;
        apply({Op::invalidate_all, 0, 0, 0});
        check_everything();
        for (const auto& device : devices_) {
            machine_.manager.remove_device(*device);
            if (device->recorder.mappings().size() != 0) {
                problem("something is mapped for a device that was removed");
            }
        }
        const auto& counters = machine_.manager.counters();
        if (counters.host.live_mappings != 0 || counters.host.pinned_bytes != 0 ||
            counters.sync.leaves != 0 || counters.sync.tables != 0) {
            problem("counters tell of something after the last device was removed");
        }
        return problem_;
    }

  private:
    // ---- The guest ----

    static Iova page_iova(std::uint32_t page) {
        page %= kPages;
        return kRegions.at(page / kRegionPages) + (page % kRegionPages) * kPageSize;
    }
    static Iova region_iova(std::uint32_t region) { return kRegions.at(region % kRegions.size()); }

    // Where a page goes: mostly to a place that makes neighbours contiguous.
    static Gpa target(Iova iova, std::uint32_t choice) {
        constexpr std::array<std::uint64_t, 4> kShift = {0, 0x20'0000, 0x3f'f000, 0x100'0000};
        const std::uint64_t region = (iova.value() / kRegionBytes) % 5;
        return FakeMachine::kRam + (region * kRegionBytes + iova.offset_in(kRegionBytes) +
                                    kShift.at(choice % kShift.size()));
    }
    static Access some_access(std::uint32_t choice) {
        constexpr std::array<Access, 6> kChoices = {Access::read_write, Access::read_write,
                                                    Access::read_write, Access::read,
                                                    Access::write,      Access::read_write};
        return kChoices.at(choice % kChoices.size());
    }

    std::uint64_t& region_entry(Iova region) { return tables_.entry(region, 2); }
    [[nodiscard]] static bool is_table(std::uint64_t entry) {
        return (entry & 3) != 0 && (entry & vtd::spec::SecondStageEntry::PageSize::kMask) == 0;
    }
    // The table of a region, made anew if something else is there.
    Gpa region_table(Iova region) {
        std::uint64_t& entry = region_entry(region);
        const Gpa page(entry & vtd::spec::SecondStageEntry::Address::kMask);
        if (is_table(entry) && page != tables_.root() && machine_.memory.contains(page) &&
            page != upper_page(region)) {
            return page;
        }
        const Gpa fresh = tables_.allocate();
        entry = GuestTables::table(fresh);
        return fresh;
    }
    Gpa upper_page(Iova region) {
        return Gpa(tables_.entry(region, 3) & vtd::spec::SecondStageEntry::Address::kMask);
    }
    void set_pages(const Step& step, std::uint32_t count, auto&& value) {
        const std::uint32_t first = step.a % kPages;
        for (std::uint32_t i = 0; i < count && first + i < kPages; ++i) {
            const Iova iova = page_iova(first + i);
            const Gpa table = region_table(iova.align_down(kRegionBytes));
            std::uint64_t& entry = *machine_.memory.entry(table, vtd::level_index(iova, 1));
            entry = value(iova, entry);
        }
    }

    void set_ram(std::uint32_t choice) {
        constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
        const Gpa ram = FakeMachine::kRam;
        const HostAddress host = FakeMachine::kHost;
        std::vector<shadow::RamRun> runs = {
            {Gpa(0), 24 * kPageSize, host - 1024 * kMiB, false},
            {ram, 5 * kMiB, host, false},
            // Contiguous in guest memory, not in the host's; not at a 2 MiB boundary.
            {ram + 5 * kMiB, 3 * kMiB, host + 512 * kMiB, false},
            {ram + 8 * kMiB, 2 * kMiB, host + 600 * kMiB, true},
            {ram + 11 * kMiB, 20 * kMiB, host + 11 * kMiB, false},
        };
        if (choice % 4 == 1) {
            runs[2].host = host + 700 * kMiB;
        } else if (choice % 4 == 2) {
            runs.erase(runs.begin() + 2);
        } else if (choice % 4 == 3) {
            // Another border, with everything where it was.
            const std::uint64_t first_half = 2 * kMiB + 40 * kPageSize;
            runs[1].bytes -= first_half;
            runs[1].first = ram + first_half;
            runs[1].host = host + first_half;
            runs.insert(runs.begin() + 1, {ram, first_half, host, false});
        }
        machine_.ram.set(std::move(runs));
    }

    void apply(const Step& step) {
        gone_.clear();
        disturbed_ = false;
        torn_allowed_ = moments_of_absence();
        const Iova region = region_iova(step.a);
        const auto count = 1 + step.b % 16;
        switch (step.op) {
            case Op::map:
                set_pages(step, count, [&](Iova iova, std::uint64_t) {
                    return GuestTables::leaf(target(iova, step.c), 1, some_access(step.c / 4));
                });
                break;
            case Op::unmap:
                set_pages(step, count, [](Iova, std::uint64_t) { return 0; });
                break;
            case Op::change_access:
                set_pages(step, count, [&](Iova, std::uint64_t entry) {
                    return (entry & ~std::uint64_t{3}) | static_cast<unsigned>(some_access(step.c));
                });
                break;
            case Op::map_large: {
                // Also across ends of RAM.
                const Gpa start = target(region, step.c % 2).align_down(kRegionBytes);
                set_large(region, GuestTables::leaf(start, 2, some_access(step.b)));
                break;
            }
            case Op::split_large:
                split_large(region, step);
                break;
            case Op::fill: {
                const Gpa start = target(region, step.c % 2);
                const Gpa table = region_table(region);
                for (unsigned slot = 0; slot < kRegionPages; ++slot) {
                    *machine_.memory.entry(table, slot) =
                        GuestTables::leaf(start + slot * kPageSize, 1);
                }
                break;
            }
            case Op::merge:
                merge(region);
                break;
            case Op::unlink_table:
                region_entry(region) = 0;
                break;
            case Op::move_table:
                move_table(region);
                break;
            case Op::share_table:
                region_entry(region) = GuestTables::table(region_table(region_iova(step.b)));
                break;
            case Op::reserve:
                set_pages(step, 1, [](Iova, std::uint64_t entry) {
                    return entry | vtd::spec::SecondStageEntry::All::kReserved;
                });
                break;
            case Op::table_access: {
                std::uint64_t& entry = tables_.entry(region, 2 + step.b % 2);
                if (is_table(entry)) {
                    entry =
                        (entry & ~std::uint64_t{3}) | static_cast<unsigned>(some_access(step.c));
                }
                break;
            }
            case Op::leaf_nowhere:
                set_pages(step, count, [](Iova iova, std::uint64_t) {
                    return GuestTables::leaf(Gpa(0x8000'0000 + iova.offset_in(kRegionBytes)), 1);
                });
                break;
            case Op::table_nowhere: {
                const std::array<Gpa, 3> places = {tables_.root(), upper_page(region),
                                                   Gpa(0x9000'0000)};
                region_entry(region) = GuestTables::table(places.at(step.b % places.size()));
                break;
            }
            case Op::unlink_upper:
                tables_.entry(region, 3) = 0;
                break;
            case Op::invalidate_pages: {
                const unsigned mask = step.b % 5;
                const Iova first = page_iova(step.a).align_down(kPageSize << mask);
                invalidate({first, first + ((kPageSize << mask) - 1)}, [&] {
                    machine_.manager.iotlb_pages(kDomain, page_iova(step.a), mask, step.c % 2 != 0);
                });
                break;
            }
            case Op::invalidate_region: {
                const unsigned mask = 9 + step.b % 3;
                const Iova first = region.align_down(kPageSize << mask);
                invalidate({first, first + ((kPageSize << mask) - 1)},
                           [&] { machine_.manager.iotlb_pages(kDomain, region, mask, false); });
                break;
            }
            case Op::invalidate_batch:
                invalidate_batch(step);
                break;
            case Op::invalidate_domain:
                invalidate(IovaRange::everything(),
                           [&] { machine_.manager.iotlb_domain(kDomain); });
                check_everything();
                break;
            case Op::invalidate_all:
                invalidate(IovaRange::everything(), [&] { machine_.manager.iotlb_global(); });
                check_everything();
                break;
            case Op::invalidate_context:
                invalidate_context();
                break;
            case Op::move_device:
                move_device(step);
                break;
            case Op::replay_device: {
                replay(*devices_.at(step.a % devices_.size()));
                invalidate(IovaRange::everything(),
                           [&] { machine_.manager.iotlb_domain(kDomain); });
                break;
            }
            case Op::move_ram:
                if (setup_.ram_moves) {
                    set_ram(step.a);
                }
                break;
            case Op::fail_some:
                failing_ = setup_.failures;
                break;
            case Op::fail_none:
                failing_ = false;
                break;
        }
    }

    void split_large(Iova region, const Step& step) {
        std::uint64_t& entry = region_entry(region);
        if (is_table(entry) || (entry & 3) == 0) {
            return;
        }
        const Gpa table = tables_.allocate();
        const Gpa start(entry & vtd::spec::SecondStageEntry::Address::kMask);
        for (unsigned slot = 0; slot < kRegionPages; ++slot) {
            *machine_.memory.entry(table, slot) =
                GuestTables::leaf(start + slot * kPageSize, 1, static_cast<Access>(entry & 3));
        }
        if (step.b % 2 != 0) {
            *machine_.memory.entry(table, step.c % kRegionPages) = 0;
        }
        entry = GuestTables::table(table);
    }

    void merge(Iova region) {
        const std::uint64_t first = *machine_.memory.entry(region_table(region), 0);
        const Gpa start(first & vtd::spec::SecondStageEntry::Address::kMask);
        if (start.is_aligned(kRegionBytes) && (first & 3) != 0) {
            set_large(region, GuestTables::leaf(start, 2, static_cast<Access>(first & 3)));
        }
    }

    // What was mapped page by page and is one leaf now counts as one mapping, whatever the host
    // has.
    void set_large(Iova region, std::uint64_t leaf) {
        const auto first = machine_.memory.entry(region_table(region), 0);
        merged_ = merged_ || (*first & vtd::spec::SecondStageEntry::Address::kMask) ==
                                 (leaf & vtd::spec::SecondStageEntry::Address::kMask);
        region_entry(region) = leaf;
    }

    void move_table(Iova region) {
        const Gpa table = region_table(region);
        const Gpa fresh = tables_.allocate();
        for (unsigned slot = 0; slot < kRegionPages; ++slot) {
            *machine_.memory.entry(fresh, slot) = *machine_.memory.entry(table, slot);
        }
        std::uint64_t& entry = region_entry(region);
        entry = fresh.value() | (entry & 3);
    }

    // Does what the shadow has put off.
    void catch_up() {
        for (unsigned slice = 0; !machine_.manager.caught_up(); ++slice) {
            if (setup_.busy && slice < 3 && random_() % 4 == 0) {
                meanwhile();
            }
            (void)machine_.manager.run();
            if (slice == 10'000) {
                problem("the work does not come to an end");
                return;
            }
        }
    }

    // What the guest changes it also invalidates, so that all is right when the work is done.
    void meanwhile() {
        const auto some = [this] { return static_cast<std::uint32_t>(random_()); };
        const Step step = {Op::map, some(), some(), some()};
        machine_.manager.batch_begin();
        switch (some() % 5) {
            case 0:
                set_pages(step, 16, [&](Iova iova, std::uint64_t) {
                    return GuestTables::leaf(target(iova, step.c), 1, some_access(step.c / 4));
                });
                break;
            case 1:
                set_pages(step, 200, [](Iova, std::uint64_t) { return 0; });
                break;
            case 2:
                region_entry(region_iova(step.a)) = 0;
                break;
            case 3:
                set_ram(step.a);
                break;
            default:
                replay(*devices_.at(step.a % devices_.size()));
                break;
        }
        machine_.manager.iotlb_domain(kDomain);
        machine_.manager.batch_end();
        disturbed_ = true;
    }

    void replay(FakeDevice& device) {
        if (!attached(device)) {
            return;  // nothing is replayed for it
        }
        device.recorder.clear();
        machine_.manager.replay(device);
        // What went without an unmap.
        bytes_cleared_ =
            bytes_mapped_and_not_unmapped() - machine_.manager.counters().host.pinned_bytes;
    }

    void invalidate_batch(const Step& step) {
        std::vector<IovaRange> ranges;
        machine_.manager.batch_begin();
        for (unsigned i = 0; i < 1 + step.b % 6; ++i) {
            // Some touch each other.
            const Iova first = page_iova(step.a + i * (step.c % 3));
            ranges.push_back({first, first + (kPageSize - 1)});
            machine_.manager.iotlb_pages(kDomain, first, 0, false);
        }
        machine_.manager.barrier();
        catch_up();
        for (const IovaRange range : ranges) {
            check(range);
        }
        check_torn();
        machine_.manager.batch_end();
    }

    void invalidate_context() {
        const std::size_t before = host_calls();
        machine_.manager.context_global();
        if (!setup_.failures && host_calls() != before) {
            problem("a context invalidation that changed nothing made host calls");
        }
    }

    void move_device(const Step& step) {
        FakeDevice& device = *devices_.at(step.a % devices_.size());
        const auto context = machine_.contexts.context_of(device.source);
        if (context.mode == shadow::DmaMode::translated) {
            if (step.b % 2 != 0) {
                machine_.contexts.pass_through(device.source);
            } else {
                machine_.contexts.block(device.source);
            }
        } else {
            machine_.contexts.translate(device.source, kDomain, tables_.root());
        }
        machine_.manager.batch_begin();
        machine_.manager.context_device(kDomain, device.source, 0);
        machine_.manager.barrier();
        machine_.manager.batch_end();
        catch_up();
        if (machine_.contexts.context_of(device.source).mode == shadow::DmaMode::translated) {
            gone_.clear();
            invalidate(IovaRange::everything(), [&] { machine_.manager.iotlb_domain(kDomain); });
        } else if (!failing_ && device.recorder.mappings().size() != 0) {
            problem("something is mapped for a device that left its domain");
        }
    }

    // ---- What must hold ----

    void problem(const std::string& text) {
        if (!problem_) {
            problem_ = text;
        }
    }
    [[nodiscard]] std::size_t host_calls() const {
        const auto& host = machine_.manager.counters().host;
        return host.map.calls + host.unmap.calls;
    }
    [[nodiscard]] std::uint64_t bytes_mapped_and_not_unmapped() const {
        const auto& host = machine_.manager.counters().host;
        return host.map.bytes - host.unmap.bytes;
    }
    [[nodiscard]] std::uint64_t moments_of_absence() const {
        const auto& counters = machine_.manager.counters();
        return counters.host.splits + counters.sync.resizes;
    }

    void invalidate(IovaRange range, auto&& how) {
        machine_.manager.batch_begin();
        how();
        machine_.manager.barrier();
        machine_.manager.batch_end();
        catch_up();
        check(range);
        check_torn();
    }

    [[nodiscard]] bool attached(const FakeDevice& device) const {
        const auto found = machine_.contexts.entries.find(device.source.value());
        return found != machine_.contexts.entries.end() &&
               found->second.mode == shadow::DmaMode::translated;
    }

    void check(IovaRange range) {
        if (failing_ || problem_) {
            return;
        }
        for (const auto& device : devices_) {
            if (attached(*device)) {
                check(*device, range);
            }
            if (!setup_.failures && device->recorder.violations() != 0) {
                problem("a host call broke a rule");
            }
        }
    }

    [[nodiscard]] static bool in_hole(const FakeDevice& device, Iova iova) {
        const std::vector<IovaRange>& holes = device.recorder.host_holes;
        return kInterrupts.contains(iova) ||
               std::any_of(holes.begin(), holes.end(),
                           [&](IovaRange hole) { return hole.contains(iova); });
    }

    void check(const FakeDevice& device, IovaRange range) {
        for (const Iova region : kRegions) {
            const Iova first = std::max(range.first, region);
            const Iova last = std::min(range.last, region + (kRegionBytes - 1));
            if (first > last) {
                continue;
            }
            // Pages without a mapping between those with one.
            Iova at = first;
            const auto expect = [&](Iova until, const shadow::HostMapping* mapping) {
                for (; at < until; at = at + kPageSize) {
                    const FakeRamMap::Target wanted =
                        in_hole(device, at) ? FakeRamMap::Target{} : tables_.walk(at);
                    const FakeRamMap::Target found =
                        mapping == nullptr
                            ? FakeRamMap::Target{}
                            : FakeRamMap::Target{mapping->host + (at - mapping->iova),
                                                 mapping->access};
                    if (wanted != found && !problem_) {
                        std::ostringstream text;
                        text << std::hex << "iova 0x" << at.value() << ": wanted 0x"
                             << wanted.host.value() << " " << static_cast<int>(wanted.access)
                             << ", found 0x" << found.host.value() << " "
                             << static_cast<int>(found.access);
                        problem(text.str());
                    }
                }
            };
            device.recorder.mappings().visit(
                first, last - first + 1, [&](const shadow::HostMapping& mapping) {
                    expect(std::max(mapping.iova, first), nullptr);
                    expect(std::min(mapping.iova + mapping.bytes, last + 1), &mapping);
                });
            expect(last + 1, nullptr);
        }
    }

    // No page that is mapped as before was unmapped in between.
    void check_torn() {
        if (setup_.failures || disturbed_ || moments_of_absence() != torn_allowed_) {
            return;
        }
        for (const Gone& gone : gone_) {
            for (std::uint64_t offset = 0; offset < gone.mapping.bytes; offset += kPageSize) {
                const auto now = mapped(gone.device->recorder, gone.mapping.iova + offset);
                if (now == FakeRamMap::Target{gone.mapping.host + offset, gone.mapping.access}) {
                    std::ostringstream text;
                    text << std::hex << "iova 0x" << (gone.mapping.iova + offset).value()
                         << " was unmapped for a moment (with 0x" << gone.mapping.iova.value()
                         << ", 0x" << gone.mapping.bytes << " bytes)";
                    problem(text.str());
                    return;
                }
            }
        }
    }

    void check_everything() {
        if (failing_ || problem_) {
            return;
        }
        std::uint64_t bytes = 0;
        std::uint64_t mappings = 0;
        // Outside of its domain a device can keep what the host did not let go.
        bool exact = true;
        for (const auto& device : devices_) {
            exact = exact && (!setup_.failures || attached(*device));
            device->recorder.mappings().visit(
                [&](const shadow::HostMapping& mapping) { bytes += mapping.bytes; });
            mappings += device->recorder.mappings().size();
            if (!attached(*device) && device->recorder.mappings().size() != 0 && !setup_.failures) {
                problem("something is mapped for a device outside the domain");
            }
        }
        const auto& counters = machine_.manager.counters().host;
        if (counters.pinned_bytes != bytes_mapped_and_not_unmapped() - bytes_cleared_) {
            problem("pinned_bytes is " + std::to_string(counters.pinned_bytes) +
                    ", mapped and not unmapped " +
                    std::to_string(bytes_mapped_and_not_unmapped() - bytes_cleared_));
        }
        if (exact && counters.pinned_bytes != bytes) {
            problem("pinned_bytes is " + std::to_string(counters.pinned_bytes) + ", mapped are " +
                    std::to_string(bytes));
        }
        if (exact && !merged_ && counters.live_mappings != mappings) {
            problem("live_mappings is " + std::to_string(counters.live_mappings) + ", there are " +
                    std::to_string(mappings));
        }
        if (counters.missing_leaves != 0) {
            problem("something is missing although nothing fails");
        }
        if (++full_checks_ % 8 == 0) {
            const shadow::Verification found = machine_.manager.verify();
            if (found.errors != 0 || found.pending != 0) {
                problem("verify: " + found.differences.front().to_string());
            }
        }
    }

    struct Gone {
        const FakeDevice* device;
        shadow::HostMapping mapping;
    };

    const Setup setup_;
    FakeMachine machine_;
    GuestTables tables_;
    std::vector<std::unique_ptr<FakeDevice>> devices_;
    std::vector<Gone> gone_;
    std::uint64_t torn_allowed_ = 0;
    bool disturbed_ = false;
    std::minstd_rand random_{1};
    bool failing_ = false;
    std::uint64_t bytes_cleared_ = 0;
    bool merged_ = false;
    unsigned full_checks_ = 0;
    std::optional<std::string> problem_;
};

std::vector<Step> make_steps(std::uint32_t seed, std::size_t count) {
    // How often each operation comes, in the order of Op.
    constexpr std::array<double, 26> kWeights = {30,  25,  6, 2,   1.5, 1,   1.5, 1,  1.5,
                                                 0.3, 2,   1, 2,   0.5, 0.5, 40,  6,  8,
                                                 2,   0.5, 1, 0.5, 0.3, 0.1, 0.5, 0.5};
    std::mt19937 random(seed);
    std::discrete_distribution<unsigned> pick(kWeights.begin(), kWeights.end());
    std::vector<Step> steps;
    steps.reserve(count);
    std::uint32_t page = 0;
    while (steps.size() < count) {
        const auto op = static_cast<Op>(pick(random));
        // Often near the place of the step before, so that invalidations hit what was changed.
        if (random() % 3 == 0) {
            page = static_cast<std::uint32_t>(random());
        }
        const bool by_page = op == Op::map || op == Op::unmap || op == Op::change_access ||
                             op == Op::reserve || op == Op::leaf_nowhere ||
                             op == Op::invalidate_pages || op == Op::invalidate_batch;
        const auto region = static_cast<std::uint32_t>(page % kPages / kRegionPages);
        const std::uint32_t near =
            by_page ? page % kPages + static_cast<std::uint32_t>(random() % 4) : region;
        steps.push_back(
            {op, near, static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random())});
    }
    return steps;
}

std::optional<std::string> run(const Setup& setup, const std::vector<Step>& steps) {
    return Model(setup).run(steps);
}

// Sanitizers make a step several times as long, and look for other things than rare sequences.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr unsigned kShareOfSeeds = 8;
#else
constexpr unsigned kShareOfSeeds = 1;
#endif

// How many steps each kind of run takes at least: UMBRA_MODEL_STEPS of the environment, for longer
// runs.
std::size_t least_steps() {
    const char* steps = std::getenv("UMBRA_MODEL_STEPS");
    return steps == nullptr ? 0 : std::strtoull(steps, nullptr, 10);
}

void expect_right(const Setup& setup, std::uint32_t first_seed, unsigned seeds,
                  std::size_t steps_each) {
    seeds = std::max(seeds, static_cast<unsigned>(least_steps() / steps_each));
    seeds = (seeds + kShareOfSeeds - 1) / kShareOfSeeds;
    for (std::uint32_t seed = first_seed; seed < first_seed + seeds; ++seed) {
        const std::vector<Step> steps = make_steps(seed, steps_each);
        if (run(setup, steps)) {
            const std::vector<Step> shorter = shrink(
                steps, [&](const std::vector<Step>& some) { return run(setup, some).has_value(); },
                3000);
            FAIL() << "seed " << seed << ": " << run(setup, shorter).value_or("") << "\n"
                   << to_string(shorter);
        }
    }
}

TEST(RandomModel, HostFollowsGuestWithCoalescing) {
    expect_right({.devices = 1}, 1, 60, 10'000);
}

TEST(RandomModel, HostFollowsGuestWithoutCoalescing) {
    expect_right({.options = {.coalesce = false}, .devices = 1}, 1001, 60, 10'000);
}

TEST(RandomModel, DevicesThatShareADomainComeAndGo) {
    expect_right({.devices = 3}, 2001, 40, 10'000);
}

TEST(RandomModel, RightAgainAfterCallsFailed) {
    expect_right({.devices = 2, .failures = true}, 3001, 50, 10'000);
}

TEST(RandomModel, RightAgainAfterCallsFailedWithoutCoalescing) {
    expect_right({.options = {.coalesce = false}, .devices = 1, .failures = true}, 4001, 40,
                 10'000);
}

// The clock is looked at after each table, and the time is always up.
TEST(RandomModel, InSlicesOfOneTable) {
    expect_right({.options = {.slice_ns = 1, .tables_per_look = 1}, .devices = 2}, 6001, 30, 5'000);
    expect_right({.options = {.coalesce = false, .slice_ns = 1, .tables_per_look = 1},
                  .devices = 1,
                  .failures = true},
                 7001, 30, 5'000);
}

TEST(RandomModel, WhatHappensBetweenSlices) {
    expect_right({.options = {.slice_ns = 1, .tables_per_look = 1}, .devices = 2, .busy = true},
                 8001, 20, 5'000);
    expect_right({.options = {.coalesce = false, .slice_ns = 1, .tables_per_look = 1},
                  .devices = 2,
                  .failures = true,
                  .busy = true},
                 9001, 20, 5'000);
}

// Few steps from many fresh starts reach states that long runs rarely pass through.
TEST(RandomModel, ShortRuns) {
    expect_right({.devices = 2}, 5001, 5'000, 150);
}

TEST(Shrink, FindsTheTwoStepsThatMatter) {
    std::vector<int> steps(1000);
    for (int i = 0; i < 1000; ++i) {
        steps[static_cast<std::size_t>(i)] = i;
    }
    const auto fails = [](const std::vector<int>& some) {
        return std::count(some.begin(), some.end(), 123) != 0 &&
               std::count(some.begin(), some.end(), 877) != 0;
    };
    EXPECT_EQ(shrink(steps, fails), (std::vector<int>{123, 877}));
}

}  // namespace
}  // namespace umbra::testing
