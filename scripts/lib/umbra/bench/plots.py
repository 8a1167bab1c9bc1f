# SPDX-License-Identifier: GPL-2.0-or-later
"""A benchmark's result as SVG plots. The only module that needs matplotlib."""

from pathlib import Path
from typing import Any

from umbra.bench import aims, device, testbed
from umbra.bench.figures import Spread, duration

# Told apart by people who see few colours, and on paper by their marks (Okabe and Ito's palette).
_PEER, _OWN, _OWN_LIGHT, _YARDSTICK, _AIM = "#d55e00", "#0072b2", "#56b4e9", "#7f7f7f", "#000000"
_LAYOUT = "fragmented"


def draw(result: dict, folder: Path) -> list[tuple[str, str]]:
    """Writes what the result has data for; returns file names and captions."""
    if not {"device", "testbed"} & set(result["levels"]):
        return []
    import matplotlib
    matplotlib.use("svg")
    # The same result gives the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "umbra", "svg.fonttype": "none", "font.family": "sans-serif",
                                "font.size": 10, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dddddd",
                                "axes.spines.top": False, "axes.spines.right": False})
    levels = result["levels"]
    device_rows = device.rows(levels["device"]) if "device" in levels else []
    testbed_rows = testbed.rows(levels["testbed"]) if "testbed" in levels else []
    drawn = []
    for name, caption, figure in (
            ("dsi-growth.svg", "Cost of a domain flush by mapped pages", _growth(device_rows)),
            ("ratios.svg", "Times cheaper than QEMU's intel-iommu, by case", _ratios(device_rows)),
            ("devices.svg", "Cost of a domain flush by number of devices", _devices(device_rows)),
            ("drain.svg", "VFIO unmap calls for 256 unmaps in the testbed", _drain(testbed_rows))):
        if figure is not None:
            # A white ground: many show SVGs on a dark one.
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None}, facecolor="white")
            drawn.append((name, caption))
    return drawn


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _pages(count: float) -> str:
    if count >= 1 << 20:
        return f"{count / (1 << 20):g} Mi"
    return f"{count / 1024:g} Ki" if count >= 1024 else f"{count:g}"


def _time_axis(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: duration(value).replace(".00", "").replace(".0", ""))


def _line(axes: Any, points: list[tuple[float, Spread]], label: str, colour: str, marker: str,
          style: str = "-") -> None:
    """`points`: position and Spread, whose quartiles are the bars."""
    points = sorted(points, key=lambda point: point[0])
    medians = [spread.median for _, spread in points]
    below = [spread.median - spread.low for _, spread in points]
    above = [spread.high - spread.median for _, spread in points]
    axes.errorbar([x for x, _ in points], medians, yerr=[below, above], label=label, color=colour, marker=marker,
                  linestyle=style, capsize=3, markersize=5, linewidth=1.5)


