// SPDX-License-Identifier: GPL-2.0-or-later
//
// The set-up of the tests that look at a passed-through device's host mappings after each thing
// that a guest may do to its tables. Probes listen as VFIO does and apply type1v2's rules: a map
// over a live mapping and an unmap that would cut one are refused.
//
// On Umbra every expectation is asserted. On QEMU's intel-iommu, expect() prints the outcome and
// records it as a property of the test, and no outcome is a failure: these are cases that the peer
// is known to get wrong. EXPECT_… is for what both get right.
#pragma once

#include <cstdint>
#include <iostream>
#include <string>

#include "plugin/probe/registers.h"
#include "tests/qtest/viommu_test.h"

namespace umbra::qtest {

inline constexpr Iova kIova(0x4000'0000);

class ShadowFixture : public ViommuTest {
  protected:
    // kProbe listens in kDomain, kSecondProbe in kOtherDomain; translation is on, nothing mapped.
    struct Listening {
        explicit Listening(const MachineOptions& options)
            : rig(options, ",listen=on"),
              table(rig.driver.new_table()),
              other(rig.driver.new_table()) {
            rig.driver.attach(kProbe, table, kDomain);
            rig.driver.attach(kSecondProbe, other, kOtherDomain);
            rig.driver.enable_translation();
        }
        Listening(const Listening&) = delete;
        Listening& operator=(const Listening&) = delete;
        // Whatever a test did, Umbra's own comparison of tables and mappings must find no error.
        ~Listening() {
            if (on_umbra() && rig.machine.runs()) {
                expect_no_errors(rig.machine);
            }
        }

        void submit(const Descriptor& descriptor) { EXPECT_TRUE(rig.driver.submit(descriptor)); }
        [[nodiscard]] Mappings live() { return joined(rig.probe.live_mappings()); }

        Rig rig;
        SecondStage table;
        SecondStage other;
    };

    // `what` names the expectation. On Umbra a failure fails the test; on the peer it is recorded.
    void expect(const std::string& what, const Mappings& actual, const Mappings& expected) {
        if (on_umbra()) {
            EXPECT_EQ(actual, expected) << what;
        } else {
            note(what, actual == expected);
        }
    }
    void expect(const std::string& what, std::uint64_t actual, std::uint64_t expected) {
        if (on_umbra()) {
            EXPECT_EQ(actual, expected) << what;
        } else {
            note(what, actual == expected);
        }
    }

    // VFIO would have refused nothing so far.
    void expect_no_refusal(ProbeDriver& probe) {
        expect("no map over a live mapping", probe.get(UMBRA_PROBE_REFUSED_OVERLAP), 0);
        expect("no unmap that cuts a mapping", probe.get(UMBRA_PROBE_REFUSED_BISECT), 0);
        expect("no map of what is not RAM", probe.get(UMBRA_PROBE_REFUSED_TARGET), 0);
    }

    static void note(const std::string& what, bool holds) {
        RecordProperty("peer_" + std::to_string(++noted_), what + (holds ? ": holds" : ": FAILS"));
        std::cout << "[ PEER     ] " << what << (holds ? ": holds" : ": FAILS") << "\n";
    }

    void SetUp() override {
        noted_ = 0;
        ViommuTest::SetUp();
    }

    static inline int noted_ = 0;
};

}  // namespace umbra::qtest
