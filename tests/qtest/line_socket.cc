// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/line_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace umbra::qtest {

LineSocket::LineSocket(FileDescriptor& peer) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
        throw std::system_error(errno, std::generic_category(), "socketpair");
    }
    socket_ = FileDescriptor(ends[0]);
    peer = FileDescriptor(ends[1]);
}

void LineSocket::send(std::string_view line) {
    std::string text(line);
    text.push_back('\n');
    std::string_view rest = text;
    while (!rest.empty()) {
        const ssize_t count = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            throw TransportError("QEMU closed the connection");
        }
        rest.remove_prefix(static_cast<std::size_t>(count));
    }
}

std::string LineSocket::receive(std::chrono::milliseconds limit) {
    for (;;) {
        const std::size_t end = buffered_.find('\n');
        if (end != std::string::npos) {
            std::string line = buffered_.substr(0, end);
            buffered_.erase(0, end + 1);
            if (!line.empty() && line.back() == '\r') {
                line.pop_back();
            }
            return line;
        }
        pollfd descriptor{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        const int ready = ::poll(&descriptor, 1, static_cast<int>(limit.count()));
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready == 0) {
            throw TransportError("QEMU did not answer in time");
        }
        std::array<char, 16384> chunk{};
        const ssize_t count = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            throw TransportError("QEMU closed the connection");
        }
        buffered_.append(chunk.data(), static_cast<std::size_t>(count));
    }
}

}  // namespace umbra::qtest
