// SPDX-License-Identifier: GPL-2.0-or-later
//
// The shadow's view of context entries, taken from a VT-d unit.
#pragma once

#include "plugin/shadow/device.h"
#include "plugin/vtd/unit.h"

namespace umbra::shadow {

class UnitContexts final : public ContextSource {
  public:
    // `unit` outlives the object.
    explicit UnitContexts(const vtd::Unit& unit) : unit_(unit) {}

    [[nodiscard]] DeviceContext context_of(SourceId source) const override {
        const vtd::ContextLookup found = unit_.context_of(source);
        if (found.translation_off) {
            return {.mode = DmaMode::pass_through};
        }
        if (!found.present) {
            return {.mode = DmaMode::blocked};
        }
        if (!found.is_second_stage()) {
            return {.mode = DmaMode::pass_through};
        }
        return {DmaMode::translated, found.domain, found.table, found.levels};
    }

  private:
    const vtd::Unit& unit_;
};

}  // namespace umbra::shadow
