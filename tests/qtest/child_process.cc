// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/child_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

namespace umbra::qtest {

namespace {

[[noreturn]] void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// Between fork and exec: async-signal-safe calls only.
[[noreturn]] void run_child(char* const* arguments, std::span<const int> inherited, int output,
                            int input, pid_t parent) {
    // The parent may have died before this took effect; then nobody would ever kill this child.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
        ::_exit(127);
    }
    ::dup2(input, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    for (const int fd : inherited) {
        ::fcntl(fd, F_SETFD, 0);
    }
    ::execv(arguments[0], arguments);
    ::_exit(127);
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = other.release();
    }
    return *this;
}

int FileDescriptor::release() {
    return std::exchange(fd_, -1);
}

void FileDescriptor::reset() {
    if (fd_ >= 0) {
        ::close(std::exchange(fd_, -1));
    }
}

FileDescriptor memory_file(const char* name) {
    FileDescriptor file(::memfd_create(name, MFD_CLOEXEC));
    if (file.get() < 0) {
        throw_errno("memfd_create");
    }
    return file;
}

ChildProcess::ChildProcess(const std::vector<std::string>& arguments,
                           std::span<const int> inherited)
    : output_(memory_file("child-output")) {
    const FileDescriptor input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    std::vector<std::string> copies = arguments;
    std::vector<char*> pointers;
    pointers.reserve(copies.size() + 1);
    for (std::string& argument : copies) {
        pointers.push_back(argument.data());
    }
    pointers.push_back(nullptr);

    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) {
        throw_errno("fork");
    }
    if (pid_ == 0) {
        run_child(pointers.data(), inherited, output_.get(), input.get(), parent);
    }
}

ChildProcess::~ChildProcess() {
    if (!status_) {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
}

std::optional<int> ChildProcess::wait_exit(std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!status_) {
        int status = 0;
        if (::waitpid(pid_, &status, WNOHANG) == pid_) {
            status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        } else if (std::chrono::steady_clock::now() >= deadline) {
            break;
        } else {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    return status_;
}

std::string ChildProcess::output() const {
    std::string text;
    std::array<char, 4096> buffer{};
    for (;;) {
        const ssize_t count =
            ::pread(output_.get(), buffer.data(), buffer.size(), static_cast<off_t>(text.size()));
        if (count <= 0) {
            return text;
        }
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
}

}  // namespace umbra::qtest
