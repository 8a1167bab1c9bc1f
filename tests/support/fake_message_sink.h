// SPDX-License-Identifier: GPL-2.0-or-later
//
// Receives the unit's own interrupts (fault and completion events) in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "plugin/vtd/ports.h"
#include "tests/support/journal.h"

namespace umbra::testing {

class FakeMessageSink : public vtd::MessageSink {
  public:
    // `journal` may be null. Each message adds the line "message ADDRESS DATA" to the journal.
    explicit FakeMessageSink(Journal* journal = nullptr) : journal_(journal) {}

    void send(std::uint64_t address, std::uint32_t data) override {
        sent.emplace_back(address, data);
        if (journal_ != nullptr) {
            journal_->push_back("message " + hex(address) + " " + hex(data));
        }
        if (on_send) {
            on_send(address, data);
        }
    }

    // Address and data of every message so far.
    std::vector<std::pair<std::uint64_t, std::uint32_t>> sent;
    // Runs when a message is delivered, as an interrupt handler does. May be empty.
    std::function<void(std::uint64_t address, std::uint32_t data)> on_send;

  private:
    Journal* journal_;
};

}  // namespace umbra::testing
