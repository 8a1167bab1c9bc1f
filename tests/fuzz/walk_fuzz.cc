// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tables of all kinds with anything in them: context look-ups, second-stage walks with the IOTLB
// before them, and interrupt remapping. The input gives the unit's limits, then operations. Beside
// not crashing, results must be consistent with each other and with what the tables can say.
#include <bit>
#include <cstddef>
#include <cstdint>

#include "plugin/vtd/context_cache.h"
#include "plugin/vtd/context_tables.h"
#include "plugin/vtd/interrupt_range.h"
#include "plugin/vtd/interrupt_remapping.h"
#include "plugin/vtd/iotlb.h"
#include "plugin/vtd/second_stage.h"
#include "tests/fuzz/input.h"
#include "tests/support/fake_guest_memory.h"

namespace umbra::fuzz {
namespace {

constexpr std::size_t kMemoryPages = 16;

// Counts direct accesses: the work that one request causes must be bounded.
class CountingMemory : public testing::FakeGuestMemory {
  public:
    using FakeGuestMemory::FakeGuestMemory;

    [[nodiscard]] const std::byte* page_pointer(Gpa page) const override {
        ++accesses_;
        return FakeGuestMemory::page_pointer(page);
    }
    [[nodiscard]] unsigned take_accesses() const {
        const unsigned accesses = accesses_;
        accesses_ = 0;
        return accesses;
    }

  private:
    mutable unsigned accesses_ = 0;
};

class Tables {
  public:
    explicit Tables(Input& input) : limits_(input.take<std::uint32_t>()) {}

    void step(Input& input) {
        switch (input.take<std::uint8_t>() % 6) {
            case 0:
                store(input);
                break;
            case 1:
                look_up_context(input);
                break;
            case 2:
            case 3:
                translate(input);
                break;
            case 4:
                invalidate(input);
                break;
            default:
                remap(input);
                break;
        }
    }

  private:
    [[nodiscard]] unsigned host_address_width() const { return 32 + (limits_ & 0xff) % 21; }
    [[nodiscard]] bool limit(unsigned bit) const { return (limits_ >> (8 + bit) & 1) != 0; }

    static Gpa take_table(Input& input) {
        // Now and then a page that is no RAM.
        return Gpa(input.take<std::uint8_t>() % (kMemoryPages + 1) * kPageSize);
    }

    // An entry that points at one of the pages, with flags of its own, or any value at all.
    void store(Input& input) {
        const auto where = input.take<std::uint16_t>();
        const auto kind = input.take<std::uint8_t>();
        const auto flags = input.take<std::uint16_t>();
        const std::uint64_t value =
            (kind & 1) != 0 ? input.take<std::uint64_t>()
                            : (kind >> 1) % (kMemoryPages + 1) * kPageSize | (flags & 0xfff);
        memory_.store(Gpa(where * sizeof value % (kMemoryPages * kPageSize)), value);
    }

    void look_up_context(Input& input) {
        const Gpa root = take_table(input);
        const SourceId source(input.take<std::uint16_t>());
        const auto generation = contexts_.generation();
        (void)memory_.take_accesses();
        const auto found = vtd::ContextTables(memory_, {.host_address_width = host_address_width(),
                                                        .max_levels = limit(0) ? 4U : 3U,
                                                        .pass_through = limit(1),
                                                        .device_iotlb = limit(2)})
                               .lookup(root, source);
        require(memory_.take_accesses() <= 24, "a context look-up takes few reads");
        if (!found.present) {
            require(found.reason != vtd::FaultReason::none, "a refusal has a reason");
            return;
        }
        require(found.levels == 3 || (found.levels == 4 && limit(0)), "levels are supported");
        require(found.table.value() >> host_address_width() == 0, "a table is an address");
        require(found.table.is_aligned(kPageSize), "a table is aligned");
        require(found.type != vtd::TranslationType::pass_through || limit(1), "type is offered");
        contexts_.insert(source, found, generation);
        require(contexts_.lookup(source) == found, "what was cached is found");
    }

