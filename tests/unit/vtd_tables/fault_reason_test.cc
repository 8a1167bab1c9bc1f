// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/fault_reason.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace umbra::vtd {
namespace {

TEST(FaultReason, CodesAreTheSpecifications) {
    EXPECT_EQ(static_cast<int>(FaultReason::root_not_present), 0x1);
    EXPECT_EQ(static_cast<int>(FaultReason::write_denied), 0x5);
    EXPECT_EQ(static_cast<int>(FaultReason::read_denied), 0x6);
    EXPECT_EQ(static_cast<int>(FaultReason::entry_reserved), 0xc);
    EXPECT_EQ(static_cast<int>(FaultReason::output_is_interrupt_address), 0xe);
    EXPECT_EQ(static_cast<int>(FaultReason::interrupt_request_reserved), 0x20);
    EXPECT_EQ(static_cast<int>(FaultReason::interrupt_source_refused), 0x26);
}

TEST(FaultReason, EveryCodeHasANameOfItsOwnAndNoOtherValueHasOne) {
    std::set<std::string_view> names;
    std::size_t named = 0;
    for (unsigned value = 0; value < 256; ++value) {
        const auto name = fault_reason_name(static_cast<FaultReason>(value));
        EXPECT_FALSE(name.empty());
        if (name == "unknown") {
            continue;
        }
        EXPECT_LT(value, kFaultReasonCodes);
        names.insert(name);
        ++named;
    }
    EXPECT_EQ(names.size(), named);
    EXPECT_EQ(named, 15u + 7u);  // 0x00 to 0x0e, 0x20 to 0x26
}

}  // namespace
}  // namespace umbra::vtd
