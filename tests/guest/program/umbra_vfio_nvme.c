// SPDX-License-Identifier: GPL-2.0-or-later
//
// A user-space driver for NVMe controllers that are bound to vfio-pci: all of them in one VFIO
// container, so in one IOMMU domain of this kernel. It takes orders on standard input, one a line,
// and answers each with one JSON object on standard output:
//
//   umbra_vfio_nvme ADDRESS...    {"event":"ready","devices":2,"queue_bytes":16384} once all
//                                 controllers run; each has an admin queue in mapped memory
//   map PAGES                     maps PAGES pages of memory from IOVA 0x40000000 on
//   unmap                         unmaps them
//   identify N                    device N (0, 1, …) is to write its IDENTIFY data into the last of
//                                 those pages, which was filled with a pattern before:
//                                 "completed": the controller answered; "status": what;
//                                 "touched": the page is not as it was; "serial", "model": if so
//   quit                          stops the controllers and leaves
//
// The page is there whether it is mapped or not: only the device's access depends on that.
// Exit status: 0, or 1 with a sentence on standard error.

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    MAX_DEVICES = 4,
    MAX_PAGES = 4096,
    QUEUE_ENTRIES = 16,
    WAIT_SECONDS = 30,
    PATTERN = 0xa5,
};

static const uint64_t QUEUE_IOVA = 0x10000000;
static const uint64_t DATA_IOVA = 0x40000000;

// Registers of a controller (NVM Express base specification, 3.1).
enum {
    NVME_CAP = 0x00,
    NVME_CC = 0x14,
    NVME_CSTS = 0x1c,
    NVME_AQA = 0x24,
    NVME_ASQ = 0x28,
    NVME_ACQ = 0x30,
    NVME_DOORBELLS = 0x1000,
};
#define CC_ENABLE 1u
#define CC_ENTRY_SIZES (6u << 16 | 4u << 20)
#define CSTS_READY 1u
#define OPCODE_IDENTIFY 0x06
#define IDENTIFY_CONTROLLER 1

struct submission {
    uint8_t opcode;
    uint8_t flags;
    uint16_t id;
    uint32_t namespace_id;
    uint64_t reserved[2];
    uint64_t data[2];
    uint32_t words[6];
};

struct completion {
    uint32_t result;
    uint32_t reserved;
    uint16_t queue_head;
    uint16_t queue;
    uint16_t id;
    uint16_t status;  // bit 0: phase
};

_Static_assert(sizeof(struct submission) == 64, "as the specification says");
_Static_assert(sizeof(struct completion) == 16, "as the specification says");

struct device {
    int fd;
    uint64_t registers;  // where BAR 0 begins in fd
    uint64_t config;
    uint32_t doorbell_stride;
    volatile struct submission* submissions;
    volatile struct completion* completions;
    unsigned tail;
    unsigned head;
    unsigned phase;
};

static int container;
static struct device devices[MAX_DEVICES];
static unsigned device_count;
static uint8_t* data;
static uint64_t data_bytes;  // mapped now

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char* format, ...) {
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "umbra_vfio_nvme: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

// Memory for devices, not yet mapped for them.
static void* allocate(size_t bytes) {
    void* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED) {
        fail("no memory for %zu bytes", bytes);
    }
    return memory;
}

static void map(void* memory, uint64_t iova, uint64_t bytes) {
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof(request),
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = bytes,
    };

    if (ioctl(container, VFIO_IOMMU_MAP_DMA, &request) != 0) {
        fail("VFIO_IOMMU_MAP_DMA of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
    }
}

static void unmap(uint64_t iova, uint64_t bytes) {
    struct vfio_iommu_type1_dma_unmap request = {
        .argsz = sizeof(request),
        .iova = iova,
        .size = bytes,
    };

    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request) != 0 || request.size != bytes) {
        fail("VFIO_IOMMU_UNMAP_DMA of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
    }
}

// ---- Registers ----

static void device_read(const struct device* device, uint64_t at, void* value, size_t bytes) {
    if (pread(device->fd, value, bytes, (off_t)at) != (ssize_t)bytes) {
        fail("cannot read a register: %s", strerror(errno));
    }
}

static void device_write(const struct device* device, uint64_t at, const void* value,
                         size_t bytes) {
    if (pwrite(device->fd, value, bytes, (off_t)at) != (ssize_t)bytes) {
        fail("cannot write a register: %s", strerror(errno));
    }
}

