// SPDX-License-Identifier: GPL-2.0-or-later
//
// Invalidation as an emulated device sees it: a translation that the unit has cached lives until an
// invalidation names it, and no longer. And the rules of the queue (specification 6.5).

#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x8000'0000);
constexpr std::uint64_t kOld = 0x0101'0101'0101'0101;
constexpr std::uint64_t kNew = 0x0202'0202'0202'0202;

class Invalidation : public ViommuTest {
  protected:
    // kProbe in kDomain and kSecondProbe in kOtherDomain each have `pages` pages at kIova, which
    // read as kOld, all cached by the unit; the tables already point to pages that read as kNew.
    struct Stale {
        explicit Stale(const MachineOptions& options, std::size_t pages = 1)
            : rig(options), first(rig.driver.new_table()), second(rig.driver.new_table()) {
            rig.machine.fill(kData, pages * kPageSize, std::byte{1});
            rig.machine.fill(replacement(0), pages * kPageSize, std::byte{2});
            first.map_pages(kIova, kData, pages);
            second.map_pages(kIova, kData, pages);
            rig.driver.attach(kProbe, first, kDomain);
            rig.driver.attach(kSecondProbe, second, kOtherDomain);
            rig.driver.enable_translation();
            for (std::size_t i = 0; i < pages; i++) {
                EXPECT_EQ(rig.probe.load(kIova + i * kPageSize), kOld);
                EXPECT_EQ(rig.second.load(kIova + i * kPageSize), kOld);
            }
            first.map_pages(kIova, replacement(0), pages);
            second.map_pages(kIova, replacement(0), pages);
        }

        static Gpa replacement(std::size_t page) {
            return kData + (std::uint64_t{1} << 24) + page * kPageSize;
        }

        Rig rig;
        SecondStage first;
        SecondStage second;
    };
};
UMBRA_ON_EACH_VIOMMU(Invalidation);

TEST_P(Invalidation, CachedTranslationLivesUntilInvalidated) {
    Stale stale(options());
    EXPECT_EQ(stale.rig.probe.load(kIova), kOld);
    EXPECT_EQ(stale.rig.second.load(kIova), kOld);
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_global()));
    EXPECT_EQ(stale.rig.probe.load(kIova), kNew);
    EXPECT_EQ(stale.rig.second.load(kIova), kNew);
}

TEST_P(Invalidation, DomainSelectiveDropsOneDomain) {
    Stale stale(options());
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_domain(kDomain)));
    EXPECT_EQ(stale.rig.probe.load(kIova), kNew);
    EXPECT_EQ(stale.rig.second.load(kIova), kOld);
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_domain(kOtherDomain)));
    EXPECT_EQ(stale.rig.second.load(kIova), kNew);
}

TEST_P(Invalidation, PageSelectiveDropsItsPagesOfItsDomain) {
    constexpr std::size_t kPages = 16;
    Stale stale(options(), kPages);
    // Pages 4 to 7.
    ASSERT_TRUE(
        stale.rig.driver.submit(Descriptor::iotlb_pages(kDomain, kIova + 4 * kPageSize, 2)));
    for (std::size_t i = 0; i < kPages; i++) {
        EXPECT_EQ(stale.rig.probe.load(kIova + i * kPageSize), i >= 4 && i < 8 ? kNew : kOld)
            << "page " << i;
        EXPECT_EQ(stale.rig.second.load(kIova + i * kPageSize), kOld) << "page " << i;
    }
}

