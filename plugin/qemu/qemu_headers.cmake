# SPDX-License-Identifier: GPL-2.0-or-later
#
# Defines umbra_qemu_headers: what C code links that is compiled as QEMU compiles its own x86
# devices, with QEMU's internal headers. The flags are those of hw/i386/intel_iommu.c in the QEMU
# build tree: include paths, definitions, language and code generation. Warnings and optimisation
# are this project's own business.

set(database ${UMBRA_QEMU_BUILD}/compile_commands.json)
if(NOT EXISTS ${database} OR NOT EXISTS ${UMBRA_QEMU_SRC}/include/qemu/osdep.h)
    message(FATAL_ERROR
        "UMBRA_QEMU_SRC=${UMBRA_QEMU_SRC} must be a QEMU source tree, and "
        "UMBRA_QEMU_BUILD=${UMBRA_QEMU_BUILD} a build tree configured from it, with a "
        "compile_commands.json.")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${database})

file(STRINGS ${database} command REGEX "\"command\":.*hw_i386_intel_iommu\\.c\\.o ")
list(LENGTH command found)
if(NOT found EQUAL 1)
    message(FATAL_ERROR "${database} does not say how hw/i386/intel_iommu.c is compiled: "
        "configure QEMU with --target-list=x86_64-softmmu.")
endif()
string(REGEX REPLACE "^ *\"command\": *\"(.*)\",? *$" "\\1" command "${command}")
string(REPLACE "\\\"" "\"" command "${command}")
string(REPLACE "\\\\" "\\" command "${command}")
separate_arguments(words UNIX_COMMAND "${command}")

# The build tree was made by a compiler that ran inside it: relative paths start there.
set(flags)
set(kind "")
foreach(word IN LISTS words)
    if(kind)
        set(path ${word})
    elseif(word MATCHES "^-(isystem|iquote|I)$")
        set(kind ${word})
        continue()
    elseif(word MATCHES "^(-isystem|-iquote|-I)(.+)$")
        set(kind ${CMAKE_MATCH_1})
        set(path ${CMAKE_MATCH_2})
    else()
        if(word MATCHES "^-(D|std=|m|pthread|fno-strict-aliasing|fwrapv|fno-common)")
            list(APPEND flags "${word}")
        endif()
        continue()
    endif()
    cmake_path(ABSOLUTE_PATH path BASE_DIRECTORY ${UMBRA_QEMU_BUILD} NORMALIZE)
    list(APPEND flags "SHELL:${kind} ${path}")
    set(kind "")
endforeach()

add_library(umbra_qemu_headers INTERFACE)
target_compile_options(umbra_qemu_headers INTERFACE ${flags} -UNDEBUG -fPIC -fvisibility=hidden
    -Wno-missing-field-initializers -Wno-sign-compare -Wno-shift-negative-value -Wno-psabi)
