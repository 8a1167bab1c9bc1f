// SPDX-License-Identifier: GPL-2.0-or-later
//
// Writes down every call of the unit's observer.
#pragma once

#include <cstdint>
#include <string>

#include "plugin/vtd/ports.h"
#include "tests/unit/fakes/journal.h"

namespace umbra::testing {

class FakeObserver : public vtd::InvalidationObserver {
  public:
    // Lines are the function's name and its arguments, numbers in hexadecimal.
    explicit FakeObserver(Journal& journal) : journal_(journal) {}

    void context_global() override { note("context_global"); }
    void context_domain(DomainId domain) override { note("context_domain " + text(domain)); }
    void context_device(DomainId domain, SourceId source, unsigned function_mask) override {
        note("context_device " + text(domain) + " " + hex(source.value()) + " " +
             hex(function_mask));
    }
    void iotlb_global() override { note("iotlb_global"); }
    void iotlb_domain(DomainId domain) override { note("iotlb_domain " + text(domain)); }
    void iotlb_pages(DomainId domain, Iova address, unsigned address_mask,
                     bool leaf_only) override {
        note("iotlb_pages " + text(domain) + " " + hex(address.value()) + " " + hex(address_mask) +
             (leaf_only ? " leaf_only" : ""));
    }
    void device_tlb(SourceId source, IovaRange range) override {
        note("device_tlb " + hex(source.value()) + " " + hex(range.first.value()) + " " +
             hex(range.last.value()));
    }
    void interrupt_entries_global() override { note("interrupt_entries_global"); }
    void interrupt_entries(std::uint16_t first_index, unsigned index_mask) override {
        note("interrupt_entries " + hex(first_index) + " " + hex(index_mask));
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
    static std::string text(DomainId domain) { return hex(static_cast<std::uint16_t>(domain)); }
    void note(std::string line) { journal_.push_back(std::move(line)); }

    Journal& journal_;
};

}  // namespace umbra::testing
