// SPDX-License-Identifier: GPL-2.0-or-later
//
// The program umbra-stat: what it prints, what it says when something is wrong, how it ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "plugin/telemetry/json.h"
#include "plugin/tools/difference.h"
#include "plugin/tools/open_metrics.h"
#include "plugin/tools/view.h"
#include "tests/unit/telemetry/metrics_judge.h"
#include "tests/unit/telemetry/samples.h"

namespace umbra::tools {
namespace {

namespace fs = std::filesystem;
namespace snapshot = telemetry::snapshot;
using testing::delimited;
using testing::filled_snapshot;

struct Result {
    int status = -1;
    std::string output;
    std::string errors;
};

class Pipe {
  public:
    Pipe() {
        if (::pipe2(ends_.data(), O_CLOEXEC) != 0) {
            throw std::system_error(errno, std::generic_category(), "pipe");
        }
    }
    ~Pipe() {
        close_end(0);
        close_end(1);
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    [[nodiscard]] int end(std::size_t which) const { return ends_.at(which); }
    void close_end(std::size_t which) {
        if (ends_.at(which) >= 0) {
            ::close(ends_.at(which));
            ends_.at(which) = -1;
        }
    }
    std::string drain() {
        close_end(1);
        std::string all;
        std::array<char, 4096> bytes{};
        for (ssize_t size = 0; (size = ::read(ends_[0], bytes.data(), bytes.size())) > 0;) {
            all.append(bytes.data(), static_cast<std::size_t>(size));
        }
        return all;
    }

  private:
    std::array<int, 2> ends_{-1, -1};
};

class Program {
  public:
    explicit Program(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), UMBRA_STAT);
        std::vector<char*> words;
        for (std::string& argument : arguments) {
            words.push_back(argument.data());
        }
        words.push_back(nullptr);
        child_ = ::fork();
        if (child_ == 0) {
            ::dup2(input_.end(0), STDIN_FILENO);
            ::dup2(output_.end(1), STDOUT_FILENO);
            ::dup2(errors_.end(1), STDERR_FILENO);
            ::execv(words[0], words.data());
            ::_exit(127);
        }
        input_.close_end(0);
        output_.close_end(1);
        errors_.close_end(1);
    }
    ~Program() {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    void send(const std::string& bytes) const {
        ASSERT_EQ(::write(input_.end(1), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
    }
    // The next line that it prints.
    [[nodiscard]] std::string line() const {
        std::string text;
        char letter = 0;
        while (::read(output_.end(0), &letter, 1) == 1 && letter != '\n') {
            text += letter;
        }
        return text;
    }
    void signal(int number) const { ::kill(child_, number); }
    // Ends its input and waits for its end.
    Result finish() {
        input_.close_end(1);
        Result result;
        std::thread reader([&] { result.errors = errors_.drain(); });
        result.output = output_.drain();
        reader.join();
        int status = 0;
        ::waitpid(child_, &status, 0);
        child_ = -1;
        result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        return result;
    }

  private:
    Pipe input_;
    Pipe output_;
    Pipe errors_;
    pid_t child_ = -1;
};

Result run(const std::vector<std::string>& arguments, const std::string& input = "") {
    Program program(arguments);
    program.send(input);
    return program.finish();
}

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) {
        text += line + "\n";
    }
    return text;
}

class UmbraStat : public ::testing::Test {
  protected:
    UmbraStat() {
        std::string name = (fs::temp_directory_path() / "umbra-stat-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw std::system_error(errno, std::generic_category(), "mkdtemp");
        }
        folder_ = name;
    }
    ~UmbraStat() override {
        std::error_code ignored;
        fs::remove_all(folder_, ignored);
    }

    [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }
    [[nodiscard]] std::string file(const std::string& name, const std::string& bytes) const {
        std::ofstream(path(name), std::ios::binary) << bytes;
        return path(name);
    }

    static void expect_failure(const Result& result, int status, const std::string& sentence) {
        EXPECT_EQ(result.status, status) << result.errors;
        EXPECT_EQ(result.output, "");
        EXPECT_TRUE(result.errors.starts_with("umbra-stat: ")) << result.errors;
        EXPECT_NE(result.errors.find(sentence), std::string::npos)
            << "\"" << sentence << "\" is not in: " << result.errors;
        EXPECT_EQ(result.errors.find('\n'), result.errors.size() - 1) << "one line";
    }

