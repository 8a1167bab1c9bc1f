// SPDX-License-Identifier: GPL-2.0-or-later
//
// A machine around the C face of the bridge, without QEMU: guest memory with tables for one device,
// 00:00.0 in domain 1 (three levels), an invalidation queue, and the functions that QEMU's side
// provides. What the unit asks of those is written down in order.
//
// The layout of registers, tables and descriptors is this file's own, from the specification.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "plugin/bridge/ram.h"
#include "plugin/bridge/shadow.h"
#include "plugin/bridge/unit.h"

namespace umbra::testing {

class BridgeMachine {
  public:
    static constexpr std::uint64_t kPage = 0x1000;
    static constexpr std::uint64_t kRoot = 1 * kPage;
    static constexpr std::uint64_t kContexts = 2 * kPage;
    static constexpr std::uint64_t kTop =
        3 * kPage;  // and the levels below it in the pages after it
    static constexpr std::uint64_t kLeaves = 5 * kPage;
    static constexpr std::uint64_t kQueue = 8 * kPage;
    static constexpr std::uint64_t kStatus = 9 * kPage;
    static constexpr std::uint64_t kData = 16 * kPage;
    static constexpr std::uint64_t kMemory = 32 * kPage;
    static constexpr std::uint64_t kReadWrite = 3;

    // Not translating yet.
    explicit BridgeMachine(bool stop_on_map_error = false) : memory_(kMemory) {
        const UmbraUnitProperties properties = {.caching_mode = true,
                                                .address_width = 39,
                                                .host_address_width = 40,
                                                .dma_translation = true,
                                                .interrupt_remapping = true,
                                                .extended_interrupt_mode = false,
                                                .pass_through = true,
                                                .device_iotlb = true,
                                                .snoop_control = false};
        const UmbraShadowOptions options = {.coalesce = true,
                                            .stop_on_map_error = stop_on_map_error,
                                            .max_mappings = 1000,
                                            .max_tables = 1000,
                                            .slice_us = 0};
        const UmbraPlatform functions = platform();
        unit = umbra_unit_new(&properties, &options, &functions);
        const UmbraRamRange ram = {0, kMemory, memory_.data(), true};
        umbra_ram_map_free(umbra_unit_swap_ram_map(unit, umbra_ram_map_new(&ram, 1)));
        const UmbraHostMapper mapper = host_mapper();
        device_ = umbra_shadow_add(unit, &mapper);
        journal.clear();
    }
    ~BridgeMachine() {
        umbra_shadow_remove(unit, device_);
        umbra_unit_free(unit);
    }
    BridgeMachine(const BridgeMachine&) = delete;
    BridgeMachine& operator=(const BridgeMachine&) = delete;

    void store(std::uint64_t address, std::uint64_t value) {
        std::memcpy(memory_.data() + address, &value, sizeof(value));
    }
    // What the last wait descriptor that completed wrote.
    [[nodiscard]] std::uint32_t status() const {
        std::uint32_t value = 0;
        std::memcpy(&value, memory_.data() + kStatus, sizeof(value));
        return value;
    }

    // Switches queue and translation on.
    void translate() {
        store(kRoot, kContexts | 1);
        store(kContexts, kTop | 1);
        store(kContexts + 8, 1u << 8 | 1);
        store(kTop, (kTop + kPage) | kReadWrite);
        store(kTop + kPage, kLeaves | kReadWrite);
        umbra_unit_mmio_write(unit, 0x20, kRoot, 8);
        umbra_unit_mmio_write(unit, 0x18, 1u << 30, 4);
        umbra_unit_mmio_write(unit, 0x90, kQueue, 8);
        umbra_unit_mmio_write(unit, 0x18, 1u << 26, 4);
        umbra_unit_mmio_write(unit, 0x18, 1u << 26 | 1u << 31, 4);
    }
    // Makes leaf entry `page` lead to a page of its own.
    void set_leaf(std::uint64_t page) {
        store(kLeaves + page * 8, (kData + page * 2 * kPage) | kReadWrite);
    }
    // Puts a descriptor into the queue, and leaves the tail where it is.
    void put(std::uint64_t low, std::uint64_t high) {
        store(kQueue + tail_, low);
        store(kQueue + tail_ + 8, high);
        tail_ += 16;
    }
    void put_wait(std::uint32_t status) {
        put(0x5 | 1u << 5 | std::uint64_t{status} << 32, kStatus);
    }
    void ring() { umbra_unit_mmio_write(unit, 0x88, tail_, 8); }
    // Maps the page, and waits for its invalidation with `status`.
    void map(std::uint64_t page, std::uint32_t status) {
        set_leaf(page);
        put(0x2 | 3u << 4 | 1u << 16, page * kPage);
        put_wait(status);
        ring();
    }

