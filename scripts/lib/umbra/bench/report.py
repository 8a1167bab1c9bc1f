# SPDX-License-Identifier: GPL-2.0-or-later
"""A benchmark's result as tables, for a terminal or as Markdown."""

from umbra import table
from umbra.bench import aims, device, emulated, engine, testbed

_LONG = 60  # rows


def sections(result: dict) -> list[tuple[str, list[str], list[list[str]], int]]:
    """Title, header, rows and number of text columns of each table that has rows."""
    levels = result["levels"]
    device_rows = device.rows(levels["device"]) if "device" in levels else []
    engine_rows = engine.rows(levels["engine"]) if "engine" in levels else []
    testbed_rows = testbed.rows(levels["testbed"]) if "testbed" in levels else []
    emulated_rows = emulated.rows(levels["emulated"]) if "emulated" in levels else []
    found = [
        ("Aims", aims.HEADER, aims.table_rows(aims.verdicts(device_rows, testbed_rows, emulated_rows)), 1),
        ("Device level: one device, and how far from the limit", device.LIMIT_HEADER,
         device.limit_rows(device_rows), device.LIMIT_TEXT_COLUMNS),
        ("Device level: time of one operation", device.HEADER, device.table_rows(device_rows),
         device.TEXT_COLUMNS),
        ("Device level: memory", device.MEMORY_HEADER, device.memory_rows(device_rows), 0),
        ("Engine level: comparison of a domain in which nothing changed", engine.COMPARE_HEADER,
         engine.compare_rows(engine_rows), 1),
        ("Engine level: parts", engine.HEADER, engine.table_rows(engine_rows), 1),
        ("Testbed: real VFIO", testbed.HEADER, testbed.table_rows(testbed_rows), testbed.TEXT_COLUMNS),
        ("Emulated NVMe, without VFIO", emulated.HEADER, emulated.table_rows(emulated_rows), 1),
    ]
    return [section for section in found if section[2]]


def conditions(result: dict) -> str:
    """What was measured where, in a sentence or two."""
    machine, versions, how = result["machine"], result["versions"], result["conditions"]
    return (f"{machine['cpu']}, {machine['cpus']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, Linux "
            f"{machine['kernel']}; QEMU {versions['qemu']}; Umbra {versions['umbra'] or 'of no known version'}; "
            f"{how['started']}, {how['minutes']:.0f} minutes, load average {how['load_before']:.1f} before and "
            f"{how['load_after']:.1f} after.")


def render(result: dict, markdown: bool, colour: bool | None = None) -> str:
    """All tables, the conditions first. In Markdown each has a heading, and long ones are folded."""
    parts = [conditions(result)]
    for title, header, rows, text_columns in sections(result):
        text = table.render(header, rows, markdown, colour, text_columns)
        if markdown and len(rows) > _LONG:
            parts.append(f"<details><summary><b>{title}</b> ({len(rows)} rows)</summary>\n\n{text}\n\n</details>")
        else:
            parts += [f"### {title}" if markdown else title, text]
    return "\n\n".join(parts)
