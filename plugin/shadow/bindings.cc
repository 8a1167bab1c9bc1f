// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/bindings.h"

#include <algorithm>

namespace umbra::shadow {

void Bindings::add(HostBinding& binding) {
    list_.push_back(&binding);
}

void Bindings::remove(HostBinding& binding) {
    std::erase(list_, &binding);
}

void Bindings::look() {
    any_missing_ = false;
    any_stuck_ = false;
    for (const HostBinding* binding : list_) {
        any_missing_ = any_missing_ || binding->has_missing();
        any_stuck_ = any_stuck_ || binding->has_stuck();
    }
}

bool Bindings::write_implies_read() const {
    return !list_.empty() &&
           std::all_of(list_.begin(), list_.end(), [](const HostBinding* binding) {
               return binding->mapper().write_implies_read();
           });
}

void Bindings::begin_once() {
    if (!begun_) {
        begun_ = true;
        for (HostBinding* binding : list_) {
            binding->begin();
        }
    }
}

void Bindings::retry_unmaps(const RangeList& ranges, Slice& slice) {
    begin_once();
    for (HostBinding* binding : list_) {
        bool any = false;
        for (std::size_t i = 0; i < ranges.size() && binding->has_stuck(); ++i) {
            any = binding->retry_unmaps(ranges[i]) || any;
        }
        if (any && binding->has_lost()) {
            // Leaves that went along with what was stuck are mapped before the tables are looked
            // at. Those for which there is no time are tried again afterwards.
            HostBinding::RetryPass pass;
            (void)binding->retry_lost(pass, slice.deadline());
        }
    }
}

bool Bindings::map_put_off(Slice& slice) {
    const auto has_put_off = [](const HostBinding* binding) { return binding->has_put_off(); };
    if (!any_missing_ || std::none_of(list_.begin(), list_.end(), has_put_off)) {
        return true;
    }
    const bool in_time = slice.on_host([&] {
        return std::all_of(list_.begin(), list_.end(), [&](HostBinding* binding) {
            return binding->map_put_off(slice.deadline());
        });
    });
    look();
    return in_time;
}

bool Bindings::retry_maps(const RangeList& ranges, RetryProgress& progress, Slice& slice) {
    if (!any_missing_) {
        return true;
    }
    if (!map_put_off(slice)) {
        return false;
    }
    return slice.on_host([&] {
        bool in_time = true;
        while (in_time && progress.binding < list_.size()) {
            HostBinding& binding = *list_[progress.binding];
            if (progress.range == 0) {
                in_time = binding.retry_lost(progress.pass, slice.deadline());
            } else if (progress.range <= ranges.size()) {
                in_time =
                    binding.retry_maps(ranges[progress.range - 1], progress.pass, slice.deadline());
            } else {
                in_time = binding.use_room(progress.pass, slice.deadline());
            }
            if (in_time) {
                progress.pass = {};
                if (++progress.range > ranges.size() + 1) {
                    progress.range = 0;
                    ++progress.binding;
                }
            }
        }
        return in_time;
    });
}

void Bindings::execute(const Plan& plan, const Delta& delta, Slice& slice) {
    begin_once();
    slice.on_host([&] {
        for (HostBinding* binding : list_) {
            if (binding != list_.front()) {
                (void)slice.deadline().is_over();
            }
            binding->execute(plan, delta, slice.deadline());
        }
    });
    look();
}

bool Bindings::misses(LeafRef leaf) const {
    return std::any_of(list_.begin(), list_.end(),
                       [&](const HostBinding* binding) { return binding->is_missing(leaf); });
}

bool Bindings::any_hole(IovaRange range) const {
    return std::any_of(list_.begin(), list_.end(), [&](const HostBinding* binding) {
        return binding->holes().overlaps(range);
    });
}

bool Bindings::any_host_hole() const {
    return std::any_of(list_.begin(), list_.end(),
                       [](const HostBinding* binding) { return binding->has_host_holes(); });
}

void Bindings::removing(LeafRef leaf, std::uint64_t mappings, std::uint64_t mapped_bytes) {
    for (HostBinding* binding : list_) {
        binding->removing(leaf, mappings, mapped_bytes);
    }
}

void Bindings::merged(std::uint64_t before, std::uint64_t after) {
    for (HostBinding* binding : list_) {
        binding->merged(before, after);
    }
}

}  // namespace umbra::shadow
