// SPDX-License-Identifier: GPL-2.0-or-later
//
// This program loads the plugin as QEMU does, but offers it none of QEMU's functions. The plugin
// must load all the same, refuse, and say what is missing and what to do.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

namespace {

// As qemu_info_t of QEMU's plugin interface.
struct HostInfo {
    const char* target_name;
    struct {
        int min;
        int cur;
    } version;
    bool system_emulation;
    int cpus[2];
};

using Install = int (*)(std::uint64_t id, const HostInfo* info, int argc, char** argv);

class HostCheck : public ::testing::Test {
  protected:
    void SetUp() override {
        plugin_ = dlopen(UMBRA_PLUGIN, RTLD_NOW | RTLD_LOCAL);
        ASSERT_NE(plugin_, nullptr) << dlerror();
        install_ = reinterpret_cast<Install>(dlsym(plugin_, "qemu_plugin_install"));
        ASSERT_NE(install_, nullptr);
    }
    void TearDown() override {
        if (plugin_ != nullptr) {
            dlclose(plugin_);
        }
    }

    std::string refusal_of(const HostInfo& info) {
        testing::internal::CaptureStderr();
        const int result = install_(1, &info, 0, nullptr);
        std::string text = testing::internal::GetCapturedStderr();
        EXPECT_NE(result, 0) << "the plugin accepted a host that is no QEMU";
        EXPECT_NE(text.find("--extra-ldflags=-Wl,--export-dynamic"), std::string::npos) << text;
        return text;
    }

    void* plugin_ = nullptr;
    Install install_ = nullptr;
};

TEST_F(HostCheck, AnnouncesAnInterfaceVersionThatEveryQemuLetsIn) {
    const auto* version = static_cast<const int*>(dlsym(plugin_, "qemu_plugin_version"));
    ASSERT_NE(version, nullptr);
    EXPECT_EQ(*version, 2);
}

TEST_F(HostCheck, NamesMissingSymbols) {
    const std::string text = refusal_of({.target_name = "x86_64",
                                         .version = {2, UMBRA_QEMU_PLUGIN_API},
                                         .system_emulation = true,
                                         .cpus = {1, 1}});
    EXPECT_NE(text.find("does not let plugins see"), std::string::npos) << text;
}

TEST_F(HostCheck, NamesAnotherPluginInterface) {
    const std::string text = refusal_of(
        {.target_name = "x86_64", .version = {2, 99}, .system_emulation = true, .cpus = {1, 1}});
    EXPECT_NE(text.find("This QEMU has plugin API 99"), std::string::npos) << text;
}

TEST_F(HostCheck, NamesAnotherTarget) {
    const std::string text = refusal_of({.target_name = "aarch64",
                                         .version = {2, UMBRA_QEMU_PLUGIN_API},
                                         .system_emulation = true,
                                         .cpus = {1, 1}});
    EXPECT_NE(text.find("aarch64"), std::string::npos) << text;
}

}  // namespace
