// SPDX-License-Identifier: GPL-2.0-or-later
//
// A unit whose address width is settled after it was made.
#include "tests/unit/vtd/unit_fixture.h"

namespace umbra::vtd::testing {
namespace {

constexpr std::uint16_t kDevice = 0x0010;

class AddressWidth : public UnitFixture {
  protected:
    static UnitProperties narrow() {
        UnitProperties properties;
        properties.address_width = 39;
        return properties;
    }
};

TEST_F(AddressWidth, UnitThatIsMadeNarrowerIsLikeOneThatWasBuiltSo) {
    build(narrow());
    const SavedState built = unit->save();
    build(UnitProperties());
    ASSERT_NE(unit->save().registers, built.registers);
    unit->set_address_width(39);
    EXPECT_EQ(unit->save().registers, built.registers);
    EXPECT_TRUE(unit->restore(built));
    unit->reset();
    EXPECT_EQ(unit->save().registers, built.registers);
    EXPECT_EQ(unit->properties().address_width, 39U);
}

TEST_F(AddressWidth, NarrowerUnitRefusesTablesOfFourLevels) {
    unit->set_address_width(39);
    const Gpa table = new_page();
    map(table, 0x1000, 0x8000);
    set_context(kDevice, 3, table);
    start_translation();
    EXPECT_EQ(unit->translate(SourceId(kDevice), Iova(0x1000), Access::read).reason,
              FaultReason::invalid_context);
}

}  // namespace
}  // namespace umbra::vtd::testing
