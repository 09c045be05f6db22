"""The report's figures as PNG and SVG files, for slides and papers; drawn by matplotlib from the same data.

A figure is plain plotly data (plots_style.py). What of plotly's terms our figures use is drawn here: lines,
steps, bands, points, bars, error bars, stacked panels, category and logarithmic axes.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from analysis.report.plots_style import HEIGHT, Figure, Trace
from turnbench.names import slug

_WIDTH_INCHES = 7.2
_PIXELS_PER_INCH = 90
_DASHES: dict[str, Any] = {
    "solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (10, 3)),
}  # fmt: skip
_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "star": "*", "hexagon":
    "h", "x": "X", "pentagon": "p", "line-ns": "|",
}  # fmt: skip
_HATCHES = {"": "", "/": "//", "x": "xx", "-": "--", "|": "||", "+": "++", ".": ".."}
_STYLE = {
    "axes.grid": True, "axes.spines.right": False, "axes.spines.top": False, "font.size": 9,
    "grid.alpha": 0.4, "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "turnbench",
    "text.parse_math": False,
}  # fmt: skip


def write_images(figures: list[Figure], folder: Path) -> list[Path]:
    """Each figure as a PNG and an SVG; the files, named after what the figures show. Raises OSError."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(_STYLE):
        for number, one in enumerate(figures, 1):
            drawn = _drawn(one)
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # once for both files: it is what takes time
            parts = (one.group, one.title.replace("/", " "), one.pick.replace("/", " "))
            stem = "-".join(slug(part) for part in parts if part)
            for suffix in ("png", "svg"):
                path = folder / f"{number:02}-{stem}.{suffix}"
                plain = {"Date": None} if suffix == "svg" else None  # the same figure is the same file
                drawn.savefig(path, dpi=160, metadata=plain)
                written.append(path)
    return written


