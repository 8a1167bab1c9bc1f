// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/shadow/compare.h"

#include <cstddef>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace umbra::shadow {
namespace {

// R and W of a second-stage entry.
constexpr std::uint64_t kPresentBits = 3;

// Each variant first asks whether any line of a block differs. Mostly none does, and the block is
// done without a mask for each line.

std::uint64_t differing_lines_plain(const std::uint64_t* guest, const std::uint64_t* copy) {
    std::uint64_t lines = 0;
    for (std::size_t line = 0; line < kLinesPerTable; ++line) {
        const std::uint64_t* a = guest + line * kEntriesPerLine;
        const std::uint64_t* b = copy + line * kEntriesPerLine;
        std::uint64_t difference = 0;
        for (unsigned i = 0; i < kEntriesPerLine; ++i) {
            difference |= a[i] ^ b[i];
        }
        lines |= std::uint64_t{difference != 0} << line;
    }
    return lines;
}

bool any_present_plain(const std::uint64_t* guest) {
    std::uint64_t any = 0;
    for (unsigned i = 0; i < kLinesPerTable * kEntriesPerLine; ++i) {
        any |= guest[i];
    }
    return (any & kPresentBits) != 0;
}

constexpr CompareFunctions kPlain = {differing_lines_plain, any_present_plain, "plain"};

#if defined(__x86_64__)

std::uint64_t differing_lines_sse2(const std::uint64_t* guest, const std::uint64_t* copy) {
    constexpr unsigned kLinesPerBlock = 4;
    const auto* a = reinterpret_cast<const __m128i*>(guest);
    const auto* b = reinterpret_cast<const __m128i*>(copy);
    std::uint64_t lines = 0;
    for (unsigned block = 0; block < kLinesPerTable; block += kLinesPerBlock, a += 16, b += 16) {
        __m128i difference[kLinesPerBlock];
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const unsigned i = line * 4;
            __m128i any = _mm_setzero_si128();
            for (unsigned part = i; part < i + 4; ++part) {
                any = _mm_or_si128(
                    any, _mm_xor_si128(_mm_loadu_si128(a + part), _mm_load_si128(b + part)));
            }
            difference[line] = any;
        }
        const __m128i zero = _mm_setzero_si128();
        const __m128i any = _mm_or_si128(_mm_or_si128(difference[0], difference[1]),
                                         _mm_or_si128(difference[2], difference[3]));
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, zero)) == 0xffff) {
            continue;
        }
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const bool differs =
                _mm_movemask_epi8(_mm_cmpeq_epi8(difference[line], zero)) != 0xffff;
            lines |= std::uint64_t{differs} << (block + line);
        }
    }
    return lines;
}

bool any_present_sse2(const std::uint64_t* guest) {
    const auto* a = reinterpret_cast<const __m128i*>(guest);
    __m128i any = _mm_setzero_si128();
    __m128i other = _mm_setzero_si128();
    for (unsigned i = 0; i < kLinesPerTable * 4; i += 2) {
        any = _mm_or_si128(any, _mm_loadu_si128(a + i));
        other = _mm_or_si128(other, _mm_loadu_si128(a + i + 1));
    }
    any = _mm_and_si128(_mm_or_si128(any, other), _mm_set1_epi64x(kPresentBits));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) != 0xffff;
}

constexpr CompareFunctions kSse2 = {differing_lines_sse2, any_present_sse2, "sse2"};

[[gnu::target("avx2")]] std::uint64_t differing_lines_avx2(const std::uint64_t* guest,
                                                           const std::uint64_t* copy) {
    constexpr unsigned kLinesPerBlock = 4;
    const auto* a = reinterpret_cast<const __m256i*>(guest);
    const auto* b = reinterpret_cast<const __m256i*>(copy);
    std::uint64_t lines = 0;
    for (unsigned block = 0; block < kLinesPerTable; block += kLinesPerBlock, a += 8, b += 8) {
        __m256i difference[kLinesPerBlock];
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const unsigned i = line * 2;
            difference[line] = _mm256_or_si256(
                _mm256_xor_si256(_mm256_loadu_si256(a + i), _mm256_load_si256(b + i)),
                _mm256_xor_si256(_mm256_loadu_si256(a + i + 1), _mm256_load_si256(b + i + 1)));
        }
        const __m256i any = _mm256_or_si256(_mm256_or_si256(difference[0], difference[1]),
                                            _mm256_or_si256(difference[2], difference[3]));
        if (_mm256_testz_si256(any, any) != 0) {
            continue;
        }
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const bool differs = _mm256_testz_si256(difference[line], difference[line]) == 0;
            lines |= std::uint64_t{differs} << (block + line);
        }
    }
    return lines;
}

