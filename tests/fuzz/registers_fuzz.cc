// SPDX-License-Identifier: GPL-2.0-or-later
//
// A guest that writes whatever it likes to registers and memory, beside devices that do DMA and
// send interrupts. The input is a list of operations.
#include <cstddef>
#include <cstdint>

#include "plugin/vtd/unit.h"
#include "tests/fuzz/input.h"
#include "tests/support/driver/layout.h"
#include "tests/support/fake_guest_memory.h"
#include "tests/support/fake_message_sink.h"
#include "tests/support/fake_observer.h"

namespace umbra::fuzz {
namespace {

constexpr std::size_t kMemoryBytes = 64 << 10;

vtd::UnitProperties take_properties(Input& input) {
    const auto bits = input.take<std::uint8_t>();
    vtd::UnitProperties properties;
    properties.caching_mode = (bits & 1) != 0;
    properties.address_width = (bits & 2) != 0 ? 39 : 48;
    properties.interrupt_remapping = (bits & 4) == 0;
    properties.extended_interrupt_mode = (bits & 12) == 8;
    properties.pass_through = (bits & 16) == 0;
    properties.device_iotlb = (bits & 32) != 0;
    properties.snoop_control = (bits & 64) != 0;
    return properties;
}

void check_translation(const vtd::Translation& translation, Iova iova) {
    if (translation.ok) {
        require(((translation.address.value() ^ iova.value()) & translation.page_mask & 0xfff) == 0,
                "an offset within a page is kept");
        require((translation.page_mask & (translation.page_mask + 1)) == 0,
                "a page mask is a power of two minus one");
    } else {
        require(translation.reason != vtd::FaultReason::none, "a refusal has a reason");
    }
}

void run(Input& input) {
    testing::Journal journal;
    testing::FakeGuestMemory memory(kMemoryBytes, Gpa(), &journal);
    testing::FakeMessageSink messages;
    testing::FakeObserver observer(journal);
    vtd::Unit unit(take_properties(input),
                   {.memory = memory, .messages = messages, .observer = &observer});
    const std::uint64_t cap = unit.mmio_read(driver::kCapability, 8);
    const std::uint64_t ecap = unit.mmio_read(driver::kExtendedCapability, 8);

    while (!input.empty()) {
        const auto operation = input.take<std::uint8_t>();
        switch (operation % 8) {
            case 0: {
                const std::uint32_t offset = input.take<std::uint8_t>() * 4U;
                unit.mmio_write(offset, input.take<std::uint32_t>(), 4);
                break;
            }
            case 1: {
                const std::uint32_t offset = input.take<std::uint8_t>() * 8U;
                unit.mmio_write(offset, input.take<std::uint64_t>(), 8);
                break;
            }
            case 2: {
                const auto offset = input.take<std::uint32_t>();
                (void)unit.mmio_read(offset, operation / 8);
                unit.mmio_write(offset, input.take<std::uint32_t>(), operation / 8);
                break;
            }
            case 3: {
                const Gpa address(input.take<std::uint16_t>() & ~std::uint64_t{7});
                memory.store(address, input.take<std::uint64_t>());
                break;
            }
            case 4: {
                const SourceId source(input.take<std::uint16_t>());
                const Iova iova(input.take<std::uint64_t>());
                const auto wanted = static_cast<Access>(operation / 8 % 4);
                check_translation(unit.translate(source, iova, wanted), iova);
                check_translation(unit.lookup(source, iova), iova);
                break;
            }
            case 5: {
                const SourceId source(input.take<std::uint16_t>());
                const std::uint64_t address = 0xfee00000 | (input.take<std::uint32_t>() & 0xfffff);
                const auto data = input.take<std::uint32_t>();
                const vtd::InterruptResult result = unit.remap(source, address, data);
                require(result == unit.lookup_interrupt(source, address, data),
                        "a look-up gives the same answer");
                break;
            }
            case 6:
                require(unit.restore(unit.save()), "a saved state can be restored");
                break;
            default:
                if (operation == 0xff) {
                    unit.reset();
                    require(unit.mmio_read(driver::kGlobalStatus, 4) == 0,
                            "nothing is on after a reset");
                }
                break;
        }
    }
    require(unit.mmio_read(driver::kCapability, 8) == cap, "CAP is constant");
    require(unit.mmio_read(driver::kExtendedCapability, 8) == ecap, "ECAP is constant");
    require((unit.mmio_read(driver::kGlobalStatus, 4) & 0x387f'ffff) == 0,
            "no status of an absent function");
}

}  // namespace
}  // namespace umbra::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    umbra::fuzz::Input input(data, size);
    umbra::fuzz::run(input);
    return 0;
}
