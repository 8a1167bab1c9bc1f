// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tells the operator of each kind of trouble of a guest domain when it begins, and of its end; but
// of no kind more often than a unit may.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "plugin/shadow/clock.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/options.h"

namespace umbra::shadow {

inline constexpr std::size_t kTroubleKinds = 6;

// How much the operator hears of a unit: one piece of trouble of each kind in a while. A guest can
// begin and end trouble with each of its invalidations, and in as many domains as it likes.
class TroubleThrottle {
  public:
    static constexpr std::uint64_t kPauseNs = std::uint64_t{60} * 1'000'000'000;

    // `clock` outlives the object.
    explicit TroubleThrottle(const Clock& clock) : clock_(clock) {}

    // Whether trouble can be told now, and then none of its kind for a while.
    [[nodiscard]] bool admits(Trouble trouble);
    // One more has begun that cannot be told.
    void hold_back(Trouble trouble) { ++of(trouble).untold; }
    // How many were held back since this was asked last.
    [[nodiscard]] std::uint64_t take_untold(Trouble trouble);

  private:
    struct Kind {
        std::uint64_t quiet_until_ns = 0;
        std::uint64_t untold = 0;
    };
    [[nodiscard]] Kind& of(Trouble trouble) { return kinds_[static_cast<std::size_t>(trouble)]; }

    const Clock& clock_;
    std::array<Kind, kTroubleKinds> kinds_{};
};

class TroubleLog {
  public:
    // `events` and `throttle` outlive the log.
    TroubleLog(Events& events, TroubleThrottle& throttle, DomainId domain, OnMapError policy)
        : events_(events), throttle_(throttle), domain_(domain), policy_(policy) {}

    // Whether there is none, told or not.
    [[nodiscard]] bool quiet() const { return states_ == decltype(states_){}; }
    // `error` is the errno of the host call, 0 if none was made.
    void report(Trouble trouble, IovaRange range, int error);
    // Everything of this kind is in place now.
    void heal(Trouble trouble);
    // It is not the domain's any more, healed or not: told anew when there is more of this kind.
    void forget(Trouble trouble);
    // Tells what could not be told when it began and has not healed, if that is possible now.
    void remind();
    // A machine that was stopped for this kind of trouble goes on: what still is, is told again
    // and stops it again.
    void machine_goes_on() { stopped_ = false; }

  private:
    enum class State : std::uint8_t { none, held_back, told };
    [[nodiscard]] State& state_of(Trouble trouble) {
        return states_[static_cast<std::size_t>(trouble)];
    }
    void tell(const Event& event);

    Events& events_;
    TroubleThrottle& throttle_;
    const DomainId domain_;
    const OnMapError policy_;
    std::array<State, kTroubleKinds> states_{};
    std::array<Event, kTroubleKinds> begun_{};  // what was held back
    bool stopped_ = false;                      // asked for it, and the trouble lasts
};

}  // namespace umbra::shadow