static uint32_t read32(const struct device* device, uint32_t at) {
    uint32_t value;

    device_read(device, device->registers + at, &value, sizeof(value));
    return value;
}

static void write32(const struct device* device, uint32_t at, uint32_t value) {
    device_write(device, device->registers + at, &value, sizeof(value));
}

static void write64(const struct device* device, uint32_t at, uint64_t value) {
    write32(device, at, (uint32_t)value);
    write32(device, at + 4, (uint32_t)(value >> 32));
}

// ---- Waiting ----

static double now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void pause_briefly(void) {
    const struct timespec millisecond = {.tv_nsec = 1000000};

    nanosleep(&millisecond, NULL);
}

static void wait_ready(const struct device* device, uint32_t ready) {
    const double limit = now() + WAIT_SECONDS;

    while ((read32(device, NVME_CSTS) & CSTS_READY) != ready) {
        if (now() > limit) {
            fail("a controller does not become %s", ready ? "ready" : "idle");
        }
        pause_briefly();
    }
}

// ---- Opening ----

static int group_number(const char* address) {
    char path[128];
    char link[128];

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.32s/iommu_group", address);
    const ssize_t length = readlink(path, link, sizeof(link) - 1);
    if (length < 0) {
        fail("%s is behind no IOMMU", address);
    }
    link[length] = '\0';
    return atoi(strrchr(link, '/') + 1);
}

static int open_group(int number) {
    char node[32];
    struct vfio_group_status status = {.argsz = sizeof(status)};

    snprintf(node, sizeof(node), "/dev/vfio/%d", number);
    const int group = open(node, O_RDWR | O_CLOEXEC);
    if (group < 0) {
        fail("%s: %s (is the device bound to vfio-pci?)", node, strerror(errno));
    }
    if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) != 0 ||
        !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        fail("%s is not viable: another driver has a part of the group", node);
    }
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) != 0) {
        fail("%s does not join the container: %s", node, strerror(errno));
    }
    return group;
}

static void find_regions(struct device* device) {
    struct vfio_region_info bar = {.argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX};
    struct vfio_region_info config = {.argsz = sizeof(config),
                                      .index = VFIO_PCI_CONFIG_REGION_INDEX};

    if (ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &bar) != 0 ||
        ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &config) != 0) {
        fail("VFIO_DEVICE_GET_REGION_INFO: %s", strerror(errno));
    }
    device->registers = bar.offset;
    device->config = config.offset;
}

static void master_the_bus(const struct device* device) {
    uint16_t command;

    device_read(device, device->config + PCI_COMMAND, &command, sizeof(command));
    command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    device_write(device, device->config + PCI_COMMAND, &command, sizeof(command));
}

static void open_device(const char* address, int group) {
    struct device* device = &devices[device_count++];

    device->fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
    if (device->fd < 0) {
        fail("the group of %s does not give the device: %s", address, strerror(errno));
    }
    find_regions(device);
    master_the_bus(device);
}

static void start_controller(struct device* device, uint8_t* queues, uint64_t iova) {
    device->submissions = (volatile struct submission*)queues;
    device->completions = (volatile struct completion*)(queues + PAGE);
    device->phase = 1;
    device->doorbell_stride = 4u << (read32(device, NVME_CAP + 4) & 0xf);
    write32(device, NVME_CC, 0);
    wait_ready(device, 0);
    write32(device, NVME_AQA, (QUEUE_ENTRIES - 1) << 16 | (QUEUE_ENTRIES - 1));
    write64(device, NVME_ASQ, iova);
    write64(device, NVME_ACQ, iova + PAGE);
    write32(device, NVME_CC, CC_ENTRY_SIZES | CC_ENABLE);
    wait_ready(device, CSTS_READY);
}

// ---- Orders ----

// True once the controller has completed `command`, its status then in *status.
static bool execute(struct device* device, struct submission command, unsigned* status) {
    const double limit = now() + WAIT_SECONDS;

    command.id = (uint16_t)device->tail;
    device->submissions[device->tail] = command;
    device->tail = (device->tail + 1) % QUEUE_ENTRIES;
    __sync_synchronize();
    write32(device, NVME_DOORBELLS, device->tail);
    while ((device->completions[device->head].status & 1u) != device->phase) {
        if (now() > limit) {
            return false;
        }
        pause_briefly();
    }
    __sync_synchronize();
    *status = device->completions[device->head].status >> 1;
    device->head = (device->head + 1) % QUEUE_ENTRIES;
    device->phase ^= device->head == 0;
    write32(device, NVME_DOORBELLS + device->doorbell_stride, device->head);
    return true;
}

