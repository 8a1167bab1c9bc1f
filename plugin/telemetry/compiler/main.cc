// SPDX-License-Identifier: GPL-2.0-or-later
//
// A step of the build: makes C++ from umbra.proto as protoc has parsed it: the structs that the
// engine counts in, the structs of a snapshot, and their tables (schema.h). Knows as much of
// protobuf as umbra.proto uses, and refuses the rest: messages, enumerations, maps from string to
// number, unsigned numbers and strings.
//
//   schema_compiler umbra.desc FOLDER   writes counter_types.h, snapshot_types.h, snapshot_types.cc
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "plugin/telemetry/compiler/model.h"
#include "plugin/telemetry/compiler/writers.h"

namespace umbra::schema_compiler {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptorSet;

std::ofstream open_output(const std::string& path) {
    std::ofstream file(path);
    file.exceptions(std::ios::badbit | std::ios::failbit);
    return file;
}

void read(const std::string& description, DescriptorPool& pool) {
    FileDescriptorSet set;
    std::ifstream input(description, std::ios::binary);
    if (!set.ParseFromIstream(&input)) {
        throw std::runtime_error("cannot read " + description);
    }
    for (const auto& part : set.file()) {
        if (pool.BuildFile(part) == nullptr) {
            throw std::runtime_error(part.name() + " does not fit together");
        }
    }
}

void compile(const std::string& description, const std::string& folder) {
    DescriptorPool pool;
    read(description, pool);
    const Descriptor* snapshot = pool.FindMessageTypeByName("umbra.telemetry.v1.Snapshot");
    if (snapshot == nullptr) {
        throw std::runtime_error("there is no message Snapshot");
    }
    const std::vector<const Descriptor*> messages = messages_of(*snapshot);
    std::ofstream counters = open_output(folder + "/counter_types.h");
    write_counter_types(counters, messages);
    std::ofstream types = open_output(folder + "/snapshot_types.h");
    write_snapshot_types(types, messages);
    std::ofstream tables = open_output(folder + "/snapshot_types.cc");
    write_snapshot_tables(tables, "snapshot_types.h", messages);
}

}  // namespace
}  // namespace umbra::schema_compiler

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: schema_compiler DESCRIPTORS FOLDER\n";
        return 2;
    }
    try {
        umbra::schema_compiler::compile(argv[1], argv[2]);
    } catch (const std::exception& error) {
        std::cerr << "schema_compiler: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
