// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/statistics.h"

#include <gtest/gtest.h>

#include <string>

namespace umbra {
namespace {

TEST(Statistics, OfANewUnit) {
    const vtd::Counters counters;
    const std::string kinds =
        R"({"context-global": 0, "context-domain": 0, "context-device": 0, "iotlb-global": 0, )"
        R"("iotlb-domain": 0, "iotlb-page": 0, "device-tlb": 0, "interrupt-global": 0, )"
        R"("interrupt-index": 0})";
    EXPECT_EQ(
        statistics_json(counters, "{}"),
        R"({"version": 1, "invalidations": {"queue": )" + kinds + R"(, "registers": )" + kinds +
            R"(}, "register-commands-refused": 0, "queue": {"tail-writes": 0, )"
            R"("wait-descriptors": 0, "wait-status": 0, "wait-interrupt": 0, )"
            R"("wait-fence": 0, "wait-status-lost": 0, "errors": {"tail-out-of-range": 0, )"
            R"("fetch-failed": 0, "bad-type": 0, "reserved-field": 0}}, "faults": )"
            R"({"recorded": 0, "overflowed": 0, "collapsed": 0, "suppressed": 0, "reasons": {}}, "iotlb": )"
            R"({"hits": 0, "misses": 0}, "domains": [], "shadow": {}})");
}

TEST(Statistics, NamesWhatWasCounted) {
    vtd::Counters counters;
    counters.invalidation(vtd::InvalidationKind::iotlb_page, vtd::InvalidationPath::queue).add(7);
    counters.fault(vtd::FaultReason::write_denied).add(3);
    counters.fault(vtd::FaultReason::interrupt_source_refused).add();
    counters.domains.at(DomainId{5}).iotlb_hits.add(~std::uint64_t{0});
    counters.domains.at(DomainId{0xffff}).faults.add(2);

    const std::string json = statistics_json(counters, "{}");
    EXPECT_NE(json.find(R"("iotlb-page": 7)"), std::string::npos);
    EXPECT_NE(json.find(R"("reasons": {"write-denied": 3, "interrupt-source-refused": 1})"),
              std::string::npos);
    EXPECT_NE(json.find(R"("hits": 18446744073709551615)"), std::string::npos);
    EXPECT_NE(json.find(R"("domains": [{"domain": 5, "iotlb-hits": 18446744073709551615, )"),
              std::string::npos);
    EXPECT_NE(json.find(R"(}, {"domain": 65535, "iotlb-hits": 0, )"), std::string::npos);
}

}  // namespace
}  // namespace umbra