def _growth(rows: list[device.Row]) -> Any:
    chosen = [row for row in rows if row.devices == 1 and row.layout == _LAYOUT]
    idle = [row for row in chosen if row.case == "dsi-unchanged"]
    scattered = [row for row in chosen if row.case == "unmap-256-dsi"]
    if len(idle) < 2:
        return None
    figure, axes = _figure(7.5, 5)
    if scattered:
        _line(axes, [(row.pages, row.peer) for row in scattered], "QEMU intel-iommu, 256 pages unmapped", _PEER, "s",
              ":")
    _line(axes, [(row.pages, row.peer) for row in idle], "QEMU intel-iommu, nothing changed", _PEER, "o")
    if scattered:
        _line(axes, [(row.pages, row.own) for row in scattered], "Umbra, 256 pages unmapped", _OWN, "s", ":")
    _line(axes, [(row.pages, row.own) for row in idle], "Umbra, nothing changed", _OWN, "o")
    _line(axes, [(row.pages, row.memcmp) for row in idle if row.memcmp], "memcmp of the leaf tables", _YARDSTICK, "^",
          "--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({row.pages for row in idle}))
    axes.xaxis.set_major_formatter(lambda value, _: _pages(value))
    _time_axis(axes.yaxis)
    axes.set_xlabel("4 KiB pages mapped in the domain")
    axes.set_ylabel("time of one domain-selective invalidation")
    axes.legend(loc="upper left", framealpha=0.9, edgecolor="none")
    return figure


def _ratios(rows: list[device.Row]) -> Any:
    chosen = [row for row in rows if row.devices == 1 and row.pages == 65536]
    if not chosen:
        return None
    cases = list(dict.fromkeys(row.case for row in chosen))[::-1]  # the first on top
    figure, axes = _figure(7.5, 1.2 + 0.42 * len(cases))
    for layout, colour, shift in (("fragmented", _OWN, 0.19), ("contiguous", _OWN_LIGHT, -0.19)):
        group = [row for row in chosen if row.layout == layout]
        axes.barh([cases.index(row.case) + shift for row in group], [row.ratio.median for row in group], color=colour,
                  height=0.36, log=True, label=f"Umbra, {layout} targets",
                  xerr=[[row.ratio.median - row.ratio.low for row in group],
                        [row.ratio.high - row.ratio.median for row in group]],
                  error_kw={"capsize": 2, "ecolor": "#555555", "linewidth": 1})
        for row in group:
            axes.annotate(f"{row.ratio.median:.3g}×", (_label_at(row), cases.index(row.case) + shift), xytext=(5, 0),
                          textcoords="offset points", va="center", fontsize=8)
    marks = [(aims.RATIOS[case, 65536], place) for place, case in enumerate(cases) if (case, 65536) in aims.RATIOS]
    if marks:
        axes.vlines([aim for aim, _ in marks], [place - 0.42 for _, place in marks],
                    [place + 0.42 for _, place in marks], color=_AIM, linewidth=2.5, label="aim")
    axes.axvline(1, color=_PEER, linewidth=1.5, label="QEMU intel-iommu")
    axes.set_yticks(range(len(cases)), cases)
    axes.grid(False, axis="y")
    axes.set_xlim(0.8, max(_label_at(row) for row in chosen) * 3)
    axes.set_ylim(-0.7, len(cases) - 0.3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("times cheaper than QEMU's intel-iommu, 65,536 pages mapped")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _label_at(row: device.Row) -> float:
    """Right of the bar, of its error, and of the aim's mark if that is close."""
    end = row.ratio.high
    aim = aims.RATIOS.get((row.case, row.pages), 0.0)
    return aim if end < aim < end * 2 else end


def _devices(rows: list[device.Row]) -> Any:
    chosen = [row for row in rows if row.case == "dsi-unchanged" and row.pages == 65536 and row.layout == _LAYOUT]
    counts = sorted({row.devices for row in chosen})
    if len(counts) < 2:
        return None
    figure, axes = _figure(7.5, 4)
    for sharing, name, marker, style in (("one", "all in one domain", "o", "-"),
                                         ("own", "each in a domain of its own", "s", ":")):
        group = [row for row in chosen if row.devices == 1 or row.sharing == sharing]
        _line(axes, [(row.devices, row.peer) for row in group], f"QEMU intel-iommu, {name}", _PEER, marker, style)
        _line(axes, [(row.devices, row.own) for row in group], f"Umbra, {name}", _OWN, marker, style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(counts)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _time_axis(axes.yaxis)
    axes.set_xlabel("listening devices; 65,536 pages mapped in each domain")
    axes.set_ylabel("time of one domain flush,\nnothing changed")
    axes.legend(loc="center right", framealpha=0.9, edgecolor="none")
    return figure


def _drain(rows: list[testbed.Row]) -> Any:
    chosen = [row for row in rows if row.drain_ratio is not None and row.policy != "strict"][::-1]
    if not chosen:
        return None
    figure, axes = _figure(7.5, 1.2 + 0.55 * len(chosen))
    for name, colour, shift, side in (("QEMU intel-iommu", _PEER, 0.19, "peer"), ("Umbra", _OWN, -0.19, "own")):
        values = [getattr(row, side).unmaps_per_drain for row in chosen]
        axes.barh([place + shift for place in range(len(chosen))], values, color=colour, height=0.36, label=name)
        for place, value in enumerate(values):
            axes.annotate(f"{value:.3g}", (value, place + shift), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8)
    peers = [row.peer.unmaps_per_drain or 0.0 for row in chosen]
    drains = [(peers[place] / aims.DRAIN_FACTOR, place) for place, row in enumerate(chosen)
              if row.workload.startswith("drain-")]
    if drains:
        axes.vlines([aim for aim, _ in drains], [place - 0.4 for _, place in drains],
                    [place + 0.02 for _, place in drains], color=_AIM, linewidth=2.5, label="aim")
    axes.set_yticks(range(len(chosen)), [f"{row.workload},\n{row.backend}" for row in chosen])
    axes.grid(False, axis="y")
    axes.set_xlim(0, max(peers) * 1.3)
    axes.set_xlabel("VFIO unmap calls for 256 unmaps of the guest, flush queue by domain")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncol=3)
    return figure
