// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the host of a passed-through device cannot map: the interrupt range, a range that it
// reserves, and addresses beyond its width.
#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr Iova kInterrupts(0xfee0'0000);
constexpr const char* kContainer = ",listen=on,container=on";

class IovaHoles : public QemuTest {
  protected:
    // kProbe is a VFIO device in kDomain; translation is on, nothing mapped.
    struct Passed {
        explicit Passed(const std::string& host)
            : rig({.viommu = Viommu::umbra}, kContainer + host), table(rig.driver.new_table()) {
            rig.driver.attach(kProbe, table, kDomain);
            rig.driver.enable_translation();
        }
        void map_large(Iova iova) {
            table.map(iova, kData, Leaf::page_2m);
            EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_pages(kDomain, iova, 9)));
        }
        void unmap_large(Iova iova) {
            table.unmap(iova, Leaf::page_2m);
            EXPECT_TRUE(rig.driver.submit(Descriptor::iotlb_pages(kDomain, iova, 9)));
        }
        [[nodiscard]] bool told() {
            return rig.machine.output().find("IOVA 0x") != std::string::npos;
        }

        Rig rig;
        SecondStage table;
    };
};

TEST_F(IovaHoles, LargeLeafAtTheInterruptRange) {
    Passed on("");
    on.map_large(kInterrupts);
    EXPECT_EQ(on.rig.probe.live_mappings(),
              Mappings{mapping(kInterrupts + kMiB, kData + kMiB, kMiB)});
    EXPECT_FALSE(on.told()) << on.rig.machine.output();
    EXPECT_TRUE(is_clean(on.rig.machine));
    on.unmap_large(kInterrupts);
    EXPECT_EQ(on.rig.probe.live_mappings(), Mappings{});
    expect_nothing_refused(on.rig.probe);
}

TEST_F(IovaHoles, RangeThatTheHostReserves) {
    Passed on(",host-hole=0x40080000,host-hole-bytes=0x1000");
    on.map_large(Iova(0x4000'0000));
    const Mappings around = {
        mapping(Iova(0x4000'0000), kData, 0x8'0000),
        mapping(Iova(0x4008'1000), kData + 0x8'1000, 2 * kMiB - 0x8'1000),
    };
    EXPECT_EQ(on.rig.probe.live_mappings(), around);
    EXPECT_TRUE(on.told());
    EXPECT_NE(on.rig.machine.output().find("0x40080000-0x40080fff"), std::string::npos);
    EXPECT_TRUE(is_clean(on.rig.machine));
    on.unmap_large(Iova(0x4000'0000));
    EXPECT_EQ(on.rig.probe.live_mappings(), Mappings{});
    expect_nothing_refused(on.rig.probe);
}

}  // namespace
}  // namespace umbra::qtest
