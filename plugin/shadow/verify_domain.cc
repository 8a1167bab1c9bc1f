// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/verify_domain.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "plugin/shadow/host_pieces.h"

namespace umbra::shadow {
namespace {

using vtd::DecodedEntry;
using Kind = vtd::DecodedEntry::Kind;

// Mappings in order of IOVA. A mapping that continues the one before it is merged with it.
class Extents {
  public:
    void add(const HostMapping& mapping) {
        if (!list_.empty()) {
            HostMapping& last = list_.back();
            if (last.iova + last.bytes == mapping.iova && last.host + last.bytes == mapping.host &&
                last.guest + last.bytes == mapping.guest && last.access == mapping.access) {
                last.bytes += mapping.bytes;
                return;
            }
        }
        list_.push_back(mapping);
    }
    void add(Iova iova, std::uint64_t bytes, Gpa guest, Access access, const RamSnapshot& ram,
             const IovaHoles& holes) {
        visit_host_pieces(ram, holes, iova, bytes, guest, access,
                          [this](const HostMapping& piece) { add(piece); });
    }
    [[nodiscard]] const std::vector<HostMapping>& list() const { return list_; }

  private:
    std::vector<HostMapping> list_;
};

// A place in one list of mappings. Several cursors go through their lists side by side.
class Cursor {
  public:
    explicit Cursor(const Extents& extents)
        : at_(extents.list().begin()), end_(extents.list().end()) {}

    // The nearest IOVA above `from` where a mapping begins or ends. The last of all IOVAs if there
    // is none.
    [[nodiscard]] Iova next_edge(Iova from) {
        while (at_ != end_ && at_->iova + at_->bytes <= from) {
            ++at_;
        }
        if (at_ == end_) {
            return Iova(~std::uint64_t{0});
        }
        return at_->iova > from ? at_->iova : at_->iova + at_->bytes;
    }
    // The mapping of [from, to), which lies between two edges.
    [[nodiscard]] HostMapping slice(Iova from, Iova to) const {
        if (at_ == end_ || at_->iova > from) {
            return {from, to - from, HostAddress(), Gpa(), Access::none};
        }
        const std::uint64_t offset = from - at_->iova;
        return {from, to - from, at_->host + offset, at_->guest + offset, at_->access};
    }

  private:
    std::vector<HostMapping>::const_iterator at_;
    std::vector<HostMapping>::const_iterator end_;
};

bool same_target(const HostMapping& a, const HostMapping& b) {
    return a.access == b.access && (a.access == Access::none || a.host == b.host);
}

// A walk of the guest's tables as they are at this moment. It has nothing of the walk of a sync, so
// that a fault in one shows in the other.
//
// A domain's budgets bound the walk: hostile tables may lead to one table from many entries, and
// mean far more leaves than they have entries.
class GuestWalk {
  public:
    GuestWalk(const GuestMemory& memory, const RamSnapshot& ram, const IovaHoles& holes,
              const vtd::EntryFormat& format, const Options& options)
        : memory_(memory),
          ram_(ram),
          holes_(holes),
          format_(format),
          tables_left_(options.max_tables_domain),
          leaves_left_(options.max_mappings) {}

    // Goes through the tables in order of IOVA until a budget is used up.
    void walk(Gpa table, unsigned level, Iova base, Access access) {
        if (tables_left_ == 0) {
            stopped_at_ = base;
            return;
        }
        --tables_left_;
        path_.at(level) = table;
        for (unsigned slot = 0; slot < kEntriesPerTable && !stopped_at_; ++slot) {
            const std::optional<std::uint64_t> value =
                memory_.read_u64(table + std::uint64_t{slot} * 8);
            if (!value) {
                return;
            }
            const DecodedEntry entry = format_.decode(level, *value);
            const std::uint64_t bytes = vtd::level_span(level);
            const Iova iova = base + slot * bytes;
            const Access granted = entry.access & access;
            if (entry.kind == Kind::leaf) {
                if (leaves_left_ == 0) {
                    stopped_at_ = iova;
                    return;
                }
                --leaves_left_;
                found_.add(iova, bytes, entry.address, granted, ram_, holes_);
            } else if (entry.kind == Kind::table && !on_path(entry.address, level)) {
                walk(entry.address, level - 1, iova, granted);
            }
        }
    }
    [[nodiscard]] const Extents& found() const { return found_; }
    // The IOVA from which on nothing was looked at. Nothing if the walk came to the end.
    [[nodiscard]] std::optional<Iova> stopped_at() const { return stopped_at_; }

  private:
    [[nodiscard]] bool on_path(Gpa table, unsigned level) const {
        return std::find(path_.begin() + level, path_.end(), table) != path_.end();
    }

