// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/tools/source.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "plugin/tools/errors.h"

namespace umbra::tools {
namespace {

ToolError failure(const std::string& what) {
    return {ExitCode::environment, what + ": " + std::strerror(errno)};
}

FileDescriptor connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        throw ToolError(ExitCode::usage, path + " is too long for the path of a socket");
    }
    path.copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
        0) {
        throw failure("cannot connect to " + path);
    }
    return socket;
}

bool is_loopback(const addrinfo& address) {
    if (address.ai_family == AF_INET) {
        sockaddr_in four{};
        std::memcpy(&four, address.ai_addr, sizeof(four));
        return ntohl(four.sin_addr.s_addr) >> 24 == 127;
    }
    if (address.ai_family == AF_INET6) {
        sockaddr_in6 six{};
        std::memcpy(&six, address.ai_addr, sizeof(six));
        return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
    }
    return false;
}

// `target` is HOST:PORT.
FileDescriptor connect_tcp(const std::string& target) {
    const std::size_t colon = target.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == target.size()) {
        throw ToolError(ExitCode::usage, "tcp:" + target + " is not of the form tcp:HOST:PORT");
    }
    std::string host = target.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    const ToolError not_here(ExitCode::usage,
                             "tcp:" + target +
                                 " is not on this machine: use localhost or a loopback address, "
                                 "and ssh to forward a port of another one");
    addrinfo wanted{};
    wanted.ai_socktype = SOCK_STREAM;
    wanted.ai_flags = host == "localhost" ? 0 : AI_NUMERICHOST;  // no name leaves this machine
    addrinfo* list = nullptr;
    const int problem =
        ::getaddrinfo(host.c_str(), target.substr(colon + 1).c_str(), &wanted, &list);
    if (problem == EAI_NONAME) {
        throw not_here;
    }
    if (problem != 0) {
        throw ToolError(ExitCode::usage, "tcp:" + target + ": " + ::gai_strerror(problem));
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, ::freeaddrinfo);
    for (const addrinfo* address = list; address != nullptr; address = address->ai_next) {
        if (!is_loopback(*address)) {
            throw not_here;
        }
    }
    errno = 0;
    for (const addrinfo* address = list; address != nullptr; address = address->ai_next) {
        FileDescriptor socket(::socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0));
        if (::connect(socket.get(), address->ai_addr, address->ai_addrlen) == 0) {
            return socket;
        }
    }
    throw failure("cannot connect to tcp:" + target);
}

FileDescriptor open_path(const std::string& path, bool& stream) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        throw failure("cannot open " + path);
    }
    stream = !S_ISREG(status.st_mode);
    if (S_ISSOCK(status.st_mode)) {
        return connect_unix(path);
    }
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        throw failure("cannot open " + path);
    }
    FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (file.get() < 0) {
        throw failure("cannot open " + path);
    }
    return file;
}

FileDescriptor open_source(const std::string& name, bool& stream) {
    constexpr std::string_view kUnix = "unix:";
    constexpr std::string_view kTcp = "tcp:";
    stream = true;
    if (name == "-") {
        struct stat status {};
        stream = ::fstat(STDIN_FILENO, &status) != 0 || !S_ISREG(status.st_mode);
        return FileDescriptor(::dup(STDIN_FILENO));
    }
    if (name.starts_with(kUnix)) {
        return connect_unix(name.substr(kUnix.size()));
    }
    if (name.starts_with(kTcp)) {
        return connect_tcp(name.substr(kTcp.size()));
    }
    return open_path(name, stream);
}

}  // namespace

FileDescriptor::~FileDescriptor() {
    if (fd_ >= 0) {
        ::close(fd_);
    }
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

Source::Source(const std::string& name)
    : name_(name == "-" ? "standard input" : name), descriptor_(open_source(name, stream_)) {}

std::optional<Frame> Source::next() {
    try {
        return frames_.next();
    } catch (const InputError& error) {
        throw InputError(name_ + ", " + error.what());
    }
}

bool Source::read_more() {
    std::array<char, 65536> bytes{};
    for (;;) {
        const ssize_t size = ::read(descriptor_.get(), bytes.data(), bytes.size());
        if (size > 0) {
            frames_.feed({bytes.data(), static_cast<std::size_t>(size)});
            return true;
        }
        if (size == 0) {
            try {
                frames_.finish();
            } catch (const InputError& error) {
                throw InputError(name_ + ", " + error.what());
            }
            return false;
        }
        if (errno != EINTR) {
            throw failure("cannot read " + name_);
        }
    }
}

}  // namespace umbra::tools
