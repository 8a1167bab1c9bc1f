// SPDX-License-Identifier: GPL-2.0-or-later
#include "plugin/qemu/compat.h"

#include "plugin/module/host_check.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include "qapi/error.h"
#include "qapi/qapi-commands-control.h"

#define BUILT_FOR                                                                  \
    stringify(QEMU_VERSION_MAJOR) "." stringify(QEMU_VERSION_MINOR) "." stringify( \
        QEMU_VERSION_MICRO)

/* Nothing but libc up to the point where all symbols are known to be there. */

static void complain(const char* format, ...) G_GNUC_PRINTF(1, 2);

static void complain(const char* format, ...) {
    va_list arguments;

    va_start(arguments, format);
    fputs("umbra: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs(
        "\numbra: Build QEMU " BUILT_FOR
        " from the source tree that the plugin was built against, configured with\n"
        "umbra:   --enable-plugins --extra-ldflags=-Wl,--export-dynamic\n"
        "umbra: or build the plugin against the QEMU that you run (-DUMBRA_QEMU_SRC, -DUMBRA_QEMU_BUILD).\n",
        stderr);
    va_end(arguments);
}

static bool check_interface(const qemu_info_t* info) {
    if (strcmp(info->target_name, "x86_64") != 0 || !info->system_emulation) {
        complain("The plugin is for qemu-system-x86_64; this QEMU emulates %s.", info->target_name);
        return false;
    }
    if (info->version.cur != QEMU_PLUGIN_VERSION) {
        complain("This QEMU has plugin API %d; the plugin was built for API %d.", info->version.cur,
                 QEMU_PLUGIN_VERSION);
        return false;
    }
    return true;
}

/* The tables of the plugin's own dynamic symbols. */
typedef struct SymbolTables {
    const ElfW(Sym) * symbols;
    const char* strings;
    size_t undefined_end; /* symbols below this index are not defined by the plugin */
} SymbolTables;

static bool find_own_symbols(SymbolTables* tables) {
    Dl_info self;
    struct link_map* map;

    if (!dladdr1(&umbra_host_check, &self, (void**)&map, RTLD_DL_LINKMAP)) {
        return false;
    }
    *tables = (SymbolTables){0};
    for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        /* glibc has relocated these addresses on x86-64. */
        if (entry->d_tag == DT_SYMTAB) {
            tables->symbols = (const ElfW(Sym)*)entry->d_un.d_ptr;
        } else if (entry->d_tag == DT_STRTAB) {
            tables->strings = (const char*)entry->d_un.d_ptr;
        } else if (entry->d_tag == DT_GNU_HASH) {
            /* Second word of the header: index of the first symbol in the hash table. Symbols
             * that are not defined here are not in it and come before. */
            tables->undefined_end = ((const uint32_t*)entry->d_un.d_ptr)[1];
        }
    }
    return tables->symbols != NULL && tables->strings != NULL && tables->undefined_end > 0;
}

/* Symbols that compilers and the C++ library refer to weakly, because they may be absent: clean-up
 * at unloading, pure virtual functions, transactional memory, profiling. */
static bool is_optional(const char* name) {
    static const char* const prefixes[] = {"__cxa_", "_ITM_", "_ZGTt", "__gmon_start__"};

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool check_symbols(void) {
    enum { LISTED = 8 };
    SymbolTables tables;
    size_t needed = 0;
    size_t missing = 0;
    char names[512] = "";

    if (!find_own_symbols(&tables)) {
        complain("The plugin cannot read its own symbol table: it was not linked as it should be.");
        return false;
    }
    for (size_t i = 1; i < tables.undefined_end; i++) {
        const char* name = tables.strings + tables.symbols[i].st_name;

        if (ELF64_ST_BIND(tables.symbols[i].st_info) != STB_WEAK || is_optional(name)) {
            continue;
        }
        needed++;
        if (dlsym(RTLD_DEFAULT, name) == NULL) {
            const size_t used = strlen(names);

            if (missing++ < LISTED) {
                snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", name);
            }
        }
    }
    if (missing > 0) {
        complain(
            "This QEMU does not let plugins see %zu of the %zu symbols that Umbra needs (%s%s).",
            missing, needed, names, missing > LISTED ? ", ..." : "");
    }
    return missing == 0;
}

static bool check_version(void) {
    VersionInfo* running = qmp_query_version(&error_abort);
    const bool same =
        running->qemu->major == QEMU_VERSION_MAJOR && running->qemu->minor == QEMU_VERSION_MINOR;

    if (!same) {
        complain("This is QEMU %" PRId64 ".%" PRId64 ".%" PRId64
                 "; the plugin was built for QEMU " BUILT_FOR ".",
                 running->qemu->major, running->qemu->minor, running->qemu->micro);
    }
    qapi_free_VersionInfo(running);
    return same;
}

bool umbra_host_check(const qemu_info_t* info) {
    return check_interface(info) && check_symbols() && check_version();
}
