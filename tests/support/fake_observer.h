// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writes each call of the unit's observer into a journal.
#pragma once

#include <bit>
#include <cstdint>
#include <string>

#include "plugin/vtd/ports.h"
#include "tests/support/journal.h"

namespace umbra::testing {

class FakeObserver : public vtd::InvalidationObserver {
  public:
    // A line is the function's name or the invalidation's kind, and then the arguments, numbers in
    // hexadecimal.
    explicit FakeObserver(Journal& journal) : journal_(journal) {}

    void invalidated(const vtd::Invalidation& invalidation) override {
        note(describe(invalidation));
    }
    void translation_changed(bool enabled) override {
        note(enabled ? "translation on" : "translation off");
    }
    void interrupt_remapping_changed(bool enabled) override {
        note(enabled ? "remapping on" : "remapping off");
    }
    void batch_begin() override { note("begin"); }
    void barrier() override { note("barrier"); }
    void batch_end() override { note("end"); }

  private:
    static std::string describe(const vtd::Invalidation& what) {
        const std::string domain = " " + text(what.domain);
        const std::string source = " " + hex(what.devices.source().value());
        switch (what.kind) {
            case vtd::InvalidationKind::context_global:
                return "context_global";
            case vtd::InvalidationKind::context_domain:
                return "context_domain" + domain;
            case vtd::InvalidationKind::context_device:
                // The field FM counts the function bits that are ignored.
                return "context_device" + domain + source + " " +
                       hex(static_cast<unsigned>(std::popcount(what.devices.ignored_bits())));
            case vtd::InvalidationKind::iotlb_global:
                return "iotlb_global";
            case vtd::InvalidationKind::iotlb_domain:
                return "iotlb_domain" + domain;
            case vtd::InvalidationKind::iotlb_page:
                return "iotlb_pages" + domain + " " + hex(what.range.first.value()) + " " +
                       hex(static_cast<unsigned>(std::countr_one(what.range.extent())) -
                           kPageShift) +
                       (what.leaf_only ? " leaf_only" : "");
            case vtd::InvalidationKind::device_tlb:
                return "device_tlb" + source + " " + hex(what.range.first.value()) + " " +
                       hex(what.range.last.value());
            case vtd::InvalidationKind::interrupt_global:
                return "interrupt_entries_global";
            case vtd::InvalidationKind::interrupt_index:
                return "interrupt_entries " + hex(what.first_index) + " " + hex(what.index_mask);
        }
        return "unknown";
    }
    static std::string text(DomainId domain) { return hex(static_cast<std::uint16_t>(domain)); }
    void note(std::string line) { journal_.push_back(std::move(line)); }

    Journal& journal_;
};

}  // namespace umbra::testing