[[gnu::target("avx2")]] bool any_present_avx2(const std::uint64_t* guest) {
    const auto* a = reinterpret_cast<const __m256i*>(guest);
    __m256i any = _mm256_setzero_si256();
    __m256i other = _mm256_setzero_si256();
    for (unsigned i = 0; i < kLinesPerTable * 2; i += 2) {
        any = _mm256_or_si256(any, _mm256_loadu_si256(a + i));
        other = _mm256_or_si256(other, _mm256_loadu_si256(a + i + 1));
    }
    any = _mm256_or_si256(any, other);
    return _mm256_testz_si256(any, _mm256_set1_epi64x(kPresentBits)) == 0;
}

constexpr CompareFunctions kAvx2 = {differing_lines_avx2, any_present_avx2, "avx2"};

[[gnu::target("avx512f")]] std::uint64_t differing_lines_avx512(const std::uint64_t* guest,
                                                                const std::uint64_t* copy) {
    // A line is one register.
    constexpr unsigned kLinesPerBlock = 8;
    std::uint64_t lines = 0;
    for (unsigned block = 0; block < kLinesPerTable; block += kLinesPerBlock) {
        __m512i difference[kLinesPerBlock];
        __m512i any = _mm512_setzero_si512();
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const unsigned entry = (block + line) * kEntriesPerLine;
            difference[line] = _mm512_xor_si512(_mm512_loadu_si512(guest + entry),
                                                _mm512_load_si512(copy + entry));
            any = _mm512_or_si512(any, difference[line]);
        }
        if (_mm512_test_epi64_mask(any, any) == 0) {
            continue;
        }
        for (unsigned line = 0; line < kLinesPerBlock; ++line) {
            const bool differs = _mm512_test_epi64_mask(difference[line], difference[line]) != 0;
            lines |= std::uint64_t{differs} << (block + line);
        }
    }
    return lines;
}

[[gnu::target("avx512f")]] bool any_present_avx512(const std::uint64_t* guest) {
    __m512i any = _mm512_setzero_si512();
    __m512i other = _mm512_setzero_si512();
    for (unsigned entry = 0; entry < kLinesPerTable * kEntriesPerLine;
         entry += 2 * kEntriesPerLine) {
        any = _mm512_or_si512(any, _mm512_loadu_si512(guest + entry));
        other = _mm512_or_si512(other, _mm512_loadu_si512(guest + entry + kEntriesPerLine));
    }
    any = _mm512_or_si512(any, other);
    return _mm512_test_epi64_mask(any, _mm512_set1_epi64(kPresentBits)) != 0;
}

constexpr CompareFunctions kAvx512 = {differing_lines_avx512, any_present_avx512, "avx512"};

#endif  // __x86_64__

const CompareFunctions& choose() {
    for (const char* name : {"avx512", "avx2", "sse2"}) {
        if (const CompareFunctions* functions = compare_functions(name)) {
            return *functions;
        }
    }
    return kPlain;
}

}  // namespace

const CompareFunctions& compare_functions() {
    static const CompareFunctions& chosen = choose();
    return chosen;
}

const CompareFunctions* compare_functions(const char* name) {
    if (std::strcmp(name, kPlain.name) == 0) {
        return &kPlain;
    }
#if defined(__x86_64__)
    if (std::strcmp(name, kSse2.name) == 0) {
        return &kSse2;
    }
    if (std::strcmp(name, kAvx2.name) == 0 && __builtin_cpu_supports("avx2") != 0) {
        return &kAvx2;
    }
    if (std::strcmp(name, kAvx512.name) == 0 && __builtin_cpu_supports("avx512f") != 0) {
        return &kAvx512;
    }
#endif
    return nullptr;
}

}  // namespace umbra::shadow
