// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/qtest/qtest_machine.h"

#include <sys/mman.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>

namespace umbra::qtest {

namespace {

std::string hexadecimal(std::uint64_t value) {
    std::ostringstream text;
    text << "0x" << std::hex << value;
    return text.str();
}

unsigned hex_digit(char digit) {
    return static_cast<unsigned>(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
}

std::uint32_t config_address(SourceId function, unsigned offset) {
    return 0x8000'0000u | static_cast<std::uint32_t>(function.value()) << 8 | (offset & 0xfcu);
}

std::span<std::byte> map_shared(const FileDescriptor& file, std::size_t size) {
    if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
        throw std::system_error(errno, std::generic_category(), "ftruncate of guest RAM");
    }
    void* address =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file.get(), 0);
    if (address == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(), "mmap of guest RAM");
    }
    return {static_cast<std::byte*>(address), size};
}

}  // namespace

QtestMachine::QtestMachine(const MachineOptions& options)
    : options_(options), ram_file_(memory_file("guest-ram")) {
    const std::size_t size = std::size_t{options.memory_mib} << 20;
    ram_ = map_shared(ram_file_, size);

    FileDescriptor qtest_peer;
    FileDescriptor qmp_peer;
    qtest_ = std::make_unique<LineSocket>(qtest_peer);
    qmp_ = std::make_unique<LineSocket>(qmp_peer);

    std::vector<std::string> arguments = base_arguments();
    arguments.insert(
        arguments.end(),
        {"-M", options.machine + ",memory-backend=ram", "-m",
         std::to_string(options.memory_mib) + "M", "-smp", std::to_string(options.cpus), "-object",
         "memory-backend-file,id=ram,share=on,size=" + std::to_string(options.memory_mib) +
             "M,mem-path=/proc/self/fd/" + std::to_string(ram_file_.get()),
         "-chardev", "socket,id=qtest-socket,fd=" + std::to_string(qtest_peer.get()), "-object",
         "qtest,id=qtest,chardev=qtest-socket,log=/dev/null", "-chardev",
         "socket,id=qmp-socket,fd=" + std::to_string(qmp_peer.get()), "-mon",
         "chardev=qmp-socket,mode=control"});
    append_devices(arguments, options);

    const std::array<int, 3> inherited = {ram_file_.get(), qtest_peer.get(), qmp_peer.get()};
    child_ = std::make_unique<ChildProcess>(arguments, inherited);
    qtest_peer.reset();
    qmp_peer.reset();
    try {
        static_cast<void>(qmp_->receive(answer_limit_));  // the greeting
    } catch (const TransportError& error) {
        throw with_output(error);
    }
    qmp_ok(R"({"execute": "qmp_capabilities"})");
}

QtestMachine::~QtestMachine() {
    child_.reset();
    ::munmap(ram_.data(), ram_.size());
}

TransportError QtestMachine::with_output(const TransportError& error) const {
    std::string text = error.what();
    text += "; it printed:\n" + child_->output();
    return TransportError{text};
}

std::string QtestMachine::command(std::string_view text) {
    try {
        qtest_->send(text);
        std::string answer = qtest_->receive(answer_limit_);
        if (answer.rfind("OK", 0) != 0) {
            throw TransportError("qtest answered \"" + answer + "\" to \"" +
                                 std::string(text.substr(0, 60)) + "\"");
        }
        return answer.size() > 3 ? answer.substr(3) : std::string();
    } catch (const TransportError& error) {
        throw with_output(error);
    }
}

std::uint64_t QtestMachine::load64(Gpa address) const {
    std::uint64_t value = 0;
    std::memcpy(&value, ram_.subspan(address.value(), sizeof(value)).data(), sizeof(value));
    return value;
}

void QtestMachine::store64(Gpa address, std::uint64_t value) {
    auto* target = ram_.subspan(address.value(), sizeof(value)).data();
    // One store, as a CPU's: a device may read the entry at any moment.
    std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(target))
        .store(value, std::memory_order_release);
}

void QtestMachine::fill(Gpa address, std::size_t length, std::byte value) {
    std::ranges::fill(ram_.subspan(address.value(), length), value);
}

std::uint32_t QtestMachine::read32(std::uint64_t address) {
    return static_cast<std::uint32_t>(
        std::stoull(command("readl " + hexadecimal(address)), nullptr, 16));
}

std::uint64_t QtestMachine::read64(std::uint64_t address) {
    return std::stoull(command("readq " + hexadecimal(address)), nullptr, 16);
}

void QtestMachine::write32(std::uint64_t address, std::uint32_t value) {
    command("writel " + hexadecimal(address) + " " + hexadecimal(value));
}

void QtestMachine::write64(std::uint64_t address, std::uint64_t value) {
    command("writeq " + hexadecimal(address) + " " + hexadecimal(value));
}

void QtestMachine::read_bytes(std::uint64_t address, std::span<std::byte> into) {
    const std::string text =
        command("read " + hexadecimal(address) + " " + hexadecimal(into.size()));
    if (text.size() != 2 + into.size() * 2) {
        throw TransportError("qtest returned " + std::to_string(text.size()) + " characters");
    }
    for (std::size_t i = 0; i < into.size(); i++) {
        into[i] =
            static_cast<std::byte>(hex_digit(text[2 + 2 * i]) << 4 | hex_digit(text[3 + 2 * i]));
    }
}

void QtestMachine::write_bytes(std::uint64_t address, std::span<const std::byte> from) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text = "write " + hexadecimal(address) + " " + hexadecimal(from.size()) + " 0x";
    for (const std::byte byte : from) {
        text.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
        text.push_back(kDigits[std::to_integer<unsigned>(byte) & 0xf]);
    }
    command(text);
}