TEST_P(Invalidation, PageSelectiveInsideALargeLeafDropsTheLeaf) {
    Rig rig(options());
    SecondStage table = rig.driver.new_table();
    const Gpa other = kData + leaf_size(Leaf::page_2m);
    rig.machine.fill(kData, leaf_size(Leaf::page_2m), std::byte{1});
    rig.machine.fill(other, leaf_size(Leaf::page_2m), std::byte{2});
    table.map(kIova, kData, Leaf::page_2m);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    EXPECT_EQ(rig.probe.load(kIova + 0x10'0000), kOld);
    table.map(kIova, other, Leaf::page_2m);

    // The invalidation names another page than the one that was read. One leaf maps both.
    ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_pages(kDomain, kIova + 0x1000, 0)));
    EXPECT_EQ(rig.probe.load(kIova + 0x10'0000), kNew);
}

TEST_P(Invalidation, LargestAddressMask) {
    Stale stale(options(), 4);
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_pages(kDomain, Iova(0x8000'0000), 18)));
    for (std::size_t i = 0; i < 4; i++) {
        EXPECT_EQ(stale.rig.probe.load(kIova + i * kPageSize), kNew);
    }
}

TEST_P(Invalidation, LeafOnlyHintDropsTheLeaf) {
    Stale stale(options());
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_pages(kDomain, kIova, 0, true)));
    EXPECT_EQ(stale.rig.probe.load(kIova), kNew);
}

TEST_P(Invalidation, UnmappedPageFaultsAfterInvalidation) {
    Stale stale(options());
    stale.first.unmap(kIova);
    EXPECT_EQ(stale.rig.probe.load(kIova), kOld);
    ASSERT_TRUE(stale.rig.driver.submit(Descriptor::iotlb_pages(kDomain, kIova, 0)));
    EXPECT_EQ(stale.rig.probe.load(kIova), std::nullopt);
    EXPECT_EQ(stale.rig.driver.take_faults().size(), 1u);
}

TEST_P(Invalidation, NewContextEntryTakesEffectAfterContextInvalidation) {
    const std::array<Descriptor, 3> kinds = {Descriptor::context_global(),
                                             Descriptor::context_domain(kDomain),
                                             Descriptor::context_device(kDomain, kProbe)};
    for (const Descriptor& kind : kinds) {
        Rig rig(options());
        SecondStage first = rig.driver.new_table();
        SecondStage second = rig.driver.new_table();
        rig.machine.fill(kData, kPageSize, std::byte{1});
        rig.machine.fill(kData + kPageSize, kPageSize, std::byte{2});
        first.map(kIova, kData);
        second.map(kIova, kData + kPageSize);
        rig.driver.attach(kProbe, first, kDomain);
        rig.driver.enable_translation();
        EXPECT_EQ(rig.probe.load(kIova), kOld);

        rig.driver.attach(kProbe, second, kDomain);
        const std::array<Descriptor, 2> pair = {kind, Descriptor::iotlb_domain(kDomain)};
        ASSERT_TRUE(rig.driver.submit(pair));
        EXPECT_EQ(rig.probe.load(kIova), kNew);

        rig.driver.contexts().clear(kProbe);
        ASSERT_TRUE(rig.driver.submit(pair));
        EXPECT_EQ(rig.probe.load(kIova), std::nullopt);
        const std::vector<Fault> faults = rig.driver.take_faults();
        ASSERT_EQ(faults.size(), 1u);
        EXPECT_EQ(faults[0].reason, driver::Reason::context_not_present);
    }
}

TEST_P(Invalidation, ByRegisterPageSelectiveDomainSelectiveAndGlobal) {
    constexpr std::uint64_t kInvalidate = std::uint64_t{1} << 63;
    Stale stale(options(), 2);
    // The registers are for a unit without a running queue.
    ASSERT_TRUE(stale.rig.driver.command(0, driver::kQueueEnable));
    const std::uint32_t address =
        driver::iotlb_register_offset(stale.rig.driver.extended_capability());
    const auto invalidate = [&](unsigned granularity, std::uint16_t domain) {
        stale.rig.driver.write64(address + 8, kInvalidate | std::uint64_t{granularity} << 60 |
                                                  std::uint64_t{domain} << 32);
        const std::uint64_t after = stale.rig.driver.read64(address + 8);
        EXPECT_EQ(after & kInvalidate, 0u);
        EXPECT_EQ(after >> 57 & 3, granularity) << "actual granularity";
    };
    stale.rig.driver.write64(address, kIova.value());
    invalidate(3, kDomain);
    EXPECT_EQ(stale.rig.probe.load(kIova), kNew);
    EXPECT_EQ(stale.rig.probe.load(kIova + kPageSize), kOld);
    EXPECT_EQ(stale.rig.second.load(kIova), kOld);
    invalidate(2, kDomain);
    EXPECT_EQ(stale.rig.probe.load(kIova + kPageSize), kNew);
    EXPECT_EQ(stale.rig.second.load(kIova), kOld);
    invalidate(1, 0);
    EXPECT_EQ(stale.rig.second.load(kIova), kNew);
}

TEST_P(Invalidation, ContextCacheByRegister) {
    constexpr std::uint64_t kInvalidate = std::uint64_t{1} << 63;
    Stale stale(options());
    ASSERT_TRUE(stale.rig.driver.command(0, driver::kQueueEnable));
    stale.rig.driver.contexts().clear(kProbe);
    stale.rig.driver.write64(driver::kContextCommand, kInvalidate | std::uint64_t{1} << 61);
    const std::uint64_t after = stale.rig.driver.read64(driver::kContextCommand);
    EXPECT_EQ(after & kInvalidate, 0u);
    EXPECT_EQ(after >> 59 & 3, 1u) << "actual granularity";
    stale.rig.driver.write64(
        driver::iotlb_register_offset(stale.rig.driver.extended_capability()) + 8,
        kInvalidate | std::uint64_t{1} << 60);
    EXPECT_EQ(stale.rig.probe.load(kIova), std::nullopt);
    EXPECT_EQ(stale.rig.second.load(kIova), kNew);
}

// The queue itself.

class InvalidationQueue : public ViommuTest {};
UMBRA_ON_EACH_VIOMMU(InvalidationQueue);

TEST_P(InvalidationQueue, WrapsAround) {
    Rig rig(options());
    rig.driver.enable_translation();
    for (unsigned i = 0; i < 2 * rig.driver.queue_entries(); i++) {
        ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_global())) << "round " << i;
        EXPECT_EQ(rig.driver.read64(driver::kQueueHead), std::uint64_t{rig.driver.tail()} * 16);
    }
}

