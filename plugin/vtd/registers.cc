// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/registers.h"

#include <cstring>
#include <vector>

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

// One row of the register table. A bit that is in no mask is constant: it keeps its reset value,
// which is 0 for reserved bits.
struct Layout {
    std::uint32_t offset = 0;
    unsigned bytes = 4;
    std::uint64_t reset = 0;
    std::uint64_t read_write = 0;
    std::uint64_t write_one_clear = 0;
    std::uint64_t write_only = 0;
    std::uint64_t status = 0;
};

constexpr std::uint64_t bits(unsigned high, unsigned low) {
    return (~std::uint64_t{0} >> (63 - high)) & (~std::uint64_t{0} << low);
}

constexpr std::uint32_t kAll32 = ~std::uint32_t{0};

// Status bits of GSTS that this unit can show. SFL, EAFL and WBF have no status: without AFL and
// RWBF they are reserved.
std::uint64_t global_status_bits(bool interrupt_remapping) {
    using namespace spec::global;
    const std::uint64_t remapping =
        kInterruptRemapping | kInterruptTablePointer | kCompatibilityInterrupts;
    return kTranslation | kRootTablePointer | kQueuedInvalidation |
           (interrupt_remapping ? remapping : 0);
}

std::vector<Layout> global_registers(const Capabilities& capabilities) {
    using namespace spec;
    const std::uint64_t status = global_status_bits(capabilities.interrupt_remapping());
    return {
        {.offset = offset::kVersion, .reset = kVersion10},
        {.offset = offset::kCapability, .bytes = 8, .reset = capabilities.cap},
        {.offset = offset::kExtendedCapability, .bytes = 8, .reset = capabilities.ecap},
        {.offset = offset::kGlobalCommand, .write_only = status},
        {.offset = offset::kGlobalStatus, .status = status},
        // TTM, bits 11:10, is reserved without scalable mode.
        {.offset = offset::kRootTableAddress,
         .bytes = 8,
         .read_write = root_table_address::kAddress & capabilities.host_address_mask},
        // Protected memory regions are not supported (PLMR = PHMR = 0), so these stay 0.
        {.offset = offset::kProtectedMemoryEnable},
        {.offset = offset::kProtectedLowMemoryBase},
        {.offset = offset::kProtectedLowMemoryLimit},
        {.offset = offset::kProtectedHighMemoryBase, .bytes = 8},
        {.offset = offset::kProtectedHighMemoryLimit, .bytes = 8},
    };
}

std::vector<Layout> invalidation_registers(const Capabilities& capabilities) {
    using namespace spec;
    return {
        // ICC, CIRG and DID are RW, FM and SID WO, CAIG RO.
        {.offset = offset::kContextCommand,
         .bytes = 8,
         .read_write = context_command::kInvalidate | bits(62, 61) | bits(15, 0),
         .write_only = bits(33, 32) | bits(31, 16),
         .status = bits(60, 59)},
        {.offset = offset::kInvalidateAddress,
         .bytes = 8,
         .write_only = invalidate_address::kAddress | invalidate_address::kLeafOnly |
                       invalidate_address::kAddressMask},
        {.offset = offset::kIotlbInvalidate,
         .bytes = 8,
         .read_write = iotlb_invalidate::kInvalidate | bits(61, 60) |
                       iotlb_invalidate::kDrainReads | iotlb_invalidate::kDrainWrites |
                       bits(47, 32),
         .status = bits(58, 57)},
        {.offset = offset::kInvalidationQueueHead,
         .bytes = 8,
         .status = invalidation_queue::kOffset},
        {.offset = offset::kInvalidationQueueTail,
         .bytes = 8,
         .read_write = invalidation_queue::kOffset},
        // DW, bit 11, is reserved without scalable mode: descriptors are always 128 bits wide.
        {.offset = offset::kInvalidationQueueAddress,
         .bytes = 8,
         .read_write = (invalidation_queue::kAddress & capabilities.host_address_mask) |
                       invalidation_queue::kSize},
        {.offset = offset::kInvalidationCompletionStatus,
         .write_one_clear = invalidation_completion::kWaitComplete},
        {.offset = offset::kInvalidationEventControl,
         .reset = event_control::kMask,
         .read_write = event_control::kMask,
         .status = event_control::kPending},
        {.offset = offset::kInvalidationEventData, .read_write = kAll32},
        {.offset = offset::kInvalidationEventAddress, .read_write = kEventAddress},
        {.offset = offset::kInvalidationEventUpperAddress, .read_write = kAll32},
    };
}

std::vector<Layout> interrupt_registers(const Capabilities& capabilities) {
    using namespace spec;
    using namespace spec::interrupt_table_address;
    if (!capabilities.interrupt_remapping()) {
        return {{.offset = offset::kInterruptRemappingTableAddress, .bytes = 8}};
    }
    const std::uint64_t mode = capabilities.extended_interrupt_mode() ? kExtendedMode : 0;
    return {{.offset = offset::kInterruptRemappingTableAddress,
             .bytes = 8,
             .read_write = (kAddress & capabilities.host_address_mask) | kSize | mode}};
}