// A field of blank-padded text, without what JSON would want escaped.
static void print_text(const char* name, const uint8_t* text, size_t length) {
    while (length > 0 && text[length - 1] == ' ') {
        length--;
    }
    printf(",\"%s\":\"", name);
    for (size_t i = 0; i < length; i++) {
        putchar(text[i] < ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\' ? '?'
                                                                                    : text[i]);
    }
    putchar('"');
}

static void identify(unsigned index, uint64_t buffer_bytes) {
    uint8_t* page = data + buffer_bytes - PAGE;
    unsigned status = 0;
    bool touched = false;

    if (index >= device_count) {
        fail("identify %u: there are %u devices", index, device_count);
    }
    memset(page, PATTERN, PAGE);
    const struct submission command = {
        .opcode = OPCODE_IDENTIFY,
        .data = {DATA_IOVA + buffer_bytes - PAGE},
        .words = {IDENTIFY_CONTROLLER},
    };
    const bool completed = execute(&devices[index], command, &status);
    for (size_t i = 0; i < PAGE; i++) {
        touched = touched || page[i] != PATTERN;
    }
    printf("{\"device\":%u,\"completed\":%s,\"status\":%u,\"touched\":%s", index,
           completed ? "true" : "false", status, touched ? "true" : "false");
    if (touched) {
        print_text("serial", page + 4, 20);
        print_text("model", page + 24, 40);
    }
    printf("}\n");
}

static void map_data(uint64_t bytes) {
    if (data_bytes != 0) {
        fail("map: there is a mapping already");
    }
    map(data, DATA_IOVA, bytes);
    data_bytes = bytes;
    printf("{\"mapped_bytes\":%llu}\n", (unsigned long long)bytes);
}

static void unmap_data(void) {
    if (data_bytes == 0) {
        fail("unmap: there is no mapping");
    }
    unmap(DATA_IOVA, data_bytes);
    printf("{\"unmapped_bytes\":%llu}\n", (unsigned long long)data_bytes);
    data_bytes = 0;
}

static void serve(void) {
    char line[64];
    unsigned number;
    uint64_t buffer_bytes = PAGE;

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "map %u", &number) == 1 && number >= 1 && number <= MAX_PAGES) {
            buffer_bytes = (uint64_t)number * PAGE;
            map_data(buffer_bytes);
        } else if (strcmp(line, "unmap\n") == 0) {
            unmap_data();
        } else if (sscanf(line, "identify %u", &number) == 1) {
            identify(number, buffer_bytes);
        } else if (strcmp(line, "quit\n") == 0) {
            return;
        } else {
            fail("unknown order: %s", line);
        }
        fflush(stdout);
    }
}

int main(int argc, char** argv) {
    const unsigned wanted = (unsigned)argc - 1;
    int group = -1;

    if (argc < 2 || wanted > MAX_DEVICES) {
        fail("expected the PCI addresses of 1 to %d devices", MAX_DEVICES);
    }
    container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (container < 0) {
        fail("/dev/vfio/vfio: %s", strerror(errno));
    }
    for (unsigned i = 0; i < wanted; i++) {
        const int number = group_number(argv[i + 1]);

        // Functions of one device can be one group, which opens only once.
        if (i == 0 || number != group_number(argv[i])) {
            group = open_group(number);
        }
        if (i == 0 && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) != 0) {
            fail("VFIO_SET_IOMMU: %s", strerror(errno));
        }
        open_device(argv[i + 1], group);
    }

    const uint64_t queue_bytes = 2ull * PAGE * wanted;
    uint8_t* queues = allocate(queue_bytes);
    data = allocate((size_t)MAX_PAGES * PAGE);
    map(queues, QUEUE_IOVA, queue_bytes);
    for (unsigned i = 0; i < wanted; i++) {
        start_controller(&devices[i], queues + 2ull * PAGE * i, QUEUE_IOVA + 2ull * PAGE * i);
    }
    printf("{\"event\":\"ready\",\"devices\":%u,\"queue_bytes\":%llu}\n", wanted,
           (unsigned long long)queue_bytes);
    fflush(stdout);
    serve();
    for (unsigned i = 0; i < wanted; i++) {
        write32(&devices[i], NVME_CC, 0);
        wait_ready(&devices[i], 0);
    }
    return 0;
}
