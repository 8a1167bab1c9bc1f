// SPDX-License-Identifier: GPL-2.0-or-later
//
// The time of one slice of work: when the slice ends, and how much of it host calls took. The clock
// is read once in several tables, and again at the first table after host calls, since those take
// long.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>

#include "plugin/shadow/clock.h"

namespace umbra::shadow {

class Slice {
  public:
    // The slice ends at `end_ns` of `clock`, which outlives the object. One table in
    // `tables_per_look` makes the slice look at the clock.
    Slice(const Clock& clock, std::uint64_t end_ns, unsigned tables_per_look)
        : clock_(clock),
          end_ns_(end_ns),
          deadline_(clock, end_ns),
          tables_per_look_(tables_per_look),
          tables_left_(tables_per_look) {}

    // A table was looked at. True if the clock was read and the slice is over. The deadline of host
    // calls does not learn of it, so the changes that were found are still carried out.
    [[nodiscard]] bool table_ends_it() {
        if (--tables_left_ != 0) {
            return false;
        }
        tables_left_ = tables_per_look_;
        return clock_.now_ns() >= end_ns_;
    }

    // The same end, for host calls.
    [[nodiscard]] Deadline& deadline() { return deadline_; }

    // Calls `work`, which makes host calls, and returns its result.
    template <class Work>
    auto on_host(Work&& work) {
        const HostTime time(*this);
        return work();
    }
    [[nodiscard]] std::uint64_t host_ns() const { return host_ns_; }

    // The next table makes the slice look at the clock.
    void look_soon() { tables_left_ = 1; }

  private:
    // Adds the time between its construction and its end to host_ns().
    class HostTime {
      public:
        explicit HostTime(Slice& slice) : slice_(slice), start_ns_(slice.clock_.now_ns()) {}
        ~HostTime() { slice_.host_ns_ += slice_.clock_.now_ns() - start_ns_; }
        HostTime(const HostTime&) = delete;
        HostTime& operator=(const HostTime&) = delete;

      private:
        Slice& slice_;
        std::uint64_t start_ns_;
    };

    const Clock& clock_;
    std::uint64_t end_ns_;
    Deadline deadline_;
    std::uint64_t host_ns_ = 0;
    unsigned tables_per_look_;
    unsigned tables_left_;
};

}  // namespace umbra::shadow