TEST_P(InvalidationQueue, TakesManyDescriptorsInOneDoorbell) {
    Rig rig(options());
    rig.driver.enable_translation();
    const std::vector<Descriptor> many(rig.driver.queue_entries() - 2, Descriptor::iotlb_global());
    for (int round = 0; round < 3; round++) {
        ASSERT_TRUE(rig.driver.submit(many));
    }
}

TEST_P(InvalidationQueue, LargerQueues) {
    for (const unsigned order : {1u, 3u, 7u}) {
        QtestMachine machine(options());
        ModelDriver driver(machine, order);
        driver.enable_translation();
        const std::vector<Descriptor> many(driver.queue_entries() - 8, Descriptor::iotlb_global());
        EXPECT_TRUE(driver.submit(many)) << "order " << order;
        EXPECT_TRUE(driver.submit(std::span(many).first(64))) << "order " << order;
        EXPECT_EQ(driver.read64(driver::kQueueHead), std::uint64_t{driver.tail()} * 16);
    }
}

TEST_P(InvalidationQueue, WaitCanInterrupt) {
    constexpr unsigned kVector = 0x61;
    Rig rig(options());
    rig.driver.enable_translation();
    rig.driver.write32(driver::kCompletionEventControl, 0);
    rig.driver.write32(driver::kCompletionEventData, kVector);
    rig.driver.write32(driver::kCompletionEventAddress, 0xfee0'0000);
    rig.driver.enqueue(Descriptor::wait_interrupt());
    rig.driver.ring();
    EXPECT_EQ(rig.machine.pending_vectors(), std::vector<unsigned>{kVector});
    EXPECT_NE(rig.driver.read32(driver::kCompletionStatus) & driver::kCompletionPending, 0u);
    rig.driver.write32(driver::kCompletionStatus, driver::kCompletionPending);
    EXPECT_EQ(rig.driver.read32(driver::kCompletionStatus) & driver::kCompletionPending, 0u);
}

TEST_P(InvalidationQueue, MaskedCompletionInterruptIsPendingUntilUnmasked) {
    constexpr unsigned kVector = 0x62;
    Rig rig(options());
    rig.driver.enable_translation();
    rig.driver.write32(driver::kCompletionEventControl, driver::kEventMask);
    rig.driver.write32(driver::kCompletionEventData, kVector);
    rig.driver.write32(driver::kCompletionEventAddress, 0xfee0'0000);
    rig.driver.enqueue(Descriptor::wait_interrupt());
    rig.driver.ring();
    EXPECT_TRUE(rig.machine.pending_vectors().empty());
    EXPECT_NE(rig.driver.read32(driver::kCompletionEventControl) & driver::kEventPending, 0u);
    rig.driver.write32(driver::kCompletionEventControl, 0);
    EXPECT_EQ(rig.machine.pending_vectors(), std::vector<unsigned>{kVector});
}

// A descriptor that the queue must stop at.
struct BadDescriptor {
    const char* name;
    Descriptor descriptor;
};

std::vector<BadDescriptor> bad_descriptors() {
    Descriptor reserved_context = Descriptor::context_global();
    reserved_context.low |= std::uint64_t{1} << 60;
    Descriptor reserved_iotlb = Descriptor::iotlb_domain(kDomain);
    reserved_iotlb.low |= std::uint64_t{1} << 40;
    Descriptor reserved_wait = Descriptor::wait_status(Gpa(0x1000), 1);
    reserved_wait.low |= 1u << 20;
    return {
        {"type 0", {.low = 0}},
        {"type 15", {.low = 0xf}},
        {"context granularity 0", {.low = 0x1}},
        {"IOTLB granularity 0", {.low = 0x2}},
        {"address mask beyond MAMV", Descriptor::iotlb_pages(kDomain, Iova(0), 19)},
        {"reserved bit of a context descriptor", reserved_context},
        {"reserved bit of an IOTLB descriptor", reserved_iotlb},
        {"reserved bit of a wait descriptor", reserved_wait},
    };
}

TEST_P(InvalidationQueue, StopsAtABadDescriptorAndRecovers) {
    Rig rig(options());
    rig.driver.enable_translation();
    for (const BadDescriptor& bad : bad_descriptors()) {
        SCOPED_TRACE(bad.name);
        ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_global()));
        const unsigned at = rig.driver.tail();
        EXPECT_FALSE(rig.driver.submit(bad.descriptor));
        EXPECT_NE(rig.driver.read32(driver::kFaultStatus) & driver::kQueueError, 0u);
        EXPECT_EQ(rig.driver.read64(driver::kQueueHead), std::uint64_t{at} * 16);

        // As drivers do: put a harmless descriptor in its place, clear the error, and go on. The
        // wait behind it completes.
        const Gpa slot = rig.driver.queue() + std::uint64_t{at} * 16;
        rig.machine.store64(slot + 8, 0);
        rig.machine.store64(slot, Descriptor::iotlb_global().low);
        rig.driver.write32(driver::kFaultStatus, driver::kQueueError);
        rig.driver.ring();
        EXPECT_EQ(rig.driver.read32(driver::kFaultStatus) & driver::kQueueError, 0u);
        EXPECT_EQ(rig.driver.read64(driver::kQueueHead), std::uint64_t{rig.driver.tail()} * 16);
        EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_global()));
    }
}

