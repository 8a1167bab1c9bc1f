// SPDX-License-Identifier: GPL-2.0-or-later
//
// One bit for each entry of a table page.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "plugin/vtd/types.h"

namespace umbra::shadow {

// Bits [first, last] of a word.
constexpr std::uint64_t bit_range(unsigned first, unsigned last) {
    return (~std::uint64_t{0} >> (63 - last)) & (~std::uint64_t{0} << first);
}

class EntryBitmap {
  public:
    static constexpr unsigned kWords = kEntriesPerTable / 64;

    [[nodiscard]] bool test(unsigned slot) const {
        return ((words_[slot / 64] >> slot % 64) & 1) != 0;
    }
    void set(unsigned slot) { words_[slot / 64] |= std::uint64_t{1} << slot % 64; }
    // All of [first, last].
    void set(unsigned first, unsigned last) {
        for (unsigned word = first / 64; word <= last / 64; ++word) {
            const unsigned from = word == first / 64 ? first % 64 : 0;
            const unsigned to = word == last / 64 ? last % 64 : 63;
            words_[word] |= bit_range(from, to);
        }
    }
    void clear(unsigned slot) { words_[slot / 64] &= ~(std::uint64_t{1} << slot % 64); }

    [[nodiscard]] std::uint64_t word(unsigned index) const { return words_[index]; }
    [[nodiscard]] bool none() const {
        std::uint64_t any = 0;
        for (const std::uint64_t word : words_) {
            any |= word;
        }
        return any == 0;
    }
    [[nodiscard]] unsigned count() const {
        unsigned bits = 0;
        for (const std::uint64_t word : words_) {
            bits += bits_in(word);
        }
        return bits;
    }
    // Number of set bits below `slot`.
    [[nodiscard]] unsigned rank(unsigned slot) const {
        unsigned bits = 0;
        for (unsigned word = 0; word < slot / 64; ++word) {
            bits += bits_in(words_[word]);
        }
        const std::uint64_t below = (std::uint64_t{1} << slot % 64) - 1;
        return bits + bits_in(words_[slot / 64] & below);
    }

  private:
    // Most words are 0, and without the processor's instruction popcount() is a function call.
    static unsigned bits_in(std::uint64_t word) {
        return word == 0 ? 0 : static_cast<unsigned>(std::popcount(word));
    }

    std::array<std::uint64_t, kWords> words_{};
};

}  // namespace umbra::shadow
