// SPDX-License-Identifier: GPL-2.0-or-later
//
// Walks over random tables, compared with a model that shares nothing with the code under test: it
// goes by the specification's text, bit by bit and with plain arithmetic, and is slow.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "plugin/vtd/second_stage.h"
#include "tests/unit/vtd_tables/flat_memory.h"

namespace umbra::vtd {
namespace {

using testing::FlatMemory;

struct Parameters {
    unsigned levels;
    unsigned host_address_width;
    bool snoop_control;
    bool zero_length_reads;
    unsigned seed;
};

class Model {
  public:
    Model(const FlatMemory& memory, const Parameters& parameters)
        : memory_(memory), parameters_(parameters) {}

    [[nodiscard]] WalkResult walk(std::uint64_t root, std::uint64_t iova, bool wants_read,
                                  bool wants_write) const {
        WalkResult result;
        const std::uint64_t limit =
            parameters_.levels == 3 ? 512ull * (1 << 30) : 512ull * 512 * (1 << 30);
        if (iova >= limit) {
            result.reason = FaultReason::beyond_address_width;
            return result;
        }
        std::uint64_t table = root;
        std::uint64_t covered = limit;
        bool readable = true;
        bool writable = true;
        for (unsigned level = parameters_.levels;; --level) {
            covered /= 512;
            const std::uint64_t entry_address = table + iova / covered % 512 * 8;
            if (!memory_.is_ram(Gpa(entry_address))) {
                result.reason = level == parameters_.levels ? FaultReason::invalid_context
                                                            : FaultReason::next_table_inaccessible;
                return result;
            }
            result.level = level;
            const std::uint64_t entry = memory_.load(Gpa(entry_address));
            const auto bit = [entry](unsigned n) { return entry / (1ull << n) % 2 == 1; };
            if (!bit(0) && !bit(1)) {
                result.reason = wants_write ? FaultReason::write_denied : FaultReason::read_denied;
                return result;
            }
            const bool leaf = level == 1 || (level < 4 && bit(7));
            for (unsigned n = 0; n < 64; ++n) {
                if (bit(n) && is_reserved(n, level, leaf, covered)) {
                    result.reason = FaultReason::entry_reserved;
                    return result;
                }
            }
            readable = readable && bit(0);
            writable = writable && bit(1);
            std::uint64_t address = 0;
            for (unsigned n = 12; n < 52; ++n) {
                address += bit(n) ? 1ull << n : 0;
            }
            if (!leaf) {
                table = address;
                continue;
            }
            result.granted = static_cast<Access>((readable ? 1 : 0) + (writable ? 2 : 0));
            result.address = Gpa(address + iova % covered);
            judge(result, address, covered, readable, writable, wants_read, wants_write);
            return result;
        }
    }

  private:
    [[nodiscard]] bool is_reserved(unsigned bit, unsigned level, bool leaf,
                                   std::uint64_t covered) const {
        switch (bit) {
            case 62:
                return true;
            case 11:
                return !(leaf && parameters_.snoop_control);
            case 7:
                return level == 4;
            default:
                return (bit >= parameters_.host_address_width && bit < 52) ||
                       (leaf && bit >= 12 && (1ull << bit) < covered);
        }
    }

    void judge(WalkResult& result, std::uint64_t page, std::uint64_t size, bool readable,
               bool writable, bool wants_read, bool wants_write) const {
        bool enough = (readable || !wants_read) && (writable || !wants_write);
        if (!wants_read && !wants_write) {
            enough = readable || (writable && parameters_.zero_length_reads);
        }
        if (!enough) {
            result.reason =
                wants_write && !writable ? FaultReason::write_denied : FaultReason::read_denied;
            return;
        }
        if (result.address.value() / 0x100000 == 0xfee) {
            result.reason = FaultReason::output_is_interrupt_address;
            return;
        }
        result.ok = true;
        const bool meets_interrupts = page < 0xfef00000 && page + size > 0xfee00000;
        result.cacheable = !meets_interrupts;
        result.page_mask = meets_interrupts ? 0xfff : size - 1;
    }

