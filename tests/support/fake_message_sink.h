// SPDX-License-Identifier: GPL-2.0-or-later
//
// Takes the unit's own interrupts in tests.
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
    // `journal` may be null; it gets "message ADDRESS DATA".
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
    // Called at the moment of delivery, as an interrupt handler would be.
    std::function<void(std::uint64_t address, std::uint32_t data)> on_send;

  private:
    Journal* journal_;
};

}  // namespace umbra::testing
