"""The report's charts: each function draws one, and says in words what it shows.

One style: floors grey, what hears a voice in colour, ceilings dark, controls dotted, chance dashed.
The colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; lines are named
where they end, so that no legend has to be looked up.
"""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluation.results import Record
from training.evaluation.wording import chance_number, number, unit_of

ACCENT = "#0072b2"
SYSTEM_COLOURS = (ACCENT, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
FLOOR_COLOURS = ("#a3a39d", "#8b8b85", "#73736d", "#b4b4ae")
CEILING_COLOURS = ("#1d1d1b", "#4a4a46", "#333330")
CONTROL_COLOUR = "#96968f"
INK, MUTED, GRID = "#2b2b28", "#6b6b66", "#e6e5df"
LINES = {"system": "-", "floor": "-", "ceiling": "-", "control": ":"}
NARROW, WIDE = 4.4, 7.4  # inches

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "speech2face",  # the same chart is the same bytes
    "svg.fonttype": "path",  # needs no font where it is read
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        svg: its bytes.
        alt: what it shows, in words, for those who do not see it.
        caption: how to read it, one sentence.
        width: inches; a narrow one may stand beside another.
    """

    svg: bytes
    alt: str
    caption: str
    width: float = WIDE

    @property
    def uri(self) -> str:
        """The chart as a data URI, so that a page holds it itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def colours_of(systems: Sequence[tuple[str, str]]) -> dict[str, str]:
    """A colour for each system, by role.

    Args:
        systems: (name, role) in the order of the report.
    """
    palettes = {"floor": FLOOR_COLOURS, "ceiling": CEILING_COLOURS, "system": SYSTEM_COLOURS}
    hues: dict[tuple[str, str], str] = {}
    colours: dict[str, str] = {}
    shorter: dict[tuple[str, str], list[str]] = {}
    for name, role in systems:
        bare = (re.sub(r", [\d.]+ s$", "", name), role)  # 3 s and 6 s of speech share a hue
        if bare not in hues:
            palette = palettes.get(role, (CONTROL_COLOUR,))
            hues[bare] = palette[sum(of == role for _, of in hues) % len(palette)]
        shorter.setdefault(bare, []).append(name)
    for bare, names in shorter.items():
        seconds = {name: float((re.findall(r", ([\d.]+) s$", name) or [0])[0]) for name in names}
        for place, name in enumerate(sorted(names, key=seconds.__getitem__, reverse=True)):
            colours[name] = _lighter(hues[bare], 0.45 * min(place, 1) + 0.2 * max(place - 1, 0))
    return colours


def _lighter(colour: str, share: float) -> str:
    """A colour mixed with white: all white for a share of 1."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(part + min(share, 0.8) * (255 - part)) for part in parts]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def recall_chart(curves: Sequence[dict[str, Any]], colours: dict[str, str]) -> Chart:
    """R@K of each system against chance.

    Args:
        curves: of one gallery: system, role, gallery, k [], recall [], chance [].
        colours: by system.
    """
    gallery = curves[0]["gallery"]
    with _figure(WIDE, 3.9) as (figure, axes):
        k = np.asarray(curves[0]["k"])
        chance = 100 * np.asarray(curves[0]["chance"])
        axes.plot(k, chance, color=INK, linestyle=(0, (5, 3)), linewidth=1.1, zorder=3)
        ends = [(float(chance[-1]), "chance", INK)]
        for curve in curves:
            colour = colours[curve["system"]]
            recall = 100 * np.asarray(curve["recall"])
            axes.plot(curve["k"], recall, color=colour, linestyle=LINES[curve["role"]])
            ends.append((float(recall[-1]), curve["system"], colour))
        axes.set_xscale("log")
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if tick <= k.max()]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(k.min(), k.max())
        axes.set_ylim(0, max(5.0, 1.05 * max(end for end, _, _ in ends)))
        axes.set_xlabel("K: how many faces of the gallery are looked at")
        axes.set_ylabel("speaker's face among them, %")
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        _name_ends(axes, ends)
        return _chart(
            figure,
            f"R@K curves in a gallery of {gallery} faces. At K = {k.max()}: "
            + "; ".join(f"{name} {end:.1f} %" for end, name, _ in ends)
            + ".",
            f"How often the speaker's face is among the first K of {gallery}.",
        )


def roc_chart(curves: Sequence[dict[str, Any]], colours: dict[str, str], title: str) -> Chart:
    """ROC curves of telling a speaker's face from others'.

    Args:
        curves: of one restriction: system, role, false_positive [], true_positive [], auc.
        colours: by system.
        title: whom the others are taken from.
    """
    with _figure(NARROW, 3.7 + 0.165 * len(curves)) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=INK, linestyle=(0, (5, 3)), linewidth=1.1, zorder=3)
        for curve in curves:
            axes.plot(
                100 * np.asarray(curve["false_positive"]),
                100 * np.asarray(curve["true_positive"]),
                color=colours[curve["system"]],
                linestyle=LINES[curve["role"]],
                label=f"{_folded(curve['system'], 44)}  {curve['auc']:.2f}",
            )
        axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        axes.set_xlabel("other faces accepted, %")
        axes.set_ylabel("speaker's face accepted, %")
        axes.set_title(title)
        _key_below(axes, most_columns=1)
        return _chart(
            figure,
            f"ROC curves {title}. Area under the curve: "
            + "; ".join(f"{curve['system']} {curve['auc']:.2f}" for curve in curves)
            + "; chance 0.50.",
            f"Area under the curve {title}; the diagonal is chance.",
            NARROW,
        )


def angle_chart(histograms: Sequence[dict[str, Any]], colours: dict[str, str]) -> Chart:
    """How the angles between predicted and true embeddings are distributed.

    Args:
        histograms: system, role, edges [], counts [].
        colours: by system.
    """
    with _figure(WIDE, 3.4 + 0.165 * -(-len(histograms) // 2)) as (figure, axes):
        means, highest = [], 1.0
        for histogram in histograms:
            edges, counts = np.asarray(histogram["edges"]), np.asarray(histogram["counts"], float)
            share = 100 * counts / max(counts.sum(), 1)
            middles = (edges[1:] + edges[:-1]) / 2
            mean = float(middles @ counts / max(counts.sum(), 1))
            means.append((mean, histogram["system"]))
            colour = colours[histogram["system"]]
            label = f"{histogram['system']}  {mean:.0f}°"
            axes.stairs(share, edges, color=colour, linestyle=LINES[histogram["role"]], label=label)
            if histogram["role"] == "system":
                highest = max(highest, float(share.max()))
                axes.stairs(share, edges, color=colour, fill=True, alpha=0.10)
        axes.set_xlabel("angle between the embedding and that of the speaker's face, degrees")
        axes.set_ylabel("pairs, %")
        axes.set_ylim(0, 1.6 * highest)  # a constant or a ceiling may stand in a single column
        axes.set_xlim(0, 180)
        axes.axvline(90, color=MUTED, linestyle=(0, (5, 3)), linewidth=1.1)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        _key_below(axes)
        return _chart(
            figure,
            "Histograms of the angle between embeddings. Means: "
            + "; ".join(f"{name} {mean:.0f}°" for mean, name in means)
            + "; unrelated embeddings lie at 90°.",
            "Angles to the speaker's face; 0° is the face itself, 90° (dashed) is unrelated. "
            "Columns that rise above the frame are cut off.",
        )


def confusion_chart(confusions: Sequence[dict[str, Any]]) -> Chart:
    """Confusion matrices of one attribute, a panel a system; rows are the truth.

    Args:
        confusions: attribute, system, classes [], counts [[]].
    """
    attribute = confusions[0]["attribute"]
    classes = len(confusions[0]["classes"])
    columns = min(len(confusions), 4 if classes <= 2 else 2)
    rows = -(-len(confusions) // columns)
    side = 1.25 + 0.36 * classes
    with _grid(rows, columns, WIDE, rows * side) as (figure, panels):
        said = []
        for axes, confusion in zip(panels, confusions, strict=False):
            counts = np.asarray(confusion["counts"], float)
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.nan_to_num(100 * counts / counts.sum(1, keepdims=True))
            axes.imshow(share, cmap=_tints(), vmin=0, vmax=100, aspect="auto")
            names = confusion["classes"]
            for row, column in np.ndindex(*share.shape):
                ink = "white" if share[row, column] > 68 else INK  # light blue takes dark
                text = f"{share[row, column]:.0f}" if counts[row].sum() else ""
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8.5)
            axes.set_xticks(
                range(len(names)), names, fontsize=7.5, rotation=0 if classes < 4 else 25
            )
            axes.set_yticks(range(len(names)), names, fontsize=7.5)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(_folded(confusion["system"], 22 if columns > 2 else 44), fontsize=8.5)
            right = np.trace(counts) / max(counts.sum(), 1)
            said.append(f"{confusion['system']} {right:.0%} right")
        return _chart(
            figure,
            f"Confusion matrices of {attribute}: {'; '.join(said)}.",
            f"{attribute.capitalize()}: rows are the truth, columns what the judge reads, in % of "
            "the row.",
        )


def craniofacial_chart(scatters: Sequence[dict[str, Any]]) -> Chart:
    """Facial measurements of two faces of a person against each other, a panel a measurement.

    Args:
        scatters: of one system: measurement, r, p, one [], other [], system.
    """
    columns = 4
    rows = -(-len(scatters) // columns)
    with _grid(rows, columns, WIDE, 1.85 * rows) as (figure, panels):
        for axes, scatter in zip(panels, scatters, strict=False):
            one, other = np.asarray(scatter["one"]), np.asarray(scatter["other"])
            axes.scatter(one, other, s=5, color=ACCENT, alpha=0.35, linewidths=0, rasterized=True)
            if len(one) > 1 and np.ptp(one) > 0:
                slope, offset = np.polyfit(one, other, 1)
                ends = np.asarray([one.min(), one.max()])
                axes.plot(ends, slope * ends + offset, color=INK, linewidth=1)
            axes.set_title(scatter["measurement"].replace("_", " "), fontsize=8)
            r, p = scatter.get("r"), scatter.get("p")
            said = "no r" if r is None else f"r = {number(r, 'r')}{_significance(p)}"
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
            axes.text(0.03, 0.96, said, transform=axes.transAxes, va="top", fontsize=8, bbox=box)
            axes.set(xticks=[], yticks=[])
        said = "; ".join(
            f"{s['measurement'].replace('_', ' ')} {number(s['r'], 'r')}"
            for s in scatters
            if s["r"] is not None
        )
        return _chart(
            figure,
            f"Facial measurements of {scatters[0]['system']} against the reference. r: {said}.",
            f"{scatters[0]['system']}: each point is a person; across, the face decoded from the "
            "true embedding, up, the face from the voice. * p < 0.05, *** p < 0.001.",
        )


def tsne_chart(tsne: dict[str, Any]) -> Chart:
    """The predicted embeddings in two dimensions, coloured by gender and by age.

    Args:
        tsne: x [], y [], gender [], age [], system.
    """
    from matplotlib.colors import LinearSegmentedColormap

    x, y = np.asarray(tsne["x"]), np.asarray(tsne["y"])
    genders = np.asarray(tsne["gender"])
    ages = np.asarray([np.nan if age is None else age for age in tsne["age"]], float)
    with _grid(1, 2, WIDE, 3.5) as (figure, (by_gender, by_age)):
        dots = {"s": 11, "linewidths": 0, "rasterized": True}
        for gender, colour in (("female", "#d55e00"), ("male", ACCENT), ("", CONTROL_COLOUR)):
            here = genders == gender
            if here.any():
                label = {"female": "women", "male": "men", "": "unknown"}[gender]
                by_gender.scatter(x[here], y[here], color=colour, alpha=0.65, label=label, **dots)
        by_gender.legend(  # above the map, where no point can lie
            frameon=False,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
            ncols=3,
            fontsize=8,
            markerscale=1.6,
            handletextpad=0.1,
            columnspacing=0.8,
        )
        by_gender.set_title("gender")
        known = np.isfinite(ages)
        ramp = LinearSegmentedColormap.from_list("age", ["#f0d9a8", "#c9703f", "#4a1f3d"])
        by_age.scatter(x[~known], y[~known], color=GRID, **dots)
        if known.any():
            points = by_age.scatter(x[known], y[known], c=ages[known], cmap=ramp, **dots)
            bar = figure.colorbar(points, ax=by_age, fraction=0.04, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label("years")
        by_age.set_title("age")
        for axes in (by_gender, by_age):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        return _chart(
            figure,
            f"t-SNE map of the {len(x)} embeddings predicted by {tsne['system']}, coloured by "
            "gender and by age.",
            f"Embeddings predicted by {tsne['system']}, near where alike (t-SNE; its axes and "
            "distances between clusters mean nothing).",
        )


def interval_chart(
    rows: Sequence[tuple[str, Record, float | None]],
    caption: str,
    label: str,
    colours: dict[str, str] | None = None,
) -> Chart:
    """Figures as dots with their intervals, one below the other, chance as a dashed mark.

    Args:
        rows: name, record and chance (None where there is none) of each, all of one unit.
        caption: how to read it.
        label: of the axis.
        colours: by system; accent where the interval lies above chance, grey else, if None.
    """
    of = unit_of(rows[0][1].measure)
    with _figure(WIDE, 0.55 + 0.27 * len(rows)) as (figure, axes):
        said = []
        for place, (name, record, chance) in enumerate(rows):
            low, high = record.interval or (record.value, record.value)
            clear = chance is not None and low > chance
            colour = (colours or {}).get(record.system) or (ACCENT if clear else "#8a8a84")
            ends = np.asarray([low, high]) * of.factor
            axes.plot(ends, [place, place], color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(record.value * of.factor, place, "o", color=colour, markersize=5.5)
            if chance is not None:
                axes.plot(
                    [chance * of.factor] * 2,
                    [place - 0.42, place + 0.42],
                    color=INK,
                    linestyle=(0, (2, 1.5)),
                    linewidth=1,
                )
            beside = "" if chance is None else f" (chance {chance_number(chance, record.measure)})"
            said.append(f"{name} {record.value * of.factor:.{of.decimals}f}{of.sign}{beside}")
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_xlabel(label)
        known = [chance * of.factor for _, _, chance in rows if chance is not None]
        if known:  # near chance must look near
            left, right = axes.get_xlim()
            beside = 0.2 * of.factor
            axes.set_xlim(min(left, min(known) - beside / 2), max(right, max(known) + beside))
        return _chart(figure, f"{caption} {'; '.join(said)}.", caption)


def _folded(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _significance(p: float | None) -> str:
    if p is None or p >= 0.05:
        return ""
    return " ***" if p < 0.001 else " *"


def _tints() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("tints", ["#f6f5f0", "#9cc4de", "#00476f"])


def _name_ends(axes: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes each line's name right of its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    places = spread([end for end, _, _ in ends], (high - low) * 0.058, high)
    for place, (end, name, colour) in zip(places, ends, strict=True):
        axes.annotate(
            f" {name}",
            (1, end),
            xytext=(1.03, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def spread(places: Sequence[float], apart: float, highest: float) -> list[float]:
    """Moves places apart as little as it takes, none above the highest.

    Args:
        places: ascending.
        apart: the least distance that two may have.
        highest: where the last may be at most.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + apart) if found else place)
    ceiling = highest
    for index in reversed(range(len(found))):
        found[index] = min(found[index], ceiling)
        ceiling = found[index] - apart
    return found


def _key_below(axes: Any, most_columns: int = 4) -> None:
    """The legend under the axis, in as many columns as fit into the figure."""
    figure = axes.figure
    for columns in range(most_columns, 0, -1):
        key = figure.legend(
            *axes.get_legend_handles_labels(),
            frameon=False,
            fontsize=8,
            loc="outside lower left",
            ncols=columns,
            labelcolor="linecolor",
            handlelength=1.4,
            columnspacing=1.2,
        )
        if columns == 1 or key.get_window_extent().width < 0.98 * figure.bbox.width:
            return
        key.remove()


@contextmanager
def _grid(rows: int, columns: int, width: float, height: float) -> Iterator[tuple[Any, list]]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        yield figure, panels


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    with _grid(1, 1, width, height) as (figure, (axes,)):
        yield figure, axes


def _chart(figure: Any, alt: str, caption: str, width: float = WIDE) -> Chart:
    for axes in figure.axes:
        if not axes.has_data() and not axes.texts:
            axes.set_visible(False)  # a panel that nothing was left for
    target = io.BytesIO()
    figure.savefig(
        target,
        format="svg",
        dpi=160,
        metadata={"Date": None},
        transparent=True,
    )
    return Chart(target.getvalue(), alt, caption, width)