std::uint32_t QtestMachine::config_read32(SourceId function, unsigned offset) {
    command("outl 0xcf8 " + hexadecimal(config_address(function, offset)));
    return static_cast<std::uint32_t>(std::stoull(command("inl 0xcfc"), nullptr, 16));
}

void QtestMachine::config_write32(SourceId function, unsigned offset, std::uint32_t value) {
    command("outl 0xcf8 " + hexadecimal(config_address(function, offset)));
    command("outl 0xcfc " + hexadecimal(value));
}

std::uint16_t QtestMachine::config_read16(SourceId function, unsigned offset) {
    command("outl 0xcf8 " + hexadecimal(config_address(function, offset)));
    return static_cast<std::uint16_t>(
        std::stoull(command("inw " + hexadecimal(0xcfc + (offset & 2))), nullptr, 16));
}

void QtestMachine::config_write16(SourceId function, unsigned offset, std::uint16_t value) {
    command("outl 0xcf8 " + hexadecimal(config_address(function, offset)));
    command("outw " + hexadecimal(0xcfc + (offset & 2)) + " " + hexadecimal(value));
}

unsigned QtestMachine::find_capability(SourceId function, unsigned id) {
    constexpr unsigned kCapabilityPointer = 0x34;
    unsigned offset = config_read32(function, kCapabilityPointer) & 0xfc;
    // 48 capabilities fill the space; a longer list is a loop.
    for (unsigned steps = 0; offset != 0 && steps < 48; steps++) {
        const std::uint32_t header = config_read32(function, offset);
        if ((header & 0xff) == id) {
            return offset;
        }
        offset = header >> 8 & 0xfc;
    }
    return 0;
}

std::string QtestMachine::qmp(std::string_view command) {
    try {
        qmp_->send(command);
        for (;;) {
            std::string line = qmp_->receive(answer_limit_);
            // Each other line is an event.
            if (line.rfind(R"({"return")", 0) == 0 || line.rfind(R"({"error")", 0) == 0) {
                return line;
            }
        }
    } catch (const TransportError& error) {
        throw with_output(error);
    }
}

Json QtestMachine::qmp_ok(std::string_view command) {
    const std::string answer = qmp(command);
    if (answer.rfind(R"({"return")", 0) != 0) {
        throw TransportError("QMP answered " + answer + " to " + std::string(command));
    }
    return Json::parse(answer).at("return");
}

Json QtestMachine::property(std::string_view object, std::string_view name) {
    return qmp_ok(R"({"execute": "qom-get", "arguments": {"path": ")" + std::string(object) +
                  R"(", "property": ")" + std::string(name) + R"("}})");
}

std::string qom_set(std::string_view object, std::string_view name, std::string_view value) {
    return R"({"execute": "qom-set", "arguments": {"path": ")" + std::string(object) +
           R"(", "property": ")" + std::string(name) + R"(", "value": )" + std::string(value) +
           "}}";
}

void QtestMachine::set_property(std::string_view object, std::string_view name,
                                std::string_view value) {
    qmp_ok(qom_set(object, name, value));
}

std::string QtestMachine::monitor(std::string_view command) {
    return qmp_ok(R"({"execute": "human-monitor-command", "arguments": {"command-line": ")" +
                  std::string(command) + R"("}})")
        .get<std::string>();
}

std::vector<unsigned> QtestMachine::pending_vectors(unsigned cpu) {
    const std::string text = monitor("info lapic " + std::to_string(cpu));
    const std::size_t label = text.find("IRR");
    if (label == std::string::npos) {
        throw TransportError("the monitor printed no IRR: " + text);
    }
    const std::size_t begin = label + 3;
    std::istringstream words(text.substr(begin, text.find('\n', begin) - begin));
    std::vector<unsigned> vectors;
    for (unsigned vector = 0; words >> vector;) {
        vectors.push_back(vector);
        // A level-triggered vector has a mark behind its number.
        if (words.peek() == '(') {
            std::string mark;
            words >> mark;
        }
    }
    return vectors;
}

void QtestMachine::set_irq(std::string_view device, unsigned line, bool level) {
    command("set_irq_in " + std::string(device) + " unnamed-gpio-in " + std::to_string(line) +
            (level ? " 1" : " 0"));
}

void QtestMachine::step_clock(std::chrono::nanoseconds by) {
    command("clock_step " + std::to_string(by.count()));
}

void QtestMachine::finish_unplugging() {
    // QEMU runs all deferred callbacks (RCU) before it answers that it cannot add a device.
    (void)qmp(R"({"execute": "device_add", "arguments": {"driver": "no-such-device"}})");
}

void QtestMachine::system_reset() {
    try {
        qmp_->send(R"({"execute": "system_reset"})");
        // QEMU answers when it has taken note of the request; the event says that it is done.
        while (qmp_->receive(answer_limit_).find(R"("event": "RESET")") == std::string::npos) {
        }
    } catch (const TransportError& error) {
        throw with_output(error);
    }
}

void QtestMachine::quit() {
    try {
        qmp_->send(R"({"execute": "quit"})");
        if (!child_->wait_exit(answer_limit_)) {
            throw TransportError("QEMU does not quit");
        }
    } catch (const TransportError& error) {
        throw with_output(error);
    }
}

bool QtestMachine::runs() {
    return !child_->wait_exit(std::chrono::milliseconds(0));
}

std::uint64_t QtestMachine::anonymous_bytes() const {
    constexpr std::string_view kField = "RssAnon:";
    std::ifstream status("/proc/" + std::to_string(child_->pid()) + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(kField)) {
            return std::stoull(line.substr(kField.size())) << 10;
        }
    }
    throw TransportError("the kernel does not say how much memory QEMU has");
}

}  // namespace umbra::qtest
