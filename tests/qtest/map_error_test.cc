// SPDX-License-Identifier: GPL-2.0-or-later
//
// The host refuses a map: on-map-error=stop, and the machine that goes on after the stop.
#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"
#include "tests/qtest/wait.h"

namespace umbra::qtest {
namespace {

constexpr Iova kIova(0x4000'0000);
const std::string kViommu(kViommuPath);

class MapError : public QemuTest {
  protected:
    // kProbe is a VFIO device in kDomain; translation is on, nothing mapped.
    struct Refusing {
        explicit Refusing(const std::string& policy)
            : rig(options(policy), ",listen=on,container=on"), table(rig.driver.new_table()) {
            rig.driver.attach(kProbe, table, kDomain);
            rig.driver.enable_translation();
        }

        static MachineOptions options(const std::string& policy) {
            MachineOptions options{.viommu = Viommu::umbra};
            options.viommu_properties = ",on-map-error=" + policy;
            return options;
        }

        void refuse(bool on) {
            rig.machine.set_property("/machine/peripheral/probe", "refuse-maps",
                                     on ? "true" : "false");
        }
        [[nodiscard]] std::string state() {
            return rig.machine.qmp_ok(R"({"execute": "query-status"})")
                .at("status")
                .get<std::string>();
        }
        [[nodiscard]] bool becomes(const std::string& wanted) {
            return comes_true([&] { return state() == wanted; });
        }
        void go_on() { rig.machine.qmp_ok(R"({"execute": "cont"})"); }
        // Maps `page` and invalidates it; the wait's status becomes `status`.
        void map(std::size_t page, std::uint32_t status) {
            table.map(kIova + 2 * page * kPageSize, kData + 3 * page * kPageSize);
            rig.driver.enqueue(Descriptor::iotlb_pages(kDomain, kIova + 2 * page * kPageSize, 0));
            rig.driver.enqueue(Descriptor::wait_status(rig.driver.status_address(), status));
            rig.driver.ring();
        }
        [[nodiscard]] std::uint32_t status() {
            return static_cast<std::uint32_t>(rig.machine.load64(rig.driver.status_address()));
        }
        [[nodiscard]] bool completes(std::uint32_t wanted) {
            return comes_true([&] { return status() == wanted; });
        }
        void choose(const std::string& policy) {
            rig.machine.set_property(kViommu, "on-map-error", '"' + policy + '"');
        }
        [[nodiscard]] std::size_t mapped() { return rig.probe.live_mappings().size(); }
        [[nodiscard]] std::size_t told() {
            const std::string output = rig.machine.output();
            std::size_t count = 0;
            for (std::size_t at = 0; (at = output.find("refused to map", at)) != std::string::npos;
                 ++at) {
                ++count;
            }
            return count;
        }

        Rig rig;
        SecondStage table;
    };
};

TEST_F(MapError, StopsUntilTheHostTakesIt) {
    Refusing on("stop");
    on.map(0, 0x1001);
    EXPECT_EQ(on.status(), 0x1001u);
    on.refuse(true);
    on.map(1, 0x1002);
    ASSERT_TRUE(on.becomes("io-error"));
    // The guest does not see the invalidation completed, since the mapping is not there.
    EXPECT_EQ(on.status(), 0x1001u);
    EXPECT_EQ(on.mapped(), 1u);
    EXPECT_EQ(on.told(), 1u);

    // The host still refuses. By the time that the monitor answers, the machine stands still again,
    // and no vCPU has run.
    for (unsigned i = 2; i < 6; ++i) {
        on.go_on();
        EXPECT_EQ(on.state(), "io-error");
        EXPECT_EQ(on.status(), 0x1001u);
        EXPECT_EQ(on.told(), i);
    }

    on.refuse(false);
    on.go_on();
    EXPECT_EQ(on.state(), "running");
    EXPECT_EQ(on.mapped(), 2u);
    EXPECT_TRUE(on.completes(0x1002));
    on.map(2, 0x1003);
    EXPECT_TRUE(on.completes(0x1003));
    EXPECT_EQ(on.mapped(), 3u);
    EXPECT_NE(on.rig.machine.output().find("has healed"), std::string::npos);

    on.refuse(true);
    on.map(3, 0x1004);
    ASSERT_TRUE(on.becomes("io-error"));
    // Five times so far, and once as what has healed.
    EXPECT_EQ(on.told(), 7u) << on.rig.machine.output();
    on.refuse(false);
    on.go_on();
    EXPECT_EQ(on.mapped(), 4u);
    EXPECT_TRUE(on.completes(0x1004));
    EXPECT_TRUE(is_clean(on.rig.machine));
}

// The host never takes it: the message names the way out, and the way is there.
TEST_F(MapError, OperatorLetsTheGuestGoOnWithout) {
    Refusing on("stop");
    on.refuse(true);
    on.map(1, 0x1001);
    ASSERT_TRUE(on.becomes("io-error"));
    EXPECT_NE(on.rig.machine.output().find("qom-set " + kViommu + " on-map-error report"),
              std::string::npos)
        << on.rig.machine.output();
    on.choose("report");
    // A machine that stands still writes nothing.
    EXPECT_NE(on.status(), 0x1001u);
    EXPECT_EQ(on.state(), "io-error");
    on.go_on();
    EXPECT_EQ(on.state(), "running");
    EXPECT_TRUE(on.completes(0x1001));
    EXPECT_EQ(on.mapped(), 0u);

    // From the next refusal on it stops again.
    on.choose("stop");
    EXPECT_EQ(on.state(), "running");
    on.map(2, 0x1002);
    ASSERT_TRUE(on.becomes("io-error"));
    EXPECT_EQ(on.status(), 0x1001u);
    EXPECT_NE(
        on.rig.machine.qmp(qom_set(kViommu, "on-map-error", R"("ask")")).find("use report or stop"),
        std::string::npos);
}

TEST_F(MapError, ReportedOnesAreRetriedWhenTheMachineGoesOn) {
    Refusing on("report");
    on.refuse(true);
    on.map(1, 0x1001);
    EXPECT_EQ(on.status(), 0x1001u);
    EXPECT_EQ(on.state(), "running");
    EXPECT_EQ(on.mapped(), 0u);
    on.refuse(false);
    on.rig.machine.qmp_ok(R"({"execute": "stop"})");
    on.go_on();
    EXPECT_EQ(on.mapped(), 1u);
}

// The reset comes before the stop that is under way.
TEST_F(MapError, ResetOfAMachineThatIsToStop) {
    Refusing on("stop");
    on.refuse(true);
    on.map(1, 0x1001);
    on.rig.machine.system_reset();
    EXPECT_EQ(on.rig.driver.read32(driver::kGlobalStatus), 0u);
    EXPECT_TRUE(on.rig.machine.runs());
}

}  // namespace
}  // namespace umbra::qtest
