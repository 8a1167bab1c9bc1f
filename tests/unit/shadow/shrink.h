// SPDX-License-Identifier: GPL-2.0-or-later
//
// Makes a failing sequence of steps short enough to be read: leaves out chunks of falling size as
// long as what remains still fails.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace umbra::testing {

// `fails(steps)` is deterministic and true for `steps`. The result fails too, and leaving out any
// single step of it makes it pass. At most `attempts` calls of `fails`; then what was reached.
template <class Step, class Fails>
std::vector<Step> shrink(std::vector<Step> steps, Fails&& fails, std::size_t attempts = 20'000) {
    std::size_t chunk = std::max<std::size_t>(steps.size() / 2, 1);
    while (true) {
        bool shorter = false;
        for (std::size_t at = 0; at < steps.size() && attempts > 0;) {
            std::vector<Step> without = steps;
            const std::size_t end = std::min(at + chunk, steps.size());
            without.erase(without.begin() + static_cast<std::ptrdiff_t>(at),
                          without.begin() + static_cast<std::ptrdiff_t>(end));
            --attempts;
            if (fails(without)) {
                steps = std::move(without);
                shorter = true;
            } else {
                at = end;
            }
        }
        if (attempts == 0 || (chunk == 1 && !shorter)) {
            return steps;
        }
        chunk = std::max<std::size_t>(chunk / 2, 1);
    }
}

}  // namespace umbra::testing
