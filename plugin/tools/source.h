// SPDX-License-Identifier: GPL-2.0-or-later
//
// Where snapshots are read from: a file, or a stream (socket, pipe, terminal) that goes on.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "plugin/tools/framing.h"

namespace umbra::tools {

class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    ~FileDescriptor();
    FileDescriptor(FileDescriptor&& other) noexcept;
    FileDescriptor& operator=(FileDescriptor&&) = delete;
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    [[nodiscard]] int get() const { return fd_; }

  private:
    int fd_ = -1;
};

class Source {
  public:
    // "-" is standard input, "unix:PATH" and "tcp:HOST:PORT" are sockets to connect to, everything
    // else is a path (of a socket as well). HOST must be of this machine: snapshots are not
    // encrypted. Throws ToolError.
    explicit Source(const std::string& name);

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] int descriptor() const { return descriptor_.get(); }
    // False for a file: all that it has is there.
    [[nodiscard]] bool is_stream() const { return stream_; }

    // The next message that is there already; nullopt if none is. Throws InputError.
    [[nodiscard]] std::optional<Frame> next();
    // Reads once, waiting if it must. False at the end. Throws ToolError.
    [[nodiscard]] bool read_more();

  private:
    std::string name_;
    bool stream_ = false;  // found out while opening, so before descriptor_
    FileDescriptor descriptor_;
    FrameReader frames_;
};

}  // namespace umbra::tools