    const FlatMemory& memory_;
    Parameters parameters_;
};

// Fills every page of the memory with entries of all sorts, so that any page can serve as a table
// of any level, and tables are shared and refer to themselves.
void fill_randomly(FlatMemory& memory, std::size_t pages, const Parameters& parameters,
                   std::mt19937_64& random) {
    const auto one_in = [&random](unsigned n) { return random() % n == 0; };
    for (std::uint64_t address = 0; address < pages * kPageSize; address += 8) {
        std::uint64_t entry = 0;
        const unsigned kind = random() % 16;
        if (kind < 10) {
            entry = random() % pages * kPageSize;  // a table, or a small leaf
        } else if (kind < 13) {
            // A large leaf, often around the interrupt range.
            entry = (one_in(3) ? 0xc0000000 + random() % 512 * 0x200000 : random()) &
                    ((1ull << parameters.host_address_width) - 1) &
                    ~((one_in(2) ? 1ull << 30 : 1ull << 21) - 1);
            entry |= 1 << 7;
        } else if (kind < 15) {
            entry = random() & ((1ull << parameters.host_address_width) - 1) & ~0xfffull;
            entry = one_in(4) ? 0xfee00000 | (entry & 0xff000) : entry;
        } else if (one_in(2)) {
            entry = random();
        }
        entry |= one_in(8) ? random() % 4 : 3;
        if (one_in(6)) {
            entry |= random() & 0xbff0000000000578;  // ignored bits
        }
        if (one_in(40)) {
            entry |= 1ull << random() % 64;
        }
        memory.store(Gpa(address), entry);
    }
}

class WalkAgainstModel : public ::testing::TestWithParam<Parameters> {};

TEST_P(WalkAgainstModel, Agrees) {
    constexpr std::size_t kPages = 48;
    constexpr int kTables = 10;
    constexpr int kLookupsPerTable = 6000;
    const Parameters& parameters = GetParam();
    std::mt19937_64 random(parameters.seed);
    std::vector<unsigned> outcomes(kFaultReasonCodes);
    std::vector<unsigned> leaves(4);

    for (int table = 0; table < kTables; ++table) {
        FlatMemory memory(kPages);
        fill_randomly(memory, kPages, parameters, random);
        memory.remove_page(Gpa(random() % kPages * kPageSize));
        const SecondStage walker(
            memory, EntryFormat(parameters.host_address_width, parameters.snoop_control),
            parameters.zero_length_reads);
        const Model model(memory, parameters);
        for (int lookup = 0; lookup < kLookupsPerTable; ++lookup) {
            const Gpa root(random() % kPages * kPageSize);
            const unsigned width = address_width(parameters.levels);
            const Iova iova(random() >> (random() % 50 == 0 ? random() % 64 : 64 - width));
            const auto wanted = static_cast<Access>(random() % 4);
            const auto found = walker.walk(root, parameters.levels, iova, wanted);
            const auto expected =
                model.walk(root.value(), iova.value(), allows(wanted, Access::read),
                           allows(wanted, Access::write));
            ASSERT_EQ(found.ok, expected.ok) << std::hex << iova.value();
            ASSERT_EQ(found.reason, expected.reason) << std::hex << iova.value();
            ASSERT_EQ(found.level, expected.level);
            ASSERT_EQ(found.cacheable, expected.cacheable);
            ASSERT_EQ(found.granted, expected.granted);
            if (found.ok) {
                ASSERT_EQ(found.address, expected.address);
                ASSERT_EQ(found.page_mask, expected.page_mask);
                ++leaves.at(found.level);
            }
            ++outcomes.at(static_cast<std::size_t>(found.reason));
        }
    }
    // The tables were varied enough to meet everything that a walk can end in.
    for (const auto reason :
         {FaultReason::none, FaultReason::invalid_context, FaultReason::beyond_address_width,
          FaultReason::write_denied, FaultReason::read_denied, FaultReason::next_table_inaccessible,
          FaultReason::entry_reserved, FaultReason::output_is_interrupt_address}) {
        EXPECT_GT(outcomes.at(static_cast<std::size_t>(reason)), 100u) << fault_reason_name(reason);
    }
    for (unsigned level = 1; level <= 3; ++level) {
        EXPECT_GT(leaves.at(level), 1000u) << level;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, WalkAgainstModel,
    ::testing::Values(Parameters{4, 46, false, true, 1}, Parameters{4, 52, true, true, 2},
                      Parameters{4, 39, false, false, 3}, Parameters{3, 46, false, true, 4},
                      Parameters{3, 48, true, false, 5}, Parameters{3, 39, true, true, 6}));

}  // namespace
}  // namespace umbra::vtd
