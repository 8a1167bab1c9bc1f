// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/event_interrupt.h"

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

constexpr std::uint32_t kDataOffset = 4;
constexpr std::uint32_t kAddressOffset = 8;

}  // namespace

using namespace spec::event_control;

std::optional<Message> EventInterrupt::raise() {
    const std::uint32_t control = registers_.get32(control_);
    if ((control & kMask) != 0) {
        registers_.set32(control_, control | kPending);
        return std::nullopt;
    }
    return message();
}

std::optional<Message> EventInterrupt::control_written() {
    const std::uint32_t control = registers_.get32(control_);
    if ((control & kMask) != 0 || (control & kPending) == 0) {
        return std::nullopt;
    }
    registers_.set32(control_, control & ~kPending);
    return message();
}

void EventInterrupt::served() {
    registers_.set32(control_, registers_.get32(control_) & ~kPending);
}

Message EventInterrupt::message() const {
    // Address and upper address make one 64-bit value.
    return {.address = registers_.get64(control_ + kAddressOffset),
            .data = registers_.get32(control_ + kDataOffset)};
}

}  // namespace umbra::vtd
