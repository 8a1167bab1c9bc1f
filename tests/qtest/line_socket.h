// SPDX-License-Identifier: GPL-2.0-or-later
//
// One end of a connected stream socket that carries lines of text, as QEMU's qtest and QMP do.
#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tests/qtest/child_process.h"

namespace umbra::qtest {

// The other side went away, did not answer in time, or gave an unexpected answer.
class TransportError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

class LineSocket {
  public:
    // Makes a connected pair; `peer` is the other end, for a child to inherit.
    explicit LineSocket(FileDescriptor& peer);

    // Both throw TransportError, after `limit` without progress.
    void send(std::string_view line);  // without the line's end, which is added
    [[nodiscard]] std::string receive(std::chrono::milliseconds limit);

  private:
    FileDescriptor socket_;
    std::string buffered_;
};

}  // namespace umbra::qtest
