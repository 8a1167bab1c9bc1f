// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/bridge/convert.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace umbra::bridge {
namespace {

// Both structs have `field`, in the same place and of the same size.
#define UMBRA_SAME_FIELD(A, B, field) \
    static_assert(offsetof(A, field) == offsetof(B, field) && sizeof(A::field) == sizeof(B::field))

static_assert(sizeof(UmbraUnitProperties) == sizeof(vtd::UnitProperties));
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, caching_mode);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, address_width);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, host_address_width);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, dma_translation);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, interrupt_remapping);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, extended_interrupt_mode);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, pass_through);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, device_iotlb);
UMBRA_SAME_FIELD(UmbraUnitProperties, vtd::UnitProperties, snoop_control);

static_assert(sizeof(UmbraSavedState) == sizeof(vtd::SavedState));
UMBRA_SAME_FIELD(UmbraSavedState, vtd::SavedState, version);
UMBRA_SAME_FIELD(UmbraSavedState, vtd::SavedState, registers);
UMBRA_SAME_FIELD(UmbraSavedState, vtd::SavedState, root_table);
UMBRA_SAME_FIELD(UmbraSavedState, vtd::SavedState, interrupt_table);
UMBRA_SAME_FIELD(UmbraSavedState, vtd::SavedState, next_fault_record);

static_assert(sizeof(UmbraHostMapping) == sizeof(shadow::HostMapping));
UMBRA_SAME_FIELD(UmbraHostMapping, shadow::HostMapping, iova);
UMBRA_SAME_FIELD(UmbraHostMapping, shadow::HostMapping, bytes);
UMBRA_SAME_FIELD(UmbraHostMapping, shadow::HostMapping, host);
UMBRA_SAME_FIELD(UmbraHostMapping, shadow::HostMapping, guest);
UMBRA_SAME_FIELD(UmbraHostMapping, shadow::HostMapping, access);

#undef UMBRA_SAME_FIELD

static_assert(UMBRA_REGISTER_SPACE == vtd::kRegisterSpace);
static_assert(UMBRA_ACCESS_NONE == static_cast<int>(Access::none));
static_assert(UMBRA_ACCESS_READ == static_cast<int>(Access::read));
static_assert(UMBRA_ACCESS_WRITE == static_cast<int>(Access::write));
static_assert(UMBRA_DMA_BLOCKED == static_cast<int>(shadow::DmaMode::blocked));
static_assert(UMBRA_DMA_TRANSLATED == static_cast<int>(shadow::DmaMode::translated));
static_assert(UMBRA_DMA_PASS_THROUGH == static_cast<int>(shadow::DmaMode::pass_through));
static_assert(UMBRA_DEFAULT_ADDRESS_WIDTH == vtd::UnitProperties{}.address_width);
static_assert(UMBRA_DEFAULT_MAX_MAPPINGS == shadow::Options{}.max_mappings);
static_assert(UMBRA_DEFAULT_MAX_TABLES == shadow::Options{}.max_tables_domain);

}  // namespace

vtd::UnitProperties from_c(const UmbraUnitProperties& properties) {
    return std::bit_cast<vtd::UnitProperties>(properties);
}

shadow::Options from_c(const UmbraShadowOptions& options) {
    shadow::Options made;
    made.coalesce = options.coalesce;
    made.on_map_error =
        options.stop_on_map_error ? shadow::OnMapError::stop : shadow::OnMapError::report;
    made.max_mappings = options.max_mappings;
    made.max_tables_domain = options.max_tables;
    made.max_tables_unit = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(std::uint64_t{options.max_tables} * 2, UINT32_MAX));
    made.slice_ns = std::uint64_t{options.slice_us} * 1000;
    return made;
}

vtd::SavedState from_c(const UmbraSavedState& state) {
    return std::bit_cast<vtd::SavedState>(state);
}

UmbraSavedState to_c(const vtd::SavedState& state) {
    return std::bit_cast<UmbraSavedState>(state);
}

UmbraTranslation to_c(const vtd::Translation& translation) {
    return {
        .ok = translation.ok,
        .access = static_cast<std::uint8_t>(translation.granted),
        .address = translation.address.value(),
        .page_mask = translation.page_mask,
    };
}

UmbraInterrupt to_c(const vtd::InterruptResult& result) {
    UmbraInterrupt interrupt{};
    interrupt.ok = result.ok;
    if (result.ok && result.remapped) {
        interrupt.remapped = true;
        interrupt.logical_destination = result.logical_destination;
        interrupt.redirection_hint = result.redirection_hint;
        interrupt.level_triggered = result.level_triggered;
        interrupt.vector = result.vector;
        interrupt.delivery_mode = static_cast<std::uint8_t>(result.delivery);
        interrupt.destination = result.destination;
    }
    return interrupt;
}

UmbraContext to_c(const vtd::ContextLookup& context) {
    if (!context.present) {
        return {};
    }
    return {
        .present = true,
        .pass_through = context.type == vtd::TranslationType::pass_through,
        .domain = static_cast<std::uint16_t>(context.domain),
    };
}

static UmbraScopeKind scope_kind(vtd::InvalidationKind kind) {
    using Kind = vtd::InvalidationKind;
    switch (kind) {
        case Kind::context_domain:
        case Kind::iotlb_domain:
            return UMBRA_SCOPE_DOMAIN;
        case Kind::context_device:
            return UMBRA_SCOPE_DEVICE;
        case Kind::iotlb_page:
        case Kind::device_tlb:
            return UMBRA_SCOPE_PAGES;
        case Kind::context_global:
        case Kind::iotlb_global:
        case Kind::interrupt_global:
        case Kind::interrupt_index:
            break;
    }
    return UMBRA_SCOPE_GLOBAL;
}

UmbraScope to_c(const vtd::Invalidation& invalidation) {
    return {
        .kind = scope_kind(invalidation.kind),
        .domain = static_cast<std::uint16_t>(invalidation.domain),
        .source = invalidation.devices.source().value(),
        .function_mask = invalidation.devices.ignored_bits(),
        .first = invalidation.range.first.value(),
        .last = invalidation.range.last.value(),
    };
}

UmbraDmaMode to_c(shadow::DmaMode mode) {
    return static_cast<UmbraDmaMode>(mode);
}

}  // namespace umbra::bridge
