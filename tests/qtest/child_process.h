// SPDX-License-Identifier: GPL-2.0-or-later
//
// A child process that cannot outlive its owner, and what it printed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace umbra::qtest {

// Owns a file descriptor.
class FileDescriptor {
  public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_(fd) {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept;
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    ~FileDescriptor() { reset(); }

    [[nodiscard]] int get() const { return fd_; }
    int release();
    void reset();

  private:
    int fd_ = -1;
};

// An anonymous file in memory, empty, closed on exec. Throws std::system_error.
[[nodiscard]] FileDescriptor memory_file(const char* name);

class ChildProcess {
  public:
    // Starts arguments[0] with the given descriptors open under the same numbers, and no others but
    // standard input (empty), output and error (both kept, see output()). Throws std::system_error.
    ChildProcess(const std::vector<std::string>& arguments, std::span<const int> inherited);
    // Kills the child if it still runs.
    ~ChildProcess();
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;

    // The exit status, or 128 + the signal that ended it; nullopt if it still runs after `limit`.
    [[nodiscard]] std::optional<int> wait_exit(std::chrono::milliseconds limit);

    // The output so far, standard output and error together.
    [[nodiscard]] std::string output() const;

    [[nodiscard]] pid_t pid() const { return pid_; }

  private:
    FileDescriptor output_;
    pid_t pid_ = -1;
    std::optional<int> status_;
};

}  // namespace umbra::qtest