std::vector<Layout> fault_registers(const Capabilities& capabilities) {
    using namespace spec;
    // ICE and ITE tell of device TLB invalidations that went wrong, and are reserved without them.
    const std::uint64_t device_errors =
        capabilities.device_tlb() ? fault_status::kCompletionError | fault_status::kTimeoutError
                                  : 0;
    std::vector<Layout> table = {
        {.offset = offset::kFaultStatus,
         .write_one_clear = fault_status::kOverflow | fault_status::kQueueError | device_errors,
         .status = fault_status::kPending | fault_status::kRecordIndex},
        {.offset = offset::kFaultEventControl,
         .reset = event_control::kMask,
         .read_write = event_control::kMask,
         .status = event_control::kPending},
        {.offset = offset::kFaultEventData, .read_write = kAll32},
        {.offset = offset::kFaultEventAddress, .read_write = kEventAddress},
        {.offset = offset::kFaultEventUpperAddress, .read_write = kAll32},
    };
    for (std::uint32_t i = 0; i < kFaultRecords; ++i) {
        const std::uint32_t record = offset::kFaultRecording + i * kFaultRecordBytes;
        table.push_back({.offset = record, .bytes = 8, .status = fault_record::kAddress});
        table.push_back({.offset = record + 8,
                         .bytes = 8,
                         .write_one_clear = fault_record::kFault,
                         .status = fault_record::kRead | bits(39, 32) | bits(15, 0)});
    }
    return table;
}

constexpr std::uint32_t low_word(std::uint64_t value) {
    return static_cast<std::uint32_t>(value);
}

constexpr std::uint32_t high_word(std::uint64_t value) {
    return static_cast<std::uint32_t>(value >> 32);
}

}  // namespace

RegisterFile::RegisterFile(const Capabilities& capabilities) {
    for (const auto& table : {global_registers(capabilities), invalidation_registers(capabilities),
                              interrupt_registers(capabilities), fault_registers(capabilities)}) {
        for (const Layout& layout : table) {
            Word& low = words_.at(layout.offset / sizeof(std::uint32_t));
            low.reset = low_word(layout.reset);
            low.read_write = low_word(layout.read_write);
            low.write_one_clear = low_word(layout.write_one_clear);
            low.write_only = low_word(layout.write_only);
            low.status = low_word(layout.status);
            low.wide = layout.bytes == 8;
            if (low.wide) {
                Word& high = words_.at(layout.offset / sizeof(std::uint32_t) + 1);
                high.reset = high_word(layout.reset);
                high.read_write = high_word(layout.read_write);
                high.write_one_clear = high_word(layout.write_one_clear);
                high.write_only = high_word(layout.write_only);
                high.status = high_word(layout.status);
            }
        }
    }
    reset();
}

void RegisterFile::reset() {
    for (Word& word : words_) {
        word.value.store(word.reset, std::memory_order_relaxed);
    }
}

bool RegisterFile::is_valid_access(std::uint32_t offset, unsigned size) {
    return (size == 4 || size == 8) && offset % size == 0;
}

bool RegisterFile::is_wide(std::uint32_t offset) const {
    const std::size_t index = offset / sizeof(std::uint32_t);
    return index < kWords && words_[index].wide;
}

std::uint64_t RegisterFile::software_read(std::uint32_t offset, unsigned size) const {
    const std::uint64_t low = read_word(offset);
    if (size == 4) {
        return low;
    }
    return std::uint64_t{read_word(offset + 4)} << 32 | low;
}

void RegisterFile::software_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    write_word(offset, low_word(value));
    if (size == 8) {
        write_word(offset + 4, high_word(value));
    }
}

std::uint32_t RegisterFile::read_word(std::uint32_t offset) const {
    const std::size_t index = offset / sizeof(std::uint32_t);
    if (index >= kWords) {
        return 0;
    }
    const Word& word = words_[index];
    return word.value.load(std::memory_order_relaxed) & ~word.write_only;
}

void RegisterFile::write_word(std::uint32_t offset, std::uint32_t value) {
    const std::size_t index = offset / sizeof(std::uint32_t);
    if (index >= kWords) {
        return;
    }
    Word& word = words_[index];
    const std::uint32_t writable = word.read_write | word.write_only;
    const std::uint32_t old = word.value.load(std::memory_order_relaxed);
    word.value.store((old & ~writable & ~(value & word.write_one_clear)) | (value & writable),
                     std::memory_order_relaxed);
}

std::uint32_t RegisterFile::get32(std::uint32_t offset) const {
    return words_[offset / sizeof(std::uint32_t)].value.load(std::memory_order_relaxed);
}

std::uint64_t RegisterFile::get64(std::uint32_t offset) const {
    return std::uint64_t{get32(offset + 4)} << 32 | get32(offset);
}

void RegisterFile::set32(std::uint32_t offset, std::uint32_t value) {
    words_[offset / sizeof(std::uint32_t)].value.store(value, std::memory_order_relaxed);
}

void RegisterFile::set64(std::uint32_t offset, std::uint64_t value) {
    set32(offset, low_word(value));
    words_[offset / sizeof(std::uint32_t) + 1].value.store(high_word(value),
                                                           std::memory_order_release);
}

RegisterFile::Image RegisterFile::save() const {
    Image image{};
    for (std::size_t i = 0; i < kWords; ++i) {
        const std::uint32_t value = words_[i].value.load(std::memory_order_relaxed);
        std::memcpy(&image[i * sizeof value], &value, sizeof value);
    }
    return image;
}

bool RegisterFile::accepts(const Image& image) const {
    for (std::size_t i = 0; i < kWords; ++i) {
        std::uint32_t value = 0;
        std::memcpy(&value, &image[i * sizeof value], sizeof value);
        const Word& word = words_[i];
        const std::uint32_t variable =
            word.read_write | word.write_one_clear | word.write_only | word.status;
        if (((value ^ word.reset) & ~variable) != 0) {
            return false;
        }
    }
    return true;
}

void RegisterFile::restore(const Image& image) {
    for (std::size_t i = 0; i < kWords; ++i) {
        std::uint32_t value = 0;
        std::memcpy(&value, &image[i * sizeof value], sizeof value);
        words_[i].value.store(value, std::memory_order_relaxed);
    }
}

}  // namespace umbra::vtd