def _drawn(one: Figure) -> Any:
    """The figure with its panels, title and legend."""
    from matplotlib.figure import Figure as Canvas

    axes_of = [key for key in one.layout if key.startswith("yaxis")]
    names = [f"y{key.removeprefix('yaxis')}" for key in axes_of]
    more = 18 * max(len(one.data) // 12, 0)
    height = min(max(one.height, HEIGHT) + more, 1400) / _PIXELS_PER_INCH
    canvas = Canvas(figsize=(_WIDTH_INCHES, height), layout="constrained")
    panels = canvas.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for name, key, panel in zip(names, axes_of, panels, strict=True):
        mine = [trace for trace in one.data if trace.get("yaxis", "y") == name]
        _draw(panel, mine, one.layout["xaxis"], one.layout[key])
    for shape in one.layout.get("shapes", []):
        for panel in panels:
            _shape(panel, shape)
    panels[-1].set_xlabel(one.layout["xaxis"]["title"]["text"])
    title = one.title + (f" ({one.pick})" if one.pick else "")
    canvas.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    if one.layout.get("showlegend", True):
        known: dict[str, Any] = {}
        for panel in panels:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                known.setdefault(label, handle)
        canvas.legend(known.values(), known.keys(), loc="outside lower left", ncols=3, fontsize=8)
    return canvas


def _draw(panel: Any, traces: list[Trace], x_axis: Trace, y_axis: Trace) -> None:
    """The traces of one panel on its axes."""
    bars = [trace for trace in traces if trace["type"] == "bar"]
    x_places = _places(x_axis, [x for trace in bars for x in trace["x"]])
    y_places = _places(y_axis, [y for trace in traces for y in trace["y"] if isinstance(y, str)])
    for number, trace in enumerate(traces):
        xs = [x_places.get(x, x) if isinstance(x, str) else x for x in trace["x"]]
        ys = [y_places.get(y, y) if isinstance(y, str) else y for y in trace["y"]]
        plain_x, plain_y = ([float("nan") if v is None else v for v in values] for values in (xs, ys))
        if trace.get("fill") == "tonexty":
            below = [float("nan") if v is None else v for v in traces[number - 1]["y"]]
            panel.fill_between(plain_x, below, plain_y, color=trace["fillcolor"], linewidth=0)
        elif trace["type"] == "bar":
            _bars(panel, trace, plain_x, plain_y, bars.index(trace), len(bars))
        elif trace.get("line", {}).get("width", 1) or "markers" in trace["mode"]:
            _line(panel, trace, plain_x, plain_y)
    _axis(panel, "x", x_axis, x_places)
    _axis(panel, "y", y_axis, y_places)
    panel.set_ylabel(y_axis.get("title", {}).get("text", ""))


def _places(axis: Trace, found: list[Any]) -> dict[str, int]:
    """Where each category stands; empty for an axis of numbers."""
    categories = axis.get("categoryarray") or found
    return {name: place for place, name in enumerate(dict.fromkeys(categories)) if isinstance(name, str)}


def _line(panel: Any, trace: Trace, xs: list[Any], ys: list[Any]) -> None:
    drawn, marker = trace.get("line", {}), trace.get("marker", {})
    name = html.unescape(trace["name"]) if trace.get("showlegend", True) else None
    ink = drawn.get("color") or marker.get("color")
    style = _DASHES[drawn.get("dash", "solid")] if "lines" in trace["mode"] else ""
    steps = "steps-post" if drawn.get("shape") == "hv" else "default"
    symbols = marker.get("symbol", "circle")
    shapes = symbols if isinstance(symbols, list) else [symbols] * len(xs)
    options: dict[str, Any] = {"color": ink, "linestyle": style, "linewidth": drawn.get("width", 1)}
    options |= {"drawstyle": steps, "label": name, "alpha": trace.get("opacity", 1)}
    if "markers" in trace["mode"] and shapes:
        options |= {"marker": _MARKERS[shapes[0].removesuffix("-open")], "markersize": marker["size"] * 0.65}
        options |= {"markevery": max(len(xs) // marker.get("maxdisplayed", len(xs) or 1), 1)}
        hollow = [place for place, shape in enumerate(shapes) if shape.endswith("-open")]
        if len(hollow) == len(shapes):
            options |= {"markerfacecolor": "none"}
        elif hollow:
            open_x, open_y = [xs[place] for place in hollow], [ys[place] for place in hollow]
            over = {
                "marker": options["marker"],
                "markersize": options["markersize"],
                "linestyle": "",
                "zorder": 4,
            }
            panel.plot(open_x, open_y, color=ink, markerfacecolor="white", **over)
    panel.plot(xs, ys, **options)
    _errors(panel, trace, xs, ys, ink)
    for x, y, text in zip(xs, ys, trace.get("text", []), strict=False):
        panel.annotate(
            html.unescape(text), (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=7
        )


def _bars(panel: Any, trace: Trace, xs: list[Any], ys: list[Any], number: int, count: int) -> None:
    marker, width = trace["marker"], 0.8 / count
    places = [x - 0.4 + (number + 0.5) * width for x in xs]
    drawn = panel.bar(
        places, ys, width * 0.9, color=marker["color"], label=html.unescape(trace["name"]),
        hatch=_HATCHES[marker["pattern"]["shape"]], edgecolor="white", linewidth=0,
    )  # fmt: skip
    for bar, opacity in zip(drawn, marker["opacity"], strict=True):
        bar.set_alpha(opacity)
    _errors(panel, trace, places, ys, "#555555")


def _errors(panel: Any, trace: Trace, xs: list[Any], ys: list[Any], ink: str) -> None:
    if "error_y" in trace:
        ends = [trace["error_y"]["arrayminus"], trace["error_y"]["array"]]
        panel.errorbar(xs, ys, yerr=ends, fmt="none", ecolor=ink, elinewidth=1, capsize=2)


def _axis(panel: Any, which: str, axis: Trace, places: dict[str, int]) -> None:
    """Scale, limits and ticks of one axis."""
    if axis.get("type") == "log":
        getattr(panel, f"set_{which}scale")("log")
        getattr(panel, f"set_{which}ticks")(
            axis.get("tickvals", []), [f"{v:g}" for v in axis.get("tickvals", [])]
        )
    elif places:
        texts = axis.get("ticktext") or list(places)
        getattr(panel, f"set_{which}ticks")(
            [*places.values()], [html.unescape(text) for text in texts], fontsize=8
        )
        getattr(panel, f"set_{which}lim")(-0.6, len(places) - 0.4)
    elif "range" in axis:
        getattr(panel, f"set_{which}lim")(*axis["range"])
    elif axis.get("rangemode") == "tozero":
        low, high = getattr(panel, f"get_{which}lim")()
        getattr(panel, f"set_{which}lim")(min(0, low) if low < -abs(high) * 0.1 else 0, high)
    if axis.get("autorange") == "reversed":
        panel.invert_yaxis()


def _shape(panel: Any, shape: Trace) -> None:
    """The window of a level, or a limit."""
    if shape["type"] == "rect":
        panel.axvspan(shape["x0"], shape["x1"], color=shape["fillcolor"], alpha=shape["opacity"], linewidth=0)
    else:
        drawn = shape["line"]
        panel.axvline(
            shape["x0"], color=drawn["color"], linewidth=drawn["width"], linestyle=_DASHES[drawn["dash"]]
        )
