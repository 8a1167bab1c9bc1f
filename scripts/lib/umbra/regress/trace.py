# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces what a guest kernel does with IOVAs, by its own trace events and probes, as events of umbra.regress.order.

    iommu:unmap      trace event of the kernel
    free_iova_fast   probe: an IOVA goes back to the allocator
    qi_submit_sync   probe: descriptors for the unit's invalidation queue, with their contents

One clock that counts events puts those of all CPUs in order.
"""

import base64
import gzip
import re

from umbra.errors import ExitCode, UserError
from umbra.regress.order import Event, Kind
from umbra.regress.scene import Failed, Skipped
from umbra.vm.guest import Guest

_TRACING = "/sys/kernel/tracing"
_BUFFER_KIB = 16384
# Descriptors are four words of 64 bits; an argument of a probe has at most 64 elements. 63 is the most that a kernel
# with the series submits at once, an unpatched one submits 16.
_WORDS = (64, 64, 64, 60)
_PIECE = 45000  # bytes; the agent sends at most 65,536 characters

_SET_UP = f"""cd {_TRACING} && echo 0 >tracing_on && echo counter >trace_clock && echo {_BUFFER_KIB} >buffer_size_kb &&
echo 'p:umbra/release free_iova_fast pfn=%si:x64 pages=%dx:x64' >kprobe_events &&
echo 'p:umbra/submit qi_submit_sync count=%dx:u32 {" ".join(
    f"w{i}=+{i * 512}(%si):x64[{words}]" for i, words in enumerate(_WORDS))}' >>kprobe_events &&
echo 1 >events/umbra/enable && echo 1 >events/iommu/unmap/enable"""


def set_up(guest: Guest) -> None:
    """Places the probes. Skipped if this kernel does not have what they need."""
    result = guest.command("exec " + _SET_UP.replace("\n", " "))
    if not result.ok:
        raise Skipped(f"this kernel cannot be probed: {result.data.get('stderr', '').strip() or result.error}")


def start(guest: Guest) -> None:
    _shell(guest, f"cd {_TRACING} && echo >trace && echo 1 >tracing_on")


def stop(guest: Guest) -> str:
    """The trace's text."""
    size = int(_shell(guest, f"cd {_TRACING} && echo 0 >tracing_on && gzip -c trace >/tmp/trace.gz && "
                      "stat -c %s /tmp/trace.gz", seconds=180))
    packed = b"".join(base64.b64decode(_shell(
        guest, f"dd if=/tmp/trace.gz bs={_PIECE} skip={piece} count=1 2>/dev/null | base64 -w 0"))
        for piece in range(-(-size // _PIECE)))
    return gzip.decompress(packed).decode("ascii", "replace")


def _shell(guest: Guest, script: str, seconds: int = 60) -> str:
    result = guest.command(f"exec -t {seconds} {script}")
    if not result.ok:
        raise UserError(ExitCode.GUEST_FAILED, f"The guest's trace cannot be read: {result.error} "
                        f"{result.data.get('stderr', '')}")
    return result.data["stdout"]


_LINE = re.compile(r"^.*-\d+\s+\[\d+\]\s.*?: (?P<name>unmap|release|submit): (?P<rest>.*)$")
_UNMAP = re.compile(r"iova=(0x[0-9a-f]+)(?: - 0x[0-9a-f]+)?.*? size=(\d+)")
_RELEASE = re.compile(r"pfn=(0x[0-9a-f]+) pages=(0x[0-9a-f]+)")
_SUBMIT = re.compile(r"count=(\d+)")
_WORD_LIST = re.compile(r"w\d=\{([^}]*)\}")
_WRITTEN = re.compile(r"entries-in-buffer/entries-written: (\d+)/(\d+)")

# VT-d: type in bits 3:0 of a descriptor (2: IOTLB), granularity in bits 5:4; IH is bit 6 of its second word, the
# address mask bits 5:0, the address bits 63:12.
_IOTLB, _PAGES = 2, 3


def parse(text: str) -> list[Event]:
    """The events of a trace. Failed if the kernel lost some, as then no rule can be checked."""
    written = _WRITTEN.search(text)
    if not written or written[1] != written[2]:
        raise Failed("The trace is incomplete: the guest's buffer overflowed.")
    events = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            events += _PARSERS[match["name"]](match["rest"])
    return events


def _unmap(rest: str) -> list[Event]:
    match = _UNMAP.search(rest)
    return [Event(Kind.UNMAP, int(match[1], 16) >> 12, int(match[2]) >> 12)] if match else []


def _release(rest: str) -> list[Event]:
    match = _RELEASE.search(rest)
    return [Event(Kind.RELEASE, int(match[1], 16), int(match[2], 16))] if match else []


def _submit(rest: str) -> list[Event]:
    count = _SUBMIT.search(rest)
    words = [int(word, 16) for part in _WORD_LIST.findall(rest) for word in part.split(",") if word.startswith("0x")]
    if not count or len(words) < 4 * int(count[1]):
        raise Failed(f"The trace has descriptors that cannot be read: {rest[:120]}")
    events = []
    for first, second in zip(words[0:4 * int(count[1]):4], words[1:4 * int(count[1]):4], strict=True):
        if first & 0xF != _IOTLB:
            continue
        if first >> 4 & 3 == _PAGES:
            events.append(Event(Kind.INVALIDATE, second >> 12, 1 << (second & 0x3F), bool(second & 0x40)))
        else:
            events.append(Event(Kind.INVALIDATE))
    return events


_PARSERS = {"unmap": _unmap, "release": _release, "submit": _submit}
