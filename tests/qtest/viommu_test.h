// SPDX-License-Identifier: GPL-2.0-or-later
//
// The set-up that the device-level tests share: a machine with the vIOMMU under test, a driver for
// the vIOMMU, and probes behind it. The vIOMMU is a test's parameter. A run on QEMU's own
// intel-iommu proves the harness; a run on Umbra tests Umbra.
#pragma once

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <vector>

#include "plugin/probe/registers.h"
#include "tests/qtest/environment.h"
#include "tests/qtest/model_driver.h"
#include "tests/qtest/probe_driver.h"
#include "tests/qtest/qtest_machine.h"

namespace umbra::qtest {

inline constexpr SourceId kProbe(0, 5 << 3);
inline constexpr SourceId kSecondProbe(0, 6 << 3);

// Guest memory for data, away from the tables that ModelDriver allocates.
inline constexpr Gpa kData(256u << 20);

// Domain-ids of the tests. Caching mode reserves 0.
inline constexpr std::uint16_t kDomain = 5;
inline constexpr std::uint16_t kOtherDomain = 6;

// A machine with two probes (kProbe and kSecondProbe) behind the vIOMMU, and its driver.
struct Rig {
    explicit Rig(MachineOptions options, const std::string& probe_properties = "")
        : machine(with_probes(std::move(options), probe_properties)),
          driver(machine),
          probe(machine, kProbe, probe_bar(0)),
          second(machine, kSecondProbe, probe_bar(1)) {}

    static MachineOptions with_probes(MachineOptions options, const std::string& properties) {
        options.arguments.insert(options.arguments.begin(),
                                 {"-device", "umbra-probe,id=probe,addr=5" + properties, "-device",
                                  "umbra-probe,id=second,addr=6" + properties});
        return options;
    }

    QtestMachine machine;
    ModelDriver driver;
    ProbeDriver probe;
    ProbeDriver second;
};

// Umbra's counters, and Umbra's comparison of the shadow with the guest's tables.
[[nodiscard]] inline Json statistics_of(QtestMachine& machine) {
    return machine.property(kViommuPath, "statistics");
}
[[nodiscard]] inline Json verification_of(QtestMachine& machine) {
    return machine.property(kViommuPath, "verify");
}
// No difference but those that an invalidation still to come explains.
inline void expect_no_errors(QtestMachine& machine) {
    const Json verification = verification_of(machine);
    EXPECT_EQ(verification.at("errors"), 0);
    EXPECT_TRUE(verification.at("complete").get<bool>());
}
// Nothing differs.
[[nodiscard]] inline bool is_clean(QtestMachine& machine) {
    return verification_of(machine).at("clean").get<bool>();
}
// VFIO would have refused none of the calls to this probe so far.
inline void expect_nothing_refused(ProbeDriver& probe) {
    EXPECT_EQ(probe.get(UMBRA_PROBE_REFUSED_OVERLAP), 0u);
    EXPECT_EQ(probe.get(UMBRA_PROBE_REFUSED_BISECT), 0u);
    EXPECT_EQ(probe.get(UMBRA_PROBE_REFUSED_TARGET), 0u);
}
inline void clear_statistics(QtestMachine& machine) {
    machine.set_property(kViommuPath, "statistics-clear", "true");
}

// Skips the test, with the reason, where QEMU or the plugin is missing.
class QemuTest : public ::testing::Test {
  protected:
    void SetUp() override {
        const std::string problem = Environment::get().problem();
        if (!problem.empty()) {
            GTEST_SKIP() << problem;
        }
    }
};

class ViommuTest : public QemuTest, public ::testing::WithParamInterface<Viommu> {
  protected:
    [[nodiscard]] static MachineOptions options(unsigned address_width = 48) {
        return {.viommu = GetParam(), .address_width = address_width};
    }
    [[nodiscard]] static bool on_umbra() { return GetParam() == Viommu::umbra; }
};

inline std::string viommu_name(const ::testing::TestParamInfo<Viommu>& info) {
    return info.param == Viommu::umbra ? "umbra" : "intel";
}

#define UMBRA_ON_EACH_VIOMMU(suite)                                                      \
    INSTANTIATE_TEST_SUITE_P(On, suite, ::testing::Values(Viommu::umbra, Viommu::intel), \
                             viommu_name)

}  // namespace umbra::qtest