    UmbraUnit* unit = nullptr;
    // Calls of the unit, with the status that the guest saw at that time in front.
    std::vector<std::string> journal;
    std::vector<std::string> told;  // sentences for the operator
    bool refuses = false;           // the host refuses maps
    std::size_t mapped = 0;
    unsigned stops = 0;

  private:
    static BridgeMachine& self(void* opaque) { return *static_cast<BridgeMachine*>(opaque); }

    void note(const std::string& line) { journal.push_back(std::to_string(status()) + " " + line); }
    static std::string text(const UmbraScope& scope) {
        switch (scope.kind) {
            case UMBRA_SCOPE_GLOBAL:
                return "global";
            case UMBRA_SCOPE_DOMAIN:
                return "domain " + std::to_string(scope.domain);
            case UMBRA_SCOPE_DEVICE:
                return "domain " + std::to_string(scope.domain) + " device " +
                       std::to_string(scope.source) + "/" + std::to_string(scope.function_mask);
            case UMBRA_SCOPE_PAGES:
                break;
        }
        return "domain " + std::to_string(scope.domain) + " " + text(scope.first, scope.last);
    }
    static std::string text(std::uint64_t first, std::uint64_t last) {
        return std::to_string(first) + "-" + std::to_string(last);
    }

    UmbraPlatform platform() {
        return {
            .opaque = this,
            .write_memory =
                [](void* opaque, uint64_t address, const void* from, size_t size) {
                    std::memcpy(self(opaque).memory_.data() + address, from, size);
                    return true;
                },
            .send_message = [](void* opaque, uint64_t, uint32_t) { self(opaque).note("message"); },
            .translation_changed = [](void* opaque) { self(opaque).note("translation"); },
            .contexts_changed =
                [](void* opaque, const UmbraScope* scope) {
                    self(opaque).note("contexts " + text(*scope));
                },
            .iotlb_changed =
                [](void* opaque, const UmbraScope* scope) {
                    self(opaque).note("iotlb " + text(*scope));
                },
            .device_tlb_changed =
                [](void* opaque, uint16_t source, uint64_t first, uint64_t last) {
                    self(opaque).note("device-tlb " + std::to_string(source) + " " +
                                      text(first, last));
                },
            .interrupt_remapping_changed =
                [](void* opaque) { self(opaque).note("interrupt-remapping"); },
            .interrupt_entries_changed =
                [](void* opaque) { self(opaque).note("interrupt-entries"); },
            .report = [](void* opaque, bool,
                         const char* sentence) { self(opaque).told.emplace_back(sentence); },
            .stop_machine = [](void* opaque) { ++self(opaque).stops; },
            .work_left = [](void* opaque) { self(opaque).note("work-left"); },
            .qom_path = "/the/unit",
        };
    }

    UmbraHostMapper host_mapper() {
        return {
            .opaque = this,
            .source = [](void*) -> uint16_t { return 0; },
            .map = [](void* opaque, const UmbraHostMapping* mappings, size_t count,
                      int* error) -> size_t {
                if (self(opaque).refuses) {
                    *error = ENOMEM;
                    return 0;
                }
                self(opaque).mapped += count;
                std::for_each(mappings, mappings + count, [&](const UmbraHostMapping& mapping) {
                    self(opaque).note("map " +
                                      text(mapping.iova, mapping.iova + mapping.bytes - 1));
                });
                return count;
            },
            .unmap =
                [](void* opaque, uint64_t iova, uint64_t bytes) {
                    self(opaque).note("unmap " + text(iova, iova + bytes - 1));
                    return 0;
                },
            .set_mode =
                [](void* opaque, UmbraDmaMode mode) {
                    self(opaque).note("mode " + std::to_string(mode));
                },
            .usable = nullptr,
            .usable_count = 0,
            .write_implies_read = false,
        };
    }

    std::vector<std::uint8_t> memory_;
    UmbraShadowDevice* device_ = nullptr;
    std::uint64_t tail_ = 0;
};

}  // namespace umbra::testing
