// SPDX-License-Identifier: GPL-2.0-or-later
//
// An interrupt of the unit itself. The fault event and the invalidation completion event each have
// four 32-bit registers in a row: control (IM masks the interrupt, IP says that one is pending),
// data, address and upper address. Both follow the same rules (VT-d specification 11.4.7.2 and
// 11.4.9.5). An interrupt that comes up while IM is set becomes pending, and is sent when software
// clears IM. It stops being pending when software has cleared its cause.
//
// The functions change registers and return the message to send. The caller sends the message when
// it holds no lock. The caller keeps other writers of these registers out.
#pragma once

#include <cstdint>
#include <optional>

#include "plugin/vtd/ports.h"
#include "plugin/vtd/registers.h"

namespace umbra::vtd {

struct Message {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
};

inline void send_if_any(MessageSink& sink, const std::optional<Message>& message) {
    if (message) {
        sink.send(message->address, message->data);
    }
}

class EventInterrupt {
  public:
    // `control` is the offset of the control register. `registers` outlives the object.
    EventInterrupt(RegisterFile& registers, std::uint32_t control)
        : registers_(registers), control_(control) {}

    // A new interrupt condition.
    [[nodiscard]] std::optional<Message> raise();
    // Software wrote the control register.
    [[nodiscard]] std::optional<Message> control_written();
    // Software has served every condition.
    void served();

  private:
    [[nodiscard]] Message message() const;

    RegisterFile& registers_;
    std::uint32_t control_;
};

}  // namespace umbra::vtd
