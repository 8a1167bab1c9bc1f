// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/event_interrupt.h"

#include "plugin/vtd/spec/registers.h"

namespace umbra::vtd {
namespace {

using Control = spec::EventControlFields;

// The registers of data, address and upper address follow the control register.
constexpr std::uint32_t kDataOffset = 4;
constexpr std::uint32_t kAddressOffset = 8;

}  // namespace

std::optional<Message> EventInterrupt::raise() {
    std::uint32_t control = registers_.get32(control_);
    if (Control::Mask::get(control)) {
        Control::Pending::set(control, true);
        registers_.set32(control_, control);
        return std::nullopt;
    }
    return message();
}

std::optional<Message> EventInterrupt::control_written() {
    const std::uint32_t control = registers_.get32(control_);
    if (Control::Mask::get(control) || !Control::Pending::get(control)) {
        return std::nullopt;
    }
    served();
    return message();
}

void EventInterrupt::served() {
    std::uint32_t control = registers_.get32(control_);
    Control::Pending::set(control, false);
    registers_.set32(control_, control);
}

Message EventInterrupt::message() const {
    // Address and upper address make one 64-bit value.
    return {.address = registers_.get64(control_ + kAddressOffset),
            .data = registers_.get32(control_ + kDataOffset)};
}

}  // namespace umbra::vtd