    void translate(Input& input) {
        const Gpa table = take_table(input);
        const unsigned levels = input.take<std::uint8_t>() % 2 + vtd::kMinLevels;
        const Iova iova(input.take<std::uint64_t>() >> (input.take<std::uint8_t>() % 64));
        const DomainId domain{input.take<std::uint8_t>()};
        const auto wanted = static_cast<Access>(input.take<std::uint8_t>() % 4);

        const auto generation = iotlb_.generation();
        (void)memory_.take_accesses();
        const vtd::WalkResult walk = walker_.walk(table, levels, iova, wanted);
        require(memory_.take_accesses() <= levels, "a walk reads one entry a level");
        const vtd::WalkResult found = walker_.find(table, levels, iova);
        if (!walk.ok) {
            require(walk.reason != vtd::FaultReason::none, "a refusal has a reason");
            require(!walk.cacheable, "a refusal is not cached");
            require(!found.ok || !walker_.serves(found.granted, wanted), "refused for a reason");
            return;
        }
        require(found.ok && found.address == walk.address, "a walk finds what is there");
        require(walker_.serves(walk.granted, wanted), "what is granted is enough");
        require(std::has_single_bit(walk.page_mask + 1) && walk.page_mask >= kPageSize - 1,
                "a page has a size");
        require(((walk.address.value() ^ iova.value()) & walk.page_mask) == 0, "offset is kept");
        require(walk.address.value() >> host_address_width() == 0, "output is an address");
        require(!vtd::is_interrupt_address(walk.address), "output is no interrupt");
        require(vtd::fits_address_width(iova, levels), "input has the width of the table");

        iotlb_.insert(domain, iova, walk, generation);
        if (walk.cacheable) {
            // A smaller page of another table in the same domain may come first.
            const auto hit = iotlb_.lookup(domain, iova);
            require(hit.has_value(), "what was cached is found");
            require(hit->page_mask < walk.page_mask ||
                        (hit->address == walk.address && hit->granted == walk.granted),
                    "what is found was cached");
        }
    }

    void invalidate(Input& input) {
        const DomainId domain{input.take<std::uint8_t>()};
        const Iova iova(input.take<std::uint64_t>());
        const auto kind = input.take<std::uint8_t>();
        const SourceId source(input.take<std::uint16_t>());
        switch (kind & 3) {
            case 0:
                iotlb_.invalidate_all();
                require(iotlb_.size() == 0, "nothing is left");
                contexts_.invalidate_all();
                require(!contexts_.lookup(source).present, "nothing is left");
                break;
            case 1:
                iotlb_.invalidate_domain(domain);
                contexts_.invalidate_domain(domain);
                require(!iotlb_.lookup(domain, iova).has_value(), "nothing of the domain is left");
                break;
            case 2:
                contexts_.invalidate_devices(SourceMatch(source, kind >> 6));
                require(!contexts_.lookup(source).present, "nothing of the device is left");
                break;
            default:
                iotlb_.invalidate_pages(domain, IovaRange::pages(iova, kind >> 2));
                require(!iotlb_.lookup(domain, iova).has_value(), "nothing of the page is left");
                break;
        }
    }

    void remap(Input& input) {
        const vtd::InterruptTable table{.address = take_table(input),
                                        .entries = 2U << input.take<std::uint8_t>() % 16,
                                        .extended_mode = limit(5),
                                        .compatibility_allowed = limit(6)};
        const SourceId source(input.take<std::uint16_t>());
        const std::uint64_t address = vtd::kInterruptRangeFirst | (input.take<std::uint32_t>());
        const auto data = input.take<std::uint32_t>();
        (void)memory_.take_accesses();
        const auto result = vtd::InterruptRemapper(memory_).remap(table, source, address, data);
        require(memory_.take_accesses() <= 12, "an interrupt takes few reads");
        if (!result.ok) {
            require(result.reason != vtd::FaultReason::none, "a refusal has a reason");
            return;
        }
        require(!result.remapped || result.index < table.entries, "the entry is in the table");
        require(result.remapped || (limit(6) && !limit(5)), "compatibility format is allowed");
        require(limit(5) || result.destination <= 0xff, "a destination has eight bits");
    }

    std::uint32_t limits_;
    CountingMemory memory_{kMemoryPages * kPageSize};
    vtd::SecondStage walker_{memory_, vtd::EntryFormat(host_address_width(), limit(3)), limit(4)};
    vtd::Iotlb iotlb_{16};
    vtd::ContextCache contexts_;
};

}  // namespace
}  // namespace umbra::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    umbra::fuzz::Input input(data, size);
    umbra::fuzz::Tables tables(input);
    while (!input.empty()) {
        tables.step(input);
    }
    return 0;
}
