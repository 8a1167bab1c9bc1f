// SPDX-License-Identifier: GPL-2.0-or-later
//
// The files that the schema compiler makes: C++ text, laid out for people, who meet it in their
// debugger and in messages of the compiler.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "plugin/telemetry/compiler/model.h"

namespace umbra::schema_compiler {

// The first lines of every file.
inline constexpr const char* kNotice =
    "// SPDX-License-Identifier: GPL-2.0-or-later\n"
    "// Made from umbra.proto by schema_compiler.\n";

// counter_types.h: the structs that the engine counts in, and the enumerations that index them.
void write_counter_types(std::ostream& out, const std::vector<const Descriptor*>& messages);

// snapshot_types.h: the structs of a snapshot, and how what was counted gets into them.
void write_snapshot_types(std::ostream& out, const std::vector<const Descriptor*>& messages);

// snapshot_types.cc: their tables (schema.h). `header` is the name of snapshot_types.h.
void write_snapshot_tables(std::ostream& out, const std::string& header,
                           const std::vector<const Descriptor*>& messages);

// A struct's functions that take its members by a value of the enumeration that indexes it; none
// if there is no such enumeration. `member` is the type of its members.
void write_index(std::ostream& out, const Descriptor& message, const std::string& name,
                 const std::string& member);

}  // namespace umbra::schema_compiler
