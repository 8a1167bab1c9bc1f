// SPDX-License-Identifier: GPL-2.0-or-later
//
// Tells the operator of trouble in a guest domain: once for each kind when it begins, and once when
// it has healed. The unit's throttle can hold an event back; the log then tells it later.
//
// Threading: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "plugin/shadow/clock.h"
#include "plugin/shadow/events.h"
#include "plugin/shadow/options.h"

namespace umbra::shadow {

inline constexpr std::size_t kTroubleKinds = 7;

// Limits the events of one unit to one of each kind in a pause. Without a limit, a guest could
// cause an event with each invalidation, in as many domains as it likes.
class TroubleThrottle {
  public:
    static constexpr std::uint64_t kPauseNs = std::uint64_t{60} * 1'000'000'000;

    // `clock` outlives the throttle.
    explicit TroubleThrottle(const Clock& clock) : clock_(clock) {}

    // Whether an event of this kind can be told now. If so, the next pause begins.
    [[nodiscard]] bool admits(Trouble trouble);
    // Counts an event of this kind that was not admitted.
    void hold_back(Trouble trouble) { ++of(trouble).untold; }
    // Returns how many events of this kind were held back since the last call.
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

// What becomes of the machine when the host refuses a map. One for all domains of a unit.
struct MapErrorPolicy {
    OnMapError choice = OnMapError::report;
    // With OnMapError::stop: the domains in which maps that the host refused are still missing.
    // While there is one, the guest must not run.
    unsigned holding_domains = 0;
};

class TroubleLog {
  public:
    // `events`, `throttle` and `policy` outlive the log.
    TroubleLog(Events& events, TroubleThrottle& throttle, MapErrorPolicy& policy, DomainId domain)
        : events_(events), throttle_(throttle), policy_(policy), domain_(domain) {}
    ~TroubleLog() { let_go(); }
    TroubleLog(const TroubleLog&) = delete;
    TroubleLog& operator=(const TroubleLog&) = delete;

    // Whether there is no trouble of any kind, told or held back.
    [[nodiscard]] bool quiet() const { return states_ == decltype(states_){}; }
    // There is trouble at `range`. `error` is the errno of the host call, or 0 without a host call.
    void report(Trouble trouble, IovaRange range, int error);
    // The trouble of this kind is over. The operator is told if it was told of the beginning.
    void heal(Trouble trouble);
    // The trouble of this kind left the domain, healed or not. The next one is told as new.
    void forget(Trouble trouble);
    // Tells events that were held back, as far as the throttle admits them now.
    void remind();

    // Whether the machine must not run before the maps that failed in this domain are there.
    [[nodiscard]] bool holds_machine() const { return holds_; }
    // The machine is about to go on. The next failed map is told again and stops it again.
    void machine_goes_on() { asked_to_stop_ = false; }
    // If the domain holds the machine and has not asked again for the stop, it does.
    void insist();
    // The machine may run without the maps that failed so far.
    void let_go();

  private:
    enum class State : std::uint8_t { none, held_back, told };
    [[nodiscard]] State& state_of(Trouble trouble) {
        return states_[static_cast<std::size_t>(trouble)];
    }
    void tell(const Event& event);
    void hold(const Event& event);

    Events& events_;
    TroubleThrottle& throttle_;
    MapErrorPolicy& policy_;
    const DomainId domain_;
    std::array<State, kTroubleKinds> states_{};
    std::array<Event, kTroubleKinds> begun_{};  // events that were held back
    bool holds_ = false;                        // counted in policy_
    bool asked_to_stop_ = false;                // since the machine went on
    Event cause_;                               // of the hold
};

}  // namespace umbra::shadow
