// SPDX-License-Identifier: GPL-2.0-or-later
//
// Snapshots that leave QEMU: stats-file and stats-chardev.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "plugin/telemetry/json.h"
#include "plugin/tools/decode.h"
#include "plugin/tools/framing.h"
#include "tests/qtest/viommu_test.h"
#include "tests/support/temporary_folder.h"

namespace umbra::qtest {
namespace {

namespace fs = std::filesystem;
namespace snapshot = telemetry::snapshot;
using tools::Frame;
using tools::FrameReader;

// Far from what any step takes.
constexpr int kLimitMs = 60'000;

snapshot::Snapshot read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    FrameReader reader;
    reader.feed(std::string(std::istreambuf_iterator<char>(file), {}));
    const std::optional<Frame> frame = reader.next();
    if (!frame) {
        throw TransportError(path + " holds no message");
    }
    reader.finish();
    return tools::decode(*frame);
}

MachineOptions with_file(const std::string& path) {
    return {.viommu = Viommu::umbra, .viommu_properties = ",stats-file=" + path};
}

// Some work for the counters.
void invalidate(Rig& rig) {
    SecondStage table = rig.driver.new_table();
    table.map_pages(Iova(0x4000'0000), kData, 4);
    rig.driver.attach(kProbe, table, kDomain);
    rig.driver.enable_translation();
    const std::vector<Descriptor> descriptors = {
        Descriptor::iotlb_domain(kDomain),
        Descriptor::iotlb_global(),
        Descriptor::iotlb_pages(kDomain, Iova(0x4000'0000), 1),
    };
    ASSERT_TRUE(rig.driver.submit(descriptors));
}

class StatsFile : public QemuTest {
  protected:
    testing::TemporaryFolder folder;
};

TEST_F(StatsFile, IsWrittenAtExit) {
    const std::string path = folder.file("umbra.stats");
    {
        Rig rig(with_file(path));
        invalidate(rig);
        EXPECT_FALSE(fs::exists(path));
        rig.machine.quit();
    }
    const snapshot::Snapshot written = read_file(path);
    EXPECT_EQ(written.version, 1u);
    EXPECT_EQ(written.unit, "viommu");
    EXPECT_EQ(written.sequence, 1u);
    EXPECT_EQ(written.interval_ns, 0u);
    EXPECT_EQ(written.invalidations.queue.iotlb_page, 1u);
    EXPECT_GE(written.invalidations.queue.iotlb_global, 1u);
    EXPECT_GE(written.taken_ns, written.counting_since_ns);
    EXPECT_EQ(folder.names(), std::vector<std::string>{"umbra.stats"}) << "nothing is left beside";
}

TEST_F(StatsFile, IsWrittenOnDemandWithWhatQomGetSays) {
    const std::string path = folder.file("umbra.stats");
    Rig rig(with_file(path));
    invalidate(rig);
    rig.machine.set_property(kViommuPath, "stats-write", "true");
    const Json told = statistics_of(rig.machine);
    snapshot::Snapshot written = read_file(path);
    // A snapshot's number and times are its own.
    written.sequence = 0;
    written.taken_unix_ns =
        static_cast<std::uint64_t>(told.at("taken-unix-ns").get<std::int64_t>());
    written.taken_ns = static_cast<std::uint64_t>(told.at("taken-ns").get<std::int64_t>());
    EXPECT_EQ(Json::parse(telemetry::to_json(snapshot::record(written))), told);

    rig.machine.set_property(kViommuPath, "statistics-clear", "true");
    rig.machine.set_property(kViommuPath, "stats-write", "true");
    const snapshot::Snapshot cleared = read_file(path);
    EXPECT_EQ(cleared.sequence, 2u);
    EXPECT_EQ(cleared.invalidations.queue.iotlb_page, 0u);
    EXPECT_GT(cleared.counting_since_ns, written.counting_since_ns);
}

TEST_F(StatsFile, OnDemandWithoutAPathIsAnError) {
    Rig rig({.viommu = Viommu::umbra});
    const std::string answer = rig.machine.qmp(qom_set(kViommuPath, "stats-write", "true"));
    EXPECT_NE(answer.find("stats-file=PATH"), std::string::npos) << answer;
}

TEST_F(StatsFile, AFailureLeavesTheOldFile) {
    const std::string path = folder.file("umbra.stats");
    Rig rig(with_file(path));
    rig.machine.set_property(kViommuPath, "stats-write", "true");
    // A folder in the way of the file that is written first.
    const std::string beside = path + "." + std::to_string(rig.machine.pid()) + ".tmp";
    fs::create_directory(beside);
    const std::string answer = rig.machine.qmp(qom_set(kViommuPath, "stats-write", "true"));
    EXPECT_NE(answer.find("stats-file=" + path + " cannot be written"), std::string::npos)
        << answer;
    EXPECT_EQ(read_file(path).sequence, 1u);
    fs::remove(beside);
    rig.machine.set_property(kViommuPath, "stats-write", "true");
    EXPECT_EQ(read_file(path).sequence, 2u);
}

// A daemon leaves the folder in which it was started.
TEST_F(StatsFile, ARelativePathIsThatOfTheStart) {
    const fs::path here = fs::current_path();
    fs::current_path(folder.file(""));
    MachineOptions options = with_file("umbra.stats");
    options.arguments = {"-daemonize", "-pidfile", folder.file("pid")};
    const Refusal started = run_refused(options);
    fs::current_path(here);
    ASSERT_EQ(started.status, 0) << started.output;
    pid_t daemon = 0;
    ASSERT_TRUE(std::ifstream(folder.file("pid")) >> daemon);
    ASSERT_GT(daemon, 1);
    ASSERT_EQ(::kill(daemon, SIGTERM), 0);
    // The pid file goes after the statistics were written, or the daemon does not end at all.
    for (int waits = 0; waits < kLimitMs / 10 && fs::exists(folder.file("pid")); waits++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(read_file(folder.file("umbra.stats")).unit, "viommu");
}

TEST_F(StatsFile, PathsThatCannotBeWritten) {
    for (const std::string& path : {folder.file("none/umbra.stats"), folder.file("")}) {
        const Refusal refusal = run_refused(with_file(path));
        EXPECT_EQ(refusal.status, 1) << refusal.output;
        EXPECT_NE(refusal.output.find("stats-file=" + path + " cannot be written"),
                  std::string::npos)
            << refusal.output;
    }
}

// ---- The stream ----

FileDescriptor connect_to(const std::string& path) {
    FileDescriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
        0) {
        throw std::system_error(errno, std::generic_category(), "connect to " + path);
    }
    return socket;
}

// Reads a stream at its own pace.
class Reader {
  public:
    explicit Reader(FileDescriptor socket) : socket_(std::move(socket)) {}

    // The next message. Throws TransportError if there is none within the limit.
    snapshot::Snapshot next() {
        for (;;) {
            if (const std::optional<Frame> frame = frames_.next()) {
                return tools::decode(*frame);
            }
            pollfd waiting{.fd = socket_.get(), .events = POLLIN, .revents = 0};
            std::array<char, 4096> bytes{};
            const ssize_t size = ::poll(&waiting, 1, kLimitMs) == 1
                                     ? ::read(socket_.get(), bytes.data(), bytes.size())
                                     : -1;
            if (size <= 0) {
                throw TransportError("the stream has no message");
            }
            frames_.feed({bytes.data(), static_cast<std::size_t>(size)});
        }
    }
    // Throws InputError if the stream ended within a message.
    void finish() { frames_.finish(); }
    void close() { socket_.reset(); }

  private:
    FileDescriptor socket_;
    FrameReader frames_;
};

MachineOptions with_stream(const std::string& chardev, const std::string& properties) {
    MachineOptions options{.viommu = Viommu::umbra};
    options.viommu_properties = ",stats-chardev=stats" + properties;
    options.arguments = {"-chardev", chardev};
    return options;
}

class StatsStream : public QemuTest {
  protected:
    testing::TemporaryFolder folder;
};

TEST_F(StatsStream, HasAMessageAnInterval) {
    const std::string path = folder.file("stats.sock");
    Rig rig(with_stream("socket,id=stats,server=on,wait=off,path=" + path, ",stats-interval=10"));
    Reader reader(connect_to(path));
    const snapshot::Snapshot first = reader.next();
    EXPECT_EQ(first.sequence, 1u);
    EXPECT_EQ(first.unit, "viommu");
    EXPECT_EQ(first.interval_ns, 10'000'000u);
    EXPECT_EQ(first.invalidations.queue.iotlb_page, 0u);
    invalidate(rig);
    snapshot::Snapshot last = first;
    while (last.invalidations.queue.iotlb_page == 0) {
        const snapshot::Snapshot next = reader.next();
        EXPECT_GT(next.sequence, last.sequence);
        EXPECT_GT(next.taken_ns, last.taken_ns);
        last = next;
    }
    EXPECT_EQ(last.invalidations.queue.iotlb_page, 1u);
}

TEST_F(StatsStream, ASlowReaderLosesWholeMessagesOnly) {
    const std::string path = folder.file("stats.sock");
    Rig rig(with_stream("socket,id=stats,server=on,wait=off,path=" + path, ",stats-interval=10"));
    Reader reader(connect_to(path));
    const snapshot::Snapshot first = reader.next();
    // Reads nothing until the sockets between are full; the device goes on all the while.
    const auto dropped = [&] {
        return statistics_of(rig.machine).at("snapshots-dropped").get<std::int64_t>();
    };
    invalidate(rig);
    while (dropped() < 3) {
        ASSERT_TRUE(rig.driver.submit(Descriptor::iotlb_global()));
    }
    snapshot::Snapshot last = first;
    std::uint64_t missing = 0;
    while (last.snapshots_dropped < 3) {
        const snapshot::Snapshot next = reader.next();
        missing += next.sequence - last.sequence - 1;
        EXPECT_EQ(missing, next.snapshots_dropped) << "each gap is told";
        last = next;
    }
    EXPECT_GE(missing, 3u);
}

TEST_F(StatsStream, AReconnectedReaderBeginsWithAWholeMessage) {
    const std::string path = folder.file("stats.sock");
    Rig rig(with_stream("socket,id=stats,server=on,wait=off,path=" + path, ",stats-interval=10"));
    const auto dropped = [&] {
        return statistics_of(rig.machine).at("snapshots-dropped").get<std::int64_t>();
    };
    std::uint64_t sequence = 0;
    for (int round = 0; round < 3; round++) {
        Reader reader(connect_to(path));
        const snapshot::Snapshot first = reader.next();
        EXPECT_GT(first.sequence, sequence);
        sequence = first.sequence;
        // The reader goes away in the middle of a message.
        const std::int64_t before = dropped();
        while (dropped() == before) {
        }
        reader.close();
    }
}

TEST_F(StatsStream, EndsWithAWholeMessageWhenQemuQuits) {
    const std::string path = folder.file("stats.sock");
    Rig rig(with_stream("socket,id=stats,server=on,wait=off,path=" + path, ",stats-interval=10"));
    Reader reader(connect_to(path));
    EXPECT_EQ(reader.next().sequence, 1u);
    rig.machine.quit();
    EXPECT_THROW(
        for (;;) { (void)reader.next(); }, TransportError);
    EXPECT_NO_THROW(reader.finish());
}

TEST_F(StatsStream, WrongOptions) {
    struct Case {
        std::string chardev;
        std::string properties;
        std::string sentence;
    };
    for (const Case& wrong : {
             Case{"null,id=other", "", "stats-chardev=stats: there is no such character device"},
             Case{"null,id=stats", ",stats-interval=0", "stats-interval=0: use 10 to 3600000"},
             Case{"null,id=stats", ",stats-interval=3600001", "stats-interval=3600001: use 10 to"},
         }) {
        const Refusal refusal = run_refused(with_stream(wrong.chardev, wrong.properties));
        EXPECT_EQ(refusal.status, 1) << refusal.output;
        EXPECT_NE(refusal.output.find(wrong.sentence), std::string::npos) << refusal.output;
    }
    MachineOptions taken = with_stream("null,id=stats", "");
    taken.arguments.insert(taken.arguments.begin(), {"-serial", "chardev:stats"});
    const Refusal refusal = run_refused(taken);
    EXPECT_EQ(refusal.status, 1) << refusal.output;
    EXPECT_NE(refusal.output.find("'stats' is already in use"), std::string::npos)
        << refusal.output;
}

}  // namespace
}  // namespace umbra::qtest