    const GuestMemory& memory_;
    const RamSnapshot& ram_;
    const IovaHoles& holes_;
    const vtd::EntryFormat& format_;
    std::uint64_t tables_left_;
    std::uint64_t leaves_left_;
    std::optional<Iova> stopped_at_;
    // The tables from the top-level one down to the current one, by level. Unused places hold ~0,
    // which is aligned to no page and so no table's address.
    std::array<Gpa, vtd::kMaxLevels + 1> path_ = [] {
        std::array<Gpa, vtd::kMaxLevels + 1> path{};
        path.fill(Gpa(~std::uint64_t{0}));
        return path;
    }();
    Extents found_;
};

// The differences of one device. Neighbours that differ in the same way are one difference.
class Findings {
  public:
    Findings(DomainId domain, SourceId source) : domain_(domain), source_(source) {}

    void add(Difference::Kind kind, const HostMapping& expected, const HostMapping& actual) {
        if (!list_.empty()) {
            Difference& last = list_.back();
            if (last.kind == kind && continues(last.expected, expected) &&
                continues(last.actual, actual)) {
                last.expected.bytes += expected.bytes;
                last.actual.bytes += actual.bytes;
                return;
            }
        }
        list_.push_back({kind, domain_, source_, expected, actual});
    }

    void report(Verification& result) {
        std::stable_partition(list_.begin(), list_.end(), [](const Difference& difference) {
            return difference.kind == Difference::Kind::error;
        });
        for (const Difference& difference : list_) {
            ++(difference.kind == Difference::Kind::error ? result.errors : result.pending);
            if (result.differences.size() < Verification::kListed) {
                result.differences.push_back(difference);
            }
        }
    }

  private:
    [[nodiscard]] static bool continues(const HostMapping& a, const HostMapping& b) {
        return a.iova + a.bytes == b.iova && a.access == b.access &&
               (a.access == Access::none || a.host + a.bytes == b.host);
    }

    const DomainId domain_;
    const SourceId source_;
    std::vector<Difference> list_;
};

}  // namespace

DomainVerifier::DomainVerifier(const Domain& domain, const UnitResources& unit)
    : domain_(domain), unit_(unit) {}

void DomainVerifier::verify(const HostBinding& binding, SourceId source, Verification& result) {
    RamSnapshot ram_now;
    RamSnapshot before;
    ram_now.update(unit_.ram, before, domain_.ram().write_implies_read());
    GuestWalk walk(unit_.memory, ram_now, binding.holes(), unit_.format, unit_.options);
    walk.walk(domain_.key().root, domain_.key().levels, Iova(0), Access::read_write);
    if (walk.stopped_at()) {
        result.complete = false;
        result.stopped_at =
            std::min(result.stopped_at.value_or(*walk.stopped_at()), *walk.stopped_at());
    }

    // The mappings that the host is meant to have since the last invalidations.
    Extents meant;
    const Mirror& mirror = domain_.mirror();
    mirror.leaves(IovaRange::everything(), [&](LeafRef leaf) {
        if (binding.is_put_off(leaf)) {
            return;  // the guest still waits for this invalidation
        }
        const DecodedEntry entry = mirror.entry(*leaf.table, leaf.slot);
        meant.add(leaf.iova(), leaf.bytes(), entry.address, entry.access & leaf.table->access,
                  domain_.ram(), binding.holes());
    });
    Extents has;
    const auto add = [&](const HostMapping& mapping) { has.add(mapping); };
    const bool mapper_can_tell = binding.mapper().visit_mappings(add);
    if (!mapper_can_tell) {
        binding.visit_mappings(add);
    }

    Findings findings(domain_.key().domain, source);
    Cursor guest_cursor(walk.found());
    Cursor meant_cursor(meant);
    Cursor host_cursor(has);
    const Iova end(~std::uint64_t{0});
    const Iova walked_to = walk.stopped_at().value_or(end);
    Iova from(0);
    while (from != end) {
        const Iova edge = std::min({guest_cursor.next_edge(from), meant_cursor.next_edge(from),
                                    host_cursor.next_edge(from)});
        const bool walked = from < walked_to;
        const Iova to = walked ? std::min(edge, walked_to) : edge;
        const HostMapping intended = meant_cursor.slice(from, to);
        const HostMapping expected = walked ? guest_cursor.slice(from, to) : intended;
        const HostMapping actual = host_cursor.slice(from, to);
        if (expected.access != Access::none || actual.access != Access::none) {
            result.pages_checked += (to - from) >> kPageShift;
        }
        if (!same_target(actual, intended)) {
            findings.add(Difference::Kind::error, expected, actual);
        } else if (!same_target(actual, expected)) {
            findings.add(Difference::Kind::pending, expected, actual);
        }
        from = to;
    }
    binding.visit_stuck([&](IovaRange range) {
        if (mapper_can_tell) {
            return;  // the mapper has shown what is left
        }
        const HostMapping nothing = {range.first, range.last - range.first + 1, HostAddress(),
                                     Gpa(), Access::none};
        HostMapping left = nothing;
        left.access = Access::read_write;
        findings.add(Difference::Kind::error, nothing, left);
    });
    findings.report(result);
    ++result.devices;
}

}  // namespace umbra::shadow
