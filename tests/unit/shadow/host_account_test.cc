// SPDX-License-Identifier: GPL-2.0-or-later
//
// The account of what the host may hold.
#include <gtest/gtest.h>

#include "plugin/shadow/host_account.h"

namespace umbra::testing {
namespace {

using shadow::HostAccount;

constexpr IovaRange pages(unsigned first, unsigned end) {
    return {Iova(first * kPageSize), Iova(end * kPageSize - 1)};
}

TEST(HostAccount, IsEmptyUntilSomethingIsMapped) {
    HostAccount account;
    EXPECT_TRUE(account.empty());
    account.unmapped(pages(0, 4));
    EXPECT_TRUE(account.empty());
    account.mapped(pages(2, 3));
    EXPECT_FALSE(account.empty());
    EXPECT_EQ(account.range(), pages(2, 3));
}

TEST(HostAccount, ReachesFromTheFirstMappingToTheLast) {
    HostAccount account;
    account.mapped(pages(8, 9));
    account.mapped(pages(2, 4));
    account.mapped(pages(5, 6));
    EXPECT_EQ(account.range(), pages(2, 9));
}

TEST(HostAccount, ShrinksFromItsEnds) {
    HostAccount account;
    account.mapped(pages(2, 9));
    account.unmapped(pages(4, 5));
    EXPECT_EQ(account.range(), pages(2, 9)) << "there may be something on both sides";
    account.unmapped(pages(0, 3));
    EXPECT_EQ(account.range(), pages(3, 9));
    account.unmapped(pages(8, 20));
    EXPECT_EQ(account.range(), pages(3, 8));
    account.unmapped(pages(0, 3));
    account.unmapped(pages(8, 9));
    EXPECT_EQ(account.range(), pages(3, 8)) << "both lie outside";
    account.unmapped(pages(3, 8));
    EXPECT_TRUE(account.empty());
}

TEST(HostAccount, HoldsTheFirstAndTheLastPageOfAll) {
    HostAccount account;
    account.mapped(IovaRange::everything());
    account.unmapped({Iova(0), Iova(kPageSize - 1)});
    EXPECT_EQ(account.range().first, Iova(kPageSize));
    EXPECT_EQ(account.range().last, IovaRange::everything().last);
    account.unmapped(IovaRange::everything());
    EXPECT_TRUE(account.empty());
    account.mapped({Iova(0), Iova(kPageSize - 1)});
    account.clear();
    EXPECT_TRUE(account.empty());
}

}  // namespace
}  // namespace umbra::testing
