// SPDX-License-Identifier: GPL-2.0-or-later
//
// The unit as C holds it: its parts are connected with each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "plugin/bridge/requests.h"
#include "plugin/bridge/statistics.h"
#include "tests/unit/bridge/bridge_machine.h"

namespace umbra::testing {
namespace {

constexpr std::uint64_t kPage = BridgeMachine::kPage;

std::string take(char* string) {
    std::string copy = string;
    umbra_string_free(string);
    return copy;
}

TEST(Assembly, DmaAndHostMappingsLeadToTheSameMemory) {
    BridgeMachine machine;
    machine.translate();
    machine.map(2, 1);
    EXPECT_EQ(machine.mapped, 1u);
    const UmbraTranslation translation =
        umbra_unit_translate(machine.unit, 0, 2 * kPage + 5, UMBRA_ACCESS_WRITE);
    EXPECT_TRUE(translation.ok);
    EXPECT_EQ(translation.address, BridgeMachine::kData + 4 * kPage + 5);
    EXPECT_EQ(translation.page_mask, kPage - 1);
    EXPECT_EQ(translation.access, UMBRA_ACCESS_READ | UMBRA_ACCESS_WRITE);
    EXPECT_FALSE(umbra_unit_lookup(machine.unit, 0, 3 * kPage).ok);
    EXPECT_NE(take(umbra_unit_verify(machine.unit)).find(R"("clean": true)"), std::string::npos);
}

TEST(Assembly, ContextsSayHowADeviceIsTreated) {
    BridgeMachine machine;
    EXPECT_FALSE(umbra_unit_translation_enabled(machine.unit));
    machine.translate();
    EXPECT_TRUE(umbra_unit_translation_enabled(machine.unit));
    const UmbraContext context = umbra_unit_context(machine.unit, 0);
    EXPECT_TRUE(context.present);
    EXPECT_FALSE(context.pass_through);
    EXPECT_EQ(context.domain, 1u);
    EXPECT_FALSE(umbra_unit_context(machine.unit, 8).present);
}

TEST(Assembly, MessagesPassWhileInterruptsAreNotRemapped) {
    BridgeMachine machine;
    EXPECT_FALSE(umbra_unit_interrupt_remapping_enabled(machine.unit));
    const UmbraInterrupt interrupt = umbra_unit_remap(machine.unit, 0, 0xfee00000, 0x41);
    EXPECT_TRUE(interrupt.ok);
    EXPECT_FALSE(interrupt.remapped);
    EXPECT_EQ(interrupt.vector, 0u);
}

TEST(Assembly, MemoryThatGoesIsUnmappedAtOnce) {
    BridgeMachine machine;
    machine.translate();
    machine.map(2, 1);
    machine.journal.clear();
    umbra_ram_map_free(umbra_unit_swap_ram_map(machine.unit, umbra_ram_map_new(nullptr, 0)));
    EXPECT_EQ(machine.journal, std::vector<std::string>{"1 unmap 8192-12287"});
}

TEST(Assembly, SavedStateComesBackAsItWas) {
    BridgeMachine source;
    source.translate();
    UmbraSavedState state;
    umbra_unit_save(source.unit, &state);
    EXPECT_EQ(state.root_table, BridgeMachine::kRoot);

    BridgeMachine destination;
    ASSERT_TRUE(umbra_unit_restore(destination.unit, &state));
    EXPECT_TRUE(umbra_unit_translation_enabled(destination.unit));
    UmbraSavedState again;
    umbra_unit_save(destination.unit, &again);
    EXPECT_EQ(again.version, state.version);
    EXPECT_TRUE(std::ranges::equal(again.registers, state.registers));
    EXPECT_EQ(again.root_table, state.root_table);
    EXPECT_EQ(again.interrupt_table, state.interrupt_table);
    EXPECT_EQ(again.next_fault_record, state.next_fault_record);

    state.version += 1;
    EXPECT_FALSE(umbra_unit_restore(destination.unit, &state));
}

TEST(Assembly, StatisticsNameTheUnitAndCanBeCleared) {
    BridgeMachine machine;
    machine.translate();
    machine.map(2, 1);
    const UmbraSnapshotStamp stamp = {"unit0", 3, 1000, 0};
    EXPECT_NE(take(umbra_unit_statistics(machine.unit, &stamp)).find(R"("iotlb-page": 1)"),
              std::string::npos);
    size_t size = 0;
    EXPECT_NE(std::string(take(umbra_unit_snapshot(machine.unit, &stamp, &size))), "");
    EXPECT_GT(size, 10u);
    umbra_unit_clear_statistics(machine.unit);
    const std::string text = take(umbra_unit_statistics(machine.unit, &stamp));
    EXPECT_NE(text.find(R"("unit": "unit0")"), std::string::npos) << text;
    EXPECT_EQ(text.find(R"("iotlb-page": 1)"), std::string::npos) << text;
}

}  // namespace
}  // namespace umbra::testing
