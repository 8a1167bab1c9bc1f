// SPDX-License-Identifier: GPL-2.0-or-later
//
// A list of at most `Capacity` elements whose memory is allocated once. Adding one is a store and
// no call, for loops in which a std::vector's growth, which never happens there, costs more than
// the rest.
//
// Threading: as a std::vector.
#pragma once

#include <cstddef>
#include <memory>

namespace umbra::shadow {

template <class T, std::size_t Capacity>
class FixedList {
  public:
    FixedList() : elements_(std::make_unique<T[]>(Capacity)) {}

    // There is room for one more.
    T& push_back(const T& element) {
        T& added = elements_[size_++];
        added = element;
        return added;
    }
    void clear() { size_ = 0; }

    [[nodiscard]] bool empty() const { return size_ == 0; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] static constexpr std::size_t capacity() { return Capacity; }
    // Not empty.
    [[nodiscard]] T& back() { return elements_[size_ - 1]; }
    [[nodiscard]] const T& back() const { return elements_[size_ - 1]; }
    [[nodiscard]] const T* data() const { return elements_.get(); }
    [[nodiscard]] const T* begin() const { return data(); }
    [[nodiscard]] const T* end() const { return data() + size_; }

  private:
    std::unique_ptr<T[]> elements_;
    std::size_t size_ = 0;
};

}  // namespace umbra::shadow
