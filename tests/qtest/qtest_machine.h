// SPDX-License-Identifier: GPL-2.0-or-later
//
// A q35 machine that runs no guest code. QEMU's qtest protocol puts the test in the place of the
// CPU: it reads and writes physical memory, device registers and PCI configuration space.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/vtd/types.h"
#include "tests/qtest/child_process.h"
#include "tests/qtest/line_socket.h"
#include "tests/qtest/machine_options.h"
#include "tests/support/driver/memory.h"

namespace umbra::qtest {

// Declared only: a file that looks into a value includes <nlohmann/json.hpp>.
using Json = nlohmann::json;

// The QOM path of the vIOMMU of every QtestMachine that has one.
inline constexpr std::string_view kViommuPath = "/machine/peripheral/viommu";

// The QMP command that sets a property of an object, by its QOM path. `value` is JSON text.
[[nodiscard]] std::string qom_set(std::string_view object, std::string_view name,
                                  std::string_view value);

// Functions throw TransportError, with QEMU's output in it, if QEMU ends or does not answer.
class QtestMachine : public driver::Memory {
  public:
    explicit QtestMachine(const MachineOptions& options);
    ~QtestMachine() override;
    QtestMachine(const QtestMachine&) = delete;
    QtestMachine& operator=(const QtestMachine&) = delete;

    [[nodiscard]] const MachineOptions& options() const { return options_; }
    // The longest time that one answer may take before TransportError. The default is 60 s.
    void set_answer_limit(std::chrono::milliseconds limit) { answer_limit_ = limit; }

    // Guest RAM from address 0, shared with QEMU. An access here costs no round trip, and devices
    // see a write as they see a CPU's.
    [[nodiscard]] std::span<std::byte> ram() { return ram_; }
    [[nodiscard]] std::uint64_t load64(Gpa address) const override;
    void store64(Gpa address, std::uint64_t value) override;
    void fill(Gpa address, std::size_t length, std::byte value);

    // Device registers, by physical address.
    [[nodiscard]] std::uint32_t read32(std::uint64_t address);
    [[nodiscard]] std::uint64_t read64(std::uint64_t address);
    void write32(std::uint64_t address, std::uint32_t value);
    void write64(std::uint64_t address, std::uint64_t value);
    void read_bytes(std::uint64_t address, std::span<std::byte> into);
    void write_bytes(std::uint64_t address, std::span<const std::byte> from);

    // PCI configuration space through ports 0xcf8 and 0xcfc. `offset` is below 256; 32-bit accesses
    // are aligned.
    [[nodiscard]] std::uint32_t config_read32(SourceId function, unsigned offset);
    void config_write32(SourceId function, unsigned offset, std::uint32_t value);
    [[nodiscard]] std::uint16_t config_read16(SourceId function, unsigned offset);
    void config_write16(SourceId function, unsigned offset, std::uint16_t value);

    // Offset of a PCI capability; 0 if the function has none with this id.
    [[nodiscard]] unsigned find_capability(SourceId function, unsigned id);

    // Sends a QMP command (a JSON object) and returns the line of the answer, with "return" or
    // "error" in it. Events before the answer are dropped.
    [[nodiscard]] std::string qmp(std::string_view command);
    // The value that the command returns. Throws TransportError if the answer is an error.
    Json qmp_ok(std::string_view command);
    // A property of an object, by its QOM path. `value` is JSON text.
    [[nodiscard]] Json property(std::string_view object, std::string_view name);
    void set_property(std::string_view object, std::string_view name, std::string_view value);
    // Runs a command of the human monitor and returns its text.
    [[nodiscard]] std::string monitor(std::string_view command);

    // Vectors that are pending (IRR) in the local APIC of a CPU.
    [[nodiscard]] std::vector<unsigned> pending_vectors(unsigned cpu = 0);

    // Drives an input line of a device, by its QOM path.
    void set_irq(std::string_view device, unsigned line, bool level);

    // Lets QEMU's virtual clock advance. Timers of devices that are due run.
    void step_clock(std::chrono::nanoseconds by);

    // Waits until what was unplugged is gone for good: QEMU finalizes devices, and destroys their
    // address spaces, some time after they have left.
    void finish_unplugging();

    void system_reset();

    // Ends QEMU as an operator would, and waits until it has ended.
    void quit();

    [[nodiscard]] pid_t pid() const { return child_->pid(); }
    [[nodiscard]] std::string output() const { return child_->output(); }
    [[nodiscard]] bool runs();
    // The kernel's count of QEMU's anonymous memory. Guest RAM is a file and not counted.
    [[nodiscard]] std::uint64_t anonymous_bytes() const;

  private:
    std::string command(std::string_view text);
    [[nodiscard]] TransportError with_output(const TransportError& error) const;

    MachineOptions options_;
    std::chrono::milliseconds answer_limit_ = std::chrono::seconds(60);
    FileDescriptor ram_file_;
    std::span<std::byte> ram_;
    std::unique_ptr<LineSocket> qtest_;
    std::unique_ptr<LineSocket> qmp_;
    std::unique_ptr<ChildProcess> child_;
};

}  // namespace umbra::qtest