    fs::path folder_;
};

TEST_F(UmbraStat, Help) {
    const Result result = run({"--help"});
    EXPECT_EQ(result.status, 0);
    for (const char* part :
         {"--once", "--json", "--openmetrics", "--diff", "Examples:", "Exit codes:"}) {
        EXPECT_NE(result.output.find(part), std::string::npos) << part;
    }
}

TEST_F(UmbraStat, WrongUsage) {
    expect_failure(run({}), 2, "name one source");
    expect_failure(run({"a", "b"}), 2, "name one source");
    expect_failure(run({"--diff", "a"}), 2, "--diff needs two sources");
    expect_failure(run({"--jsno", "a"}), 2, "there is no option --jsno");
    expect_failure(run({"--json", "--openmetrics", "a"}), 2, "exclude each other");
    expect_failure(run({"a", "--timeout"}), 2, "--timeout needs");
    expect_failure(run({"a", "--timeout", "1s"}), 2, "not \"1s\"");
    expect_failure(run({"tcp:nowhere"}), 2, "tcp:HOST:PORT");
    expect_failure(run({"tcp:192.0.2.1:80"}), 2, "is not on this machine");
    expect_failure(run({"tcp:example.org:80"}), 2, "is not on this machine");
}

TEST_F(UmbraStat, WhatCannotBeOpened) {
    expect_failure(run({path("none")}), 4, "cannot open " + path("none") + ": No such file");
    expect_failure(run({folder_}), 4, "Is a directory");
    expect_failure(run({"unix:" + path("none")}), 4, "cannot connect to " + path("none"));
}

TEST_F(UmbraStat, DamagedFilesAreToldWhere) {
    const std::string good = delimited(filled_snapshot());
    const std::string size = std::to_string(good.size());
    expect_failure(run({file("a", "")}), 1, path("a") + " is empty");
    expect_failure(run({file("a", good + good.substr(0, 100))}), 1,
                   path("a") + ", at byte " + size + ": the input ends within a message of " +
                       std::to_string(good.size() - 2) + " bytes, of which 98 are there");
    expect_failure(run({file("a", good + "\xff\xff\xff\xff")}), 1,
                   path("a") + ", at byte " + size + ": a message of more than 1048576 bytes");
    expect_failure(run({file("a", "#!/bin/sh\n# some other file, longer than its first byte\n")}),
                   1, path("a") + ", at byte 1: the message of 35 bytes is no snapshot");
}

TEST_F(UmbraStat, AFileInEachForm) {
    const snapshot::Snapshot earlier = filled_snapshot();
    const snapshot::Snapshot last = filled_snapshot(1000);
    const std::string name = file("a", delimited(earlier) + delimited(last));
    EXPECT_EQ(run({"--json", name}).output, telemetry::to_json(snapshot::record(last)) + "\n");
    EXPECT_EQ(run({"--once", name}).output, joined(page({.now = last, .change = last})));
    const Result metrics = run({"--openmetrics", name});
    EXPECT_EQ(metrics.output, to_open_metrics(last));
    EXPECT_EQ(testing::judge_metrics({metrics.output}), std::vector<std::string>{""});
    EXPECT_EQ(run({"--json", "-"}, delimited(last)).output,
              telemetry::to_json(snapshot::record(last)) + "\n");
}

TEST_F(UmbraStat, TheDifferenceOfTwoFiles) {
    const snapshot::Snapshot earlier = filled_snapshot();
    snapshot::Snapshot later = earlier;
    later.taken_ns += 2'000'000'000;
    later.invalidations.queue.iotlb_page += 5000;
    const std::string a = file("a", delimited(earlier));
    const std::string b = file("b", delimited(later));
    EXPECT_EQ(run({"--diff", "--json", a, b}).output,
              telemetry::to_json(snapshot::record(difference(earlier, later))) + "\n");
    const Result text = run({"--diff", a, b});
    EXPECT_NE(text.output.find("5,000           2,500\n"), std::string::npos) << text.output;
    later.unit = "other";
    expect_failure(run({"--diff", a, file("c", delimited(later))}), 1, "different units");
}

TEST_F(UmbraStat, AStreamThatIsNoTerminalIsALineAMessage) {
    snapshot::Snapshot now = testing::empty_snapshot();
    now.taken_ns = 1;
    Program program({"-"});
    program.send(delimited(now));
    EXPECT_EQ(program.line(), line_heading());
    const snapshot::Snapshot before = now;
    now.taken_ns += 500'000'000;
    now.invalidations.queue.iotlb_domain = 70;
    // In two pieces.
    const std::string bytes = delimited(now);
    program.send(bytes.substr(0, 10));
    program.send(bytes.substr(10));
    EXPECT_EQ(program.line(),
              line({.now = now, .change = difference(before, now), .seconds = 0.5}));
    const Result result = program.finish();
    EXPECT_EQ(result.status, 0) << result.errors;
    EXPECT_EQ(result.output, "");
}

TEST_F(UmbraStat, AStreamAsJson) {
    const snapshot::Snapshot one = filled_snapshot();
    const snapshot::Snapshot two = filled_snapshot(7);
    EXPECT_EQ(run({"--json", "-"}, delimited(one) + delimited(two)).output,
              telemetry::to_json(snapshot::record(one)) + "\n" +
                  telemetry::to_json(snapshot::record(two)) + "\n");
    EXPECT_EQ(run({"--json", "--once", "-"}, delimited(one) + delimited(two)).output,
              telemetry::to_json(snapshot::record(one)) + "\n");
}

TEST_F(UmbraStat, AStreamThatEndsTooEarly) {
    const std::string good = delimited(testing::empty_snapshot());
    expect_failure(run({"-"}), 1, "standard input ended without a message");
    const Result result = run({"-"}, good + good.substr(0, 3));
    EXPECT_EQ(result.status, 1);
    EXPECT_NE(result.errors.find("standard input, at byte " + std::to_string(good.size()) +
                                 ": the input ends within a message"),
              std::string::npos)
        << result.errors;
}

TEST_F(UmbraStat, EndsAtASignal) {
    for (const int number : {SIGINT, SIGTERM}) {
        Program program({"-"});
        program.send(delimited(testing::empty_snapshot()));
        EXPECT_EQ(program.line(), line_heading());
        program.signal(number);
        // Its input goes on until it has ended.
        EXPECT_EQ(program.finish().status, 0);
    }
}

// A listening socket that sends some bytes to whoever connects.
class Server {
  public:
    Server(const std::string& path, std::string bytes)
        : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
        if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
            ::listen(listener_, 1) != 0) {
            throw std::system_error(errno, std::generic_category(), "listening at " + path);
        }
        thread_ = std::thread([this, bytes = std::move(bytes)] {
            const int peer = ::accept(listener_, nullptr, nullptr);
            (void)!::write(peer, bytes.data(), bytes.size());
            char byte = 0;
            (void)!::read(peer, &byte, 1);  // until it goes away
            ::close(peer);
        });
    }
    ~Server() {
        thread_.join();
        ::close(listener_);
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

  private:
    int listener_;
    std::thread thread_;
};

TEST_F(UmbraStat, OneSnapshotOfASocket) {
    const snapshot::Snapshot data = filled_snapshot();
    for (const char* prefix : {"", "unix:"}) {
        const std::string name = path(std::string("socket") + (*prefix != '\0' ? "1" : "2"));
        const Server server(name, delimited(data));
        EXPECT_EQ(run({"--once", "--json", prefix + name}).output,
                  telemetry::to_json(snapshot::record(data)) + "\n");
    }
}

TEST_F(UmbraStat, ASocketThatSaysNothingWhole) {
    const Server server(path("socket"), delimited(filled_snapshot()).substr(0, 50));
    expect_failure(run({"--once", "--timeout", "1", path("socket")}), 3,
                   path("socket") + " sent no whole message within 1 s");
}

// The program on a terminal of its own.
class TerminalSession {
  public:
    explicit TerminalSession(std::string source) : master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
        if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) {
            throw std::system_error(errno, std::generic_category(), "a pseudo-terminal");
        }
        slave_ = ::open(::ptsname(master_), O_RDWR | O_NOCTTY | O_CLOEXEC);
        std::string program = UMBRA_STAT;
        const std::array<char*, 3> words = {program.data(), source.data(), nullptr};
        child_ = ::fork();
        if (child_ == 0) {
            for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
                ::dup2(slave_, standard);
            }
            ::execv(words[0], words.data());
            ::_exit(127);
        }
    }
    ~TerminalSession() {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
        ::close(slave_);
        ::close(master_);
    }
    TerminalSession(const TerminalSession&) = delete;
    TerminalSession& operator=(const TerminalSession&) = delete;

    // Reads the screen until it has shown `text`.
    void wait_for(const std::string& text) {
        while (shown_.find(text) == std::string::npos) {
            std::array<char, 4096> bytes{};
            const ssize_t size = ::read(master_, bytes.data(), bytes.size());
            ASSERT_GT(size, 0) << "no \"" << text << "\" in " << shown_;
            shown_.append(bytes.data(), static_cast<std::size_t>(size));
        }
    }
    void press(char key) const { ASSERT_EQ(::write(master_, &key, 1), 1); }
    void signal(int number) const { ::kill(child_, number); }
    int wait_exit() {
        int status = 0;
        ::waitpid(child_, &status, 0);
        child_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    [[nodiscard]] tcflag_t modes() const {
        termios settings{};
        ::tcgetattr(slave_, &settings);
        return settings.c_lflag;
    }

  private:
    int master_;
    int slave_ = -1;
    pid_t child_ = -1;
    std::string shown_;
};

TEST_F(UmbraStat, TheLiveViewLeavesTheTerminalAsItWas) {
    int round = 0;
    for (const bool by_key : {true, false}) {
        const std::string name = path("socket" + std::to_string(round++));
        const Server server(name, delimited(filled_snapshot()));
        TerminalSession session(name);
        const tcflag_t before = session.modes() | ICANON | ECHO;
        session.wait_for("umbra-stat  viommu");
        EXPECT_EQ(session.modes() & (ICANON | ECHO), 0u);
        if (by_key) {
            session.press('x');
            session.press('q');
        } else {
            session.signal(SIGTERM);
        }
        EXPECT_EQ(session.wait_exit(), 0);
        session.wait_for("\x1b[?1049l");
        EXPECT_EQ(session.modes(), before);
    }
}

}  // namespace
}  // namespace umbra::tools
