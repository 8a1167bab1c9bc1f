// SPDX-License-Identifier: GPL-2.0-or-later
//
// A host mapper that passes each call on to another one and keeps account of the calls that
// succeeded. A verification then compares with the host's state and not with the shadow's idea of
// it. Each mapping costs a tree node.
#pragma once

#include <cstdint>

#include "plugin/shadow/host_mapper.h"
#include "tests/support/mapping_set.h"

namespace umbra::host {

class Ledger final : public shadow::HostMapper {
  public:
    // `next` outlives the ledger.
    explicit Ledger(shadow::HostMapper& next) : next_(next) {}

    shadow::HostResult map(const shadow::HostMapping& mapping) override {
        const shadow::HostResult result = next_.map(mapping);
        if (result.ok() && !mappings_.insert(mapping)) {
            // The host replaced a mapping: the new one counts.
            mappings_.erase(mapping.iova, mapping.bytes);
            (void)mappings_.insert(mapping);
        }
        return result;
    }

    shadow::HostResult unmap(Iova iova, std::uint64_t bytes) override {
        const shadow::HostResult result = next_.unmap(iova, bytes);
        if (result.ok()) {
            mappings_.erase(iova, bytes);
        }
        return result;
    }

    [[nodiscard]] bool visit_mappings(const Visitor& visit) const override {
        mappings_.visit(visit);
        return true;
    }

  private:
    shadow::HostMapper& next_;
    MappingSet mappings_;
};

}  // namespace umbra::host
