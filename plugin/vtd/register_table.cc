// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/register_table.h"

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

using spec::kMaskOf;

// `attributes` of the register that `Register` lays out; its offset and size are filled in.
template <class Register>
RegisterRow row(RegisterRow attributes = {}) {
    attributes.offset = Register::kOffset;
    attributes.bytes = Register::kBytes;
    return attributes;
}

// Functions of GCMD and GSTS that this unit has.
std::uint64_t global_functions(const Capabilities& capabilities) {
    using Global = spec::GlobalFields;
    constexpr auto kRemapping = kMaskOf<Global::InterruptRemapping, Global::InterruptTablePointer,
                                        Global::CompatibilityInterrupts>;
    return kMaskOf<Global::Translation, Global::RootTablePointer, Global::QueuedInvalidation> |
           (capabilities.interrupt_remapping() ? kRemapping : 0);
}

void add_global_registers(std::vector<RegisterRow>& table, const Capabilities& capabilities) {
    using namespace spec;
    const std::uint64_t functions = global_functions(capabilities);
    // Version 1.0.
    table.push_back(row<Version>({.reset = Version::Major::place(1)}));
    table.push_back(row<Capability>({.reset = capabilities.cap}));
    table.push_back(row<ExtendedCapability>({.reset = capabilities.ecap}));
    table.push_back(row<GlobalCommand>({.write_only = functions}));
    table.push_back(row<GlobalStatus>({.status = functions}));
    table.push_back(row<RootTableAddress>(
        {.read_write = RootTableAddress::Address::kMask & capabilities.host_address_mask}));
    table.push_back(row<ProtectedMemoryEnable>());
    table.push_back(row<ProtectedLowMemoryBase>());
    table.push_back(row<ProtectedLowMemoryLimit>());
    table.push_back(row<ProtectedHighMemoryBase>());
    table.push_back(row<ProtectedHighMemoryLimit>());
}

void add_invalidation_registers(std::vector<RegisterRow>& table, const Capabilities& capabilities) {
    using namespace spec;
    using Context = ContextCommand;
    table.push_back(row<Context>(
        {.read_write = kMaskOf<Context::Invalidate, Context::Requested, Context::Domain>,
         .write_only = kMaskOf<Context::FunctionMask, Context::Source>,
         .status = Context::Actual::kMask}));
    table.push_back(row<InvalidateAddress>({.write_only = InvalidateAddress::All::kFields.low}));
    using Iotlb = IotlbInvalidate;
    table.push_back(
        row<Iotlb>({.read_write = kMaskOf<Iotlb::Invalidate, Iotlb::Requested, Iotlb::DrainReads,
                                          Iotlb::DrainWrites, Iotlb::Domain>,
                    .status = Iotlb::Actual::kMask}));
    table.push_back(row<InvalidationQueueHead>({.status = InvalidationQueueHead::Offset::kMask}));
    table.push_back(
        row<InvalidationQueueTail>({.read_write = InvalidationQueueTail::Offset::kMask}));
    using Queue = InvalidationQueueAddress;
    table.push_back(
        row<Queue>({.read_write = (Queue::Address::kMask & capabilities.host_address_mask) |
                                  Queue::Size::kMask}));
    table.push_back(row<InvalidationCompletionStatus>(
        {.write_one_clear = InvalidationCompletionStatus::WaitComplete::kMask}));
}

void add_interrupt_table_register(std::vector<RegisterRow>& table,
                                  const Capabilities& capabilities) {
    using Table = spec::InterruptTableAddress;
    const std::uint64_t mode =
        capabilities.extended_interrupt_mode() ? Table::ExtendedMode::kMask : 0;
    const std::uint64_t all =
        (Table::Address::kMask & capabilities.host_address_mask) | Table::Size::kMask | mode;
    table.push_back(row<Table>({.read_write = capabilities.interrupt_remapping() ? all : 0}));
}

// The four registers of one interrupt of the unit itself.
template <class Control, class Data, class Address, class UpperAddress>
void add_event_registers(std::vector<RegisterRow>& table) {
    table.push_back(row<Control>({.reset = Control::Mask::kMask,
                                  .read_write = Control::Mask::kMask,
                                  .status = Control::Pending::kMask}));
    table.push_back(row<Data>({.read_write = Data::Data::kMask}));
    table.push_back(row<Address>({.read_write = Address::Address::kMask}));
    table.push_back(row<UpperAddress>({.read_write = UpperAddress::Address::kMask}));
}

void add_fault_registers(std::vector<RegisterRow>& table, const Capabilities& capabilities) {
    using spec::FaultRecord;
    using Status = spec::FaultStatus;
    // ICE and ITE report device TLB invalidations that went wrong. Without device TLBs both bits
    // are reserved.
    const std::uint64_t device_errors =
        capabilities.device_tlb() ? kMaskOf<Status::CompletionError, Status::TimeoutError> : 0;
    table.push_back(row<Status>(
        {.write_one_clear = kMaskOf<Status::Overflow, Status::QueueError> | device_errors,
         .status = kMaskOf<Status::Pending, Status::RecordIndex>}));
    for (std::uint32_t index = 0; index < FaultRecord::kCount; ++index) {
        const std::uint32_t offset = FaultRecord::offset_of(index);
        table.push_back({.offset = offset, .bytes = 8, .status = FaultRecord::Information::kMask});
        table.push_back(
            {.offset = offset + FaultRecord::kHighOffset,
             .bytes = 8,
             .write_one_clear = FaultRecord::Fault::kMask,
             .status = kMaskOf<FaultRecord::Read, FaultRecord::Reason, FaultRecord::Source>});
    }
}

}  // namespace

std::vector<RegisterRow> registers_of(const Capabilities& capabilities) {
    using namespace spec;
    std::vector<RegisterRow> table;
    add_global_registers(table, capabilities);
    add_invalidation_registers(table, capabilities);
    add_event_registers<InvalidationEventControl, InvalidationEventData, InvalidationEventAddress,
                        InvalidationEventUpperAddress>(table);
    add_interrupt_table_register(table, capabilities);
    add_fault_registers(table, capabilities);
    add_event_registers<FaultEventControl, FaultEventData, FaultEventAddress,
                        FaultEventUpperAddress>(table);
    return table;
}

}  // namespace umbra::vtd
