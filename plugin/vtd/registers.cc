// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/vtd/registers.h"

#include <cstring>

#include "plugin/vtd/register_table.h"
#include "plugin/vtd/spec/field.h"

namespace umbra::vtd {
namespace {

constexpr std::size_t index_of(std::uint32_t offset) {
    return offset / sizeof(std::uint32_t);
}

using spec::high_word;
using spec::joined;
using spec::low_word;

}  // namespace

RegisterFile::RegisterFile(const Capabilities& capabilities) {
    set_capabilities(capabilities);
}

void RegisterFile::set_capabilities(const Capabilities& capabilities) {
    for (const RegisterRow& row : registers_of(capabilities)) {
        set_rules(words_.at(index_of(row.offset)), row, low_word);
        if (row.bytes == 8) {
            words_.at(index_of(row.offset)).wide = true;
            set_rules(words_.at(index_of(row.offset) + 1), row, high_word);
        }
    }
    reset();
}

void RegisterFile::set_rules(Word& word, const RegisterRow& row,
                             std::uint32_t (*half)(std::uint64_t)) {
    word.reset = half(row.reset);
    word.read_write = half(row.read_write);
    word.write_one_clear = half(row.write_one_clear);
    word.write_only = half(row.write_only);
    word.status = half(row.status);
}

void RegisterFile::reset() {
    for (Word& word : words_) {
        word.value.store(word.reset, std::memory_order_relaxed);
    }
}

bool RegisterFile::is_valid_access(std::uint32_t offset, unsigned size) {
    return (size == 4 || size == 8) && offset % size == 0;
}

bool RegisterFile::is_wide(std::uint32_t offset) const {
    const std::size_t index = index_of(offset);
    return index < kWords && words_[index].wide;
}

std::uint64_t RegisterFile::software_read(std::uint32_t offset, unsigned size) const {
    const std::uint32_t low = read_word(offset);
    if (size == 4) {
        return low;
    }
    return joined(read_word(offset + 4), low);
}

void RegisterFile::software_write(std::uint32_t offset, std::uint64_t value, unsigned size) {
    write_word(offset, low_word(value));
    if (size == 8) {
        write_word(offset + 4, high_word(value));
    }
}

std::uint32_t RegisterFile::read_word(std::uint32_t offset) const {
    const std::size_t index = index_of(offset);
    if (index >= kWords) {
        return 0;
    }
    const Word& word = words_[index];
    return word.value.load(std::memory_order_relaxed) & ~word.write_only;
}

void RegisterFile::write_word(std::uint32_t offset, std::uint32_t value) {
    const std::size_t index = index_of(offset);
    if (index >= kWords) {
        return;
    }
    Word& word = words_[index];
    const std::uint32_t writable = word.read_write | word.write_only;
    const std::uint32_t old = word.value.load(std::memory_order_relaxed);
    word.value.store((old & ~writable & ~(value & word.write_one_clear)) | (value & writable),
                     std::memory_order_relaxed);
}

std::uint32_t RegisterFile::get32(std::uint32_t offset) const {
    return words_[index_of(offset)].value.load(std::memory_order_relaxed);
}

std::uint64_t RegisterFile::get64(std::uint32_t offset) const {
    return joined(get32(offset + 4), get32(offset));
}

void RegisterFile::set32(std::uint32_t offset, std::uint32_t value) {
    words_[index_of(offset)].value.store(value, std::memory_order_relaxed);
}

void RegisterFile::set64(std::uint32_t offset, std::uint64_t value) {
    set32(offset, low_word(value));
    words_[index_of(offset) + 1].value.store(high_word(value), std::memory_order_release);
}

RegisterFile::Image RegisterFile::save() const {
    Image image{};
    for (std::size_t i = 0; i < kWords; ++i) {
        const std::uint32_t value = words_[i].value.load(std::memory_order_relaxed);
        std::memcpy(&image[i * sizeof value], &value, sizeof value);
    }
    return image;
}

bool RegisterFile::accepts(const Image& image) const {
    for (std::size_t i = 0; i < kWords; ++i) {
        std::uint32_t value = 0;
        std::memcpy(&value, &image[i * sizeof value], sizeof value);
        const Word& word = words_[i];
        const std::uint32_t variable =
            word.read_write | word.write_one_clear | word.write_only | word.status;
        if (((value ^ word.reset) & ~variable) != 0) {
            return false;
        }
    }
    return true;
}

void RegisterFile::restore(const Image& image) {
    for (std::size_t i = 0; i < kWords; ++i) {
        std::uint32_t value = 0;
        std::memcpy(&value, &image[i * sizeof value], sizeof value);
        words_[i].value.store(value, std::memory_order_relaxed);
    }
}

}  // namespace umbra::vtd
