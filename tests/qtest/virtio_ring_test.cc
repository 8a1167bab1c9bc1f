// SPDX-License-Identifier: GPL-2.0-or-later
//
// A virtio queue that crosses from one IOMMU page into the next. The two pages are no neighbours in
// guest memory, so the device must translate each of them by itself
// (qemu-configs/patches/0001-*.patch).
#include <array>

#include "tests/qtest/viommu_test.h"
#include "tests/qtest/virtio_driver.h"

namespace umbra::qtest {
namespace {

constexpr SourceId kEntropyDevice(0, 7 << 3);
constexpr std::uint64_t kVersion1AndAccessPlatform = std::uint64_t{3} << 32;
constexpr std::uint32_t kLength = 64;
constexpr std::uint64_t kUntouched = 0x5a5a'5a5a'5a5a'5a5a;

// IOVAs of the two pages that the part under test crosses, and of three more.
constexpr Iova kCrossing(0x4000'0000);
constexpr Iova kPlain(0x5000'0000);

class VirtioRing : public ViommuTest {
  protected:
    void SetUp() override {
        ViommuTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        MachineOptions with_entropy = options();
        with_entropy.arguments = {"-object", "rng-builtin,id=entropy", "-device",
                                  "virtio-rng-pci,rng=entropy,iommu_platform=on,disable-legacy=on,"
                                  "addr=7"};
        rig_ = std::make_unique<Rig>(with_entropy);
        if (rig_->machine.qmp_ok(R"({"execute": "query-version"})")
                .at("package")
                .get<std::string>()
                .find("Umbra's patches") == std::string::npos) {
            GTEST_SKIP() << "this QEMU was built without qemu-configs/patches";
        }
        crossing_ = rig_->driver.pages().allocate(3);
        plain_ = rig_->driver.pages().allocate(3);
        SecondStage table = rig_->driver.new_table();
        table.map(kCrossing, first());
        table.map(kCrossing + kPageSize, second());
        table.map_pages(kPlain, plain_, 3);
        for (std::uint64_t at = 0; at < kPageSize; at += 8) {
            rig_->machine.store64(between() + at, kUntouched);
        }
        rig_->driver.attach(kEntropyDevice, table, kDomain);
        rig_->driver.enable_translation();
    }

    // The page that follows the first one in guest memory belongs to somebody else.
    [[nodiscard]] Gpa first() const { return crossing_; }
    [[nodiscard]] Gpa between() const { return crossing_ + kPageSize; }
    [[nodiscard]] Gpa second() const { return crossing_ + 2 * kPageSize; }

    // Three pages in their natural order: one for the part of the queue that does not cross, one
    // for the available ring, and the buffer.
    [[nodiscard]] Gpa other() const { return plain_; }
    [[nodiscard]] Gpa available() const { return plain_ + kPageSize; }
    [[nodiscard]] Gpa buffer() const { return plain_ + 2 * kPageSize; }
    static constexpr Iova kOther = kPlain;
    static constexpr Iova kAvailable = kPlain + kPageSize;
    static constexpr Iova kBuffer = kPlain + 2 * kPageSize;

    void expect_nobody_else_was_touched() {
        for (std::uint64_t at = 0; at < kPageSize; at += 8) {
            ASSERT_EQ(rig_->machine.load64(between() + at), kUntouched) << at;
        }
        EXPECT_TRUE(rig_->driver.take_faults().empty());
    }

    std::unique_ptr<Rig> rig_;
    Gpa crossing_;
    Gpa plain_;
};
UMBRA_ON_EACH_VIOMMU(VirtioRing);

TEST_P(VirtioRing, UsedElementThatCrossesPagesIsWrittenToBoth) {
    QtestMachine& machine = rig_->machine;
    VirtioDriver entropy(machine, kEntropyDevice, probe_bar(2));
    // Flags and index, then the first element: its id ends the page, its length begins the next.
    constexpr std::uint64_t kUsed = kPageSize - 8;
    machine.store64(other(), kBuffer.value());
    machine.store64(other() + 8, VirtioDriver::descriptor_tail(0, kLength, VirtioDriver::kWrite));
    entropy.start(kVersion1AndAccessPlatform, {.descriptors = kOther.value(),
                                               .available = kAvailable.value(),
                                               .used = (kCrossing + kUsed).value()});
    machine.store64(first() + kUsed, 0xffff'ffff'0000'0000);
    entropy.offer(available());
    entropy.wait_returned([&] { return machine.load64(first() + kUsed) >> 16 & 0xffff; });

    EXPECT_EQ(machine.load64(first() + kUsed) >> 32, 0u) << "id";
    EXPECT_EQ(machine.load64(second()), kLength) << "length";
    expect_nobody_else_was_touched();
}

TEST_P(VirtioRing, DescriptorThatCrossesPagesIsReadFromBoth) {
    QtestMachine& machine = rig_->machine;
    VirtioDriver entropy(machine, kEntropyDevice, probe_bar(2));
    // The buffer's address ends the page, length and flags begin the next.
    constexpr std::uint64_t kDescriptors = kPageSize - 8;
    machine.store64(first() + kDescriptors, kBuffer.value());
    machine.store64(second(), VirtioDriver::descriptor_tail(0, kLength, VirtioDriver::kWrite));
    entropy.start(kVersion1AndAccessPlatform, {.descriptors = (kCrossing + kDescriptors).value(),
                                               .available = kAvailable.value(),
                                               .used = kOther.value()});
    entropy.offer(available());
    entropy.wait_returned([&] { return machine.load64(other()) >> 16 & 0xffff; });

    EXPECT_EQ(machine.load64(other() + 8), kLength) << "length";
    std::uint64_t any = 0;
    for (std::uint64_t at = 0; at < kLength; at += 8) {
        any |= machine.load64(buffer() + at);
    }
    EXPECT_NE(any, 0u) << "no entropy came";
    EXPECT_EQ(machine.load64(buffer() + kLength), 0u) << "beyond the buffer's end";
    expect_nobody_else_was_touched();
}

}  // namespace
}  // namespace umbra::qtest