TEST_P(InvalidationQueue, TailOutOfRangeIsAnError) {
    Rig rig(options());
    rig.driver.enable_translation();
    const std::uint64_t head = rig.driver.read64(driver::kQueueHead);
    rig.driver.write64(driver::kQueueTail, std::uint64_t{rig.driver.queue_entries()} * 16);
    EXPECT_NE(rig.driver.read32(driver::kFaultStatus) & driver::kQueueError, 0u);
    EXPECT_EQ(rig.driver.read64(driver::kQueueHead), head);
    rig.driver.ring();
    rig.driver.write32(driver::kFaultStatus, driver::kQueueError);
    EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_global()));
}

TEST_P(InvalidationQueue, OutsideOfRamIsAnErrorAndNothingElse) {
    Rig rig(options());
    rig.driver.write64(driver::kQueueTail, 0);
    rig.driver.write64(driver::kQueueAddress, 0x7f'ffff'f000);
    ASSERT_TRUE(rig.driver.command(driver::kQueueEnable));
    rig.driver.write64(driver::kQueueTail, 0x10);
    EXPECT_NE(rig.driver.read32(driver::kFaultStatus) & driver::kQueueError, 0u);
    EXPECT_TRUE(rig.machine.runs());
}

TEST_P(InvalidationQueue, WaitWithAStatusAddressOutsideOfRamDoesNotHurt) {
    Rig rig(options());
    rig.driver.enable_translation();
    rig.driver.enqueue(Descriptor::wait_status(Gpa(0x7f'ffff'f000), 1));
    rig.driver.ring();
    rig.driver.write32(driver::kFaultStatus, driver::kQueueError);
    EXPECT_TRUE(rig.machine.runs());
}

TEST_P(InvalidationQueue, ErrorInterruptIsAFaultEvent) {
    constexpr unsigned kVector = 0x63;
    Rig rig(options());
    rig.driver.enable_translation();
    rig.driver.write32(driver::kFaultEventData, kVector);
    rig.driver.write32(driver::kFaultEventAddress, 0xfee0'0000);
    rig.driver.write32(driver::kFaultEventControl, 0);
    EXPECT_FALSE(rig.driver.submit(Descriptor{.low = 0xf}));
    EXPECT_EQ(rig.machine.pending_vectors(), std::vector<unsigned>{kVector});
}

}  // namespace
}  // namespace umbra::qtest
