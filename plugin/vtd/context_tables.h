// SPDX-License-Identifier: GPL-2.0-or-later
//
// Root and context tables: from a device's source-id to the translation that the guest has set up
// for it (specification 3.4 and 9.1 to 9.3, legacy mode). The bus number selects an entry of the
// root table, which points to the context table of that bus; device and function number select the
// context entry, which names the domain, the kind of translation and the second-stage table.
#pragma once

#include <cstdint>

#include "plugin/vtd/fault_reason.h"
#include "plugin/vtd/guest_memory.h"
#include "plugin/vtd/types.h"

namespace umbra::vtd {

// TT of a context entry. The values are the field's.
enum class TranslationType : std::uint8_t {
    second_stage = 0,
    // Second stage, and the device may hold translations of its own (ATS).
    second_stage_with_device_tlb = 1,
    // IOVA = GPA.
    pass_through = 2,
};

// The translation that the tables give one device.
struct ContextLookup {
    // Translation is off as a whole: every address passes unchanged, and no other field means
    // anything. The unit sets it; ContextTables does not know.
    bool translation_off = false;
    // A valid entry is in force. If false, every request of the device is blocked, with `reason`.
    bool present = false;
    // FPD: a fault of this device is not to be recorded. Valid with `present` and without.
    bool fault_processing_disabled = false;
    FaultReason reason = FaultReason::none;

    // The rest is meaningful only if `present`.
    TranslationType type = TranslationType::second_stage;
    DomainId domain{};
    // Top-level second-stage table, 4 KiB-aligned. Ignore it for pass-through.
    Gpa table;
    // Of that table: 3 (39-bit IOVAs) or 4 (48-bit IOVAs).
    unsigned levels = 0;

    [[nodiscard]] constexpr bool is_second_stage() const {
        return present && type != TranslationType::pass_through;
    }
    friend constexpr bool operator==(const ContextLookup&, const ContextLookup&) = default;
};

// The rules that decide which entries are valid. They follow from the unit's properties.
struct ContextRules {
    // In bits, 12 to 52. Address bits at and above it are reserved.
    unsigned host_address_width = 48;
    // Largest number of levels that CAP.SAGAW reports: 3, or 4 (which includes 3).
    unsigned max_levels = 4;
    bool pass_through = true;   // ECAP.PT
    bool device_iotlb = false;  // ECAP.DT
};

// Stateless but for its parameters; look-ups are safe from any thread.
class ContextTables {
  public:
    // `memory` outlives the object.
    ContextTables(const GuestMemory& memory, ContextRules rules) : memory_(memory), rules_(rules) {}

    // Reads the entries of `source` below the root table at `root_table` (4 KiB-aligned). At most
    // a handful of loads, whatever the guest does meanwhile.
    //
    // Reasons: root_table_inaccessible, root_not_present, root_reserved,
    // context_table_inaccessible, context_not_present, context_reserved, invalid_context.
    [[nodiscard]] ContextLookup lookup(Gpa root_table, SourceId source) const;

    // Before any look-up.
    void set_rules(ContextRules rules) { rules_ = rules; }

  private:
    const GuestMemory& memory_;
    ContextRules rules_;
};

}  // namespace umbra::vtd
