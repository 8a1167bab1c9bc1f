// SPDX-License-Identifier: GPL-2.0-or-later
//
// The register file: storage for the unit's registers and the rules by which software may access
// them. It knows which bits are read-only (RO), read-write (RW), cleared by writing 1 (RW1C) or
// write-only (WO). The consequences of a write are the unit's business.
//
// Software accesses follow VT-d specification 11.2: 4 or 8 bytes, naturally aligned. A 64-bit
// register can be accessed whole or by halves. Offsets where no register is read 0 and ignore
// writes.
//
// Threading: any number of threads may read. Writers of one register exclude each other (the fault
// log does so with its lock for the registers that DMA threads change, QEMU's big lock does for all
// others). A reader sees each 32-bit word whole.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "plugin/vtd/capabilities.h"
#include "plugin/vtd/saved_state.h"

namespace umbra::vtd {

struct RegisterRow;

class RegisterFile {
  public:
    explicit RegisterFile(const Capabilities& capabilities);

    // Every register at its power-on value.
    void reset();
    // The same for a unit with other capabilities. Before software has read any register.
    void set_capabilities(const Capabilities& capabilities);

    // ---- Accesses by software ----

    // True if `offset` and `size` make an access that the specification allows.
    [[nodiscard]] static bool is_valid_access(std::uint32_t offset, unsigned size);
    // True if `offset` is the start of a 64-bit register, so that an 8-byte access there is one
    // access and not one to each of two 32-bit registers.
    [[nodiscard]] bool is_wide(std::uint32_t offset) const;

    // `is_valid_access(offset, size)` holds. WO bits read 0.
    [[nodiscard]] std::uint64_t software_read(std::uint32_t offset, unsigned size) const;
    // Changes the bits that the access rules let software change. WO bits are stored for the unit.
    void software_write(std::uint32_t offset, std::uint64_t value, unsigned size);

    // ---- Accesses by the unit ---- (offset of a register; no access rule applies)

    [[nodiscard]] std::uint32_t get32(std::uint32_t offset) const;
    [[nodiscard]] std::uint64_t get64(std::uint32_t offset) const;
    void set32(std::uint32_t offset, std::uint32_t value);
    // Lower half first, so that a flag in the upper half vouches for all of it.
    void set64(std::uint32_t offset, std::uint64_t value);

    // The same by the layout of a register (spec/registers.h). A 32-bit register's value is in bits
    // 31:0.
    template <class Register>
    [[nodiscard]] std::uint64_t get() const {
        if constexpr (Register::kWidth == 64) {
            return get64(Register::kOffset);
        } else {
            return get32(Register::kOffset);
        }
    }
    template <class Register>
    void set(std::uint64_t value) {
        if constexpr (Register::kWidth == 64) {
            set64(Register::kOffset, value);
        } else {
            set32(Register::kOffset, static_cast<std::uint32_t>(value));
        }
    }

    // ---- Migration ----

    using Image = std::array<std::uint8_t, SavedState::kRegisterBytes>;
    [[nodiscard]] Image save() const;
    // True if every bit of `image` is one that this register file could have: constant registers
    // equal, reserved bits 0.
    [[nodiscard]] bool accepts(const Image& image) const;
    // `accepts(image)` holds.
    void restore(const Image& image);

  private:
    static constexpr std::size_t kWords = SavedState::kRegisterBytes / sizeof(std::uint32_t);

    struct Word {
        std::atomic<std::uint32_t> value{0};
        std::uint32_t reset = 0;
        std::uint32_t read_write = 0;       // RW
        std::uint32_t write_one_clear = 0;  // RW1C
        std::uint32_t write_only = 0;       // WO
        std::uint32_t status = 0;           // RO for software, changed by the unit
        bool wide = false;                  // first word of a 64-bit register
    };

    // Takes one half of each mask of `row`.
    static void set_rules(Word& word, const RegisterRow& row, std::uint32_t (*half)(std::uint64_t));
    [[nodiscard]] std::uint32_t read_word(std::uint32_t offset) const;
    void write_word(std::uint32_t offset, std::uint32_t value);

    std::array<Word, kWords> words_;
};

}  // namespace umbra::vtd
