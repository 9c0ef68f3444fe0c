"""Charts are drawn from the data that they are given, and say in words what they show."""

import base64
import re
from xml.etree import ElementTree

import pytest

from tests.fake_results import EMBEDDINGS, charts, results
from training.evaluation import charts as drawing
from training.evaluation.results import Record


@pytest.fixture(scope="module")
def data():
    import numpy as np

    return charts(np.random.default_rng(0))


@pytest.fixture(scope="module")
def colours():
    return drawing.colours_of([(name, role) for name, role, _, _ in EMBEDDINGS])


def lines_of(chart: drawing.Chart, colour: str) -> list[str]:
    """The paths that were drawn in a colour."""
    return re.findall(rf'<path d="([^"]+)"[^>]*stroke: {colour}', chart.svg.decode())


def whole(chart: drawing.Chart) -> None:
    """It is a picture that asks for nothing, with words beside it."""
    ElementTree.fromstring(chart.svg)
    assert chart.uri.startswith("data:image/svg+xml;base64,")
    assert base64.b64decode(chart.uri.split(",")[1]) == chart.svg
    assert not re.search(rb'(?:href|src)="(?!#|data:)', chart.svg)
    assert len(chart.alt) > 40 and chart.caption.endswith(".") and "nan" not in chart.alt


def test_roles_have_their_colours(colours):
    def lightness(colour):
        return sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) / 3

    assert colours["voice, 6 s"] == drawing.ACCENT
    assert lightness(colours["voice, 3 s"]) > lightness(colours["voice, 6 s"])
    for name, role, _, _ in EMBEDDINGS:
        red, green, blue = (int(colours[name][i : i + 2], 16) for i in (1, 3, 5))
        grey = max(red, green, blue) - min(red, green, blue) < 12
        assert grey is (role != "system"), name
    assert lightness(colours["true embedding"]) < 60 < lightness(colours["gender oracle"])
    other = drawing.colours_of([("a: voice, 6 s", "system"), ("b: voice, 6 s", "system")])
    assert len(set(other.values())) == 2


def test_recall_against_chance(data, colours):
    curves = [c for c in data["recall"] if c["kind"] == "embeddings"]
    chart = drawing.recall_chart(curves, colours)
    whole(chart)
    assert "gallery of 164" in chart.alt and f"chance {100 * 100 / 164:.1f} %" in chart.alt
    assert lines_of(chart, drawing.ACCENT)
    assert re.search(
        rf"stroke: {drawing.INK}[^>]*stroke-dasharray", chart.svg.decode()
    ) or re.search(
        r"stroke-dasharray: [^;]+; stroke-dashoffset: 0; stroke: " + drawing.INK, chart.svg.decode()
    )


def test_roc_names_its_area(data, colours):
    curves = [c for c in data["roc"] if c["kind"] == "embeddings" and not c["restriction"]]
    chart = drawing.roc_chart(curves, colours, "among everybody")
    whole(chart)
    assert "true embedding 1.00" in chart.alt and chart.width < drawing.WIDE
    assert lines_of(chart, drawing.ACCENT)


def test_angles_say_their_means(colours):
    histograms = [
        {"system": "voice, 6 s", "role": "system", "edges": [0, 60, 120, 180], "counts": [1, 3, 0]},
        {"system": "constant", "role": "floor", "edges": [0, 60, 120, 180], "counts": [0, 4, 0]},
    ]
    chart = drawing.angle_chart(histograms, colours)
    whole(chart)
    assert "voice, 6 s 75°" in chart.alt and "constant 90°" in chart.alt


def test_confusions_are_shares_of_the_truth(data):
    confusion = {
        "attribute": "gender",
        "system": "faces",
        "classes": ["female", "male"],
        "counts": [[3, 1], [0, 0]],
    }
    chart = drawing.confusion_chart([confusion])
    whole(chart)
    assert "faces 75% right" in chart.alt
    for attribute in ("gender", "age group"):
        whole(
            drawing.confusion_chart([c for c in data["confusions"] if c["attribute"] == attribute])
        )


def test_craniofacial_scatter_says_r(data):
    chart = drawing.craniofacial_chart(data["craniofacial"])
    whole(chart)
    for scatter in data["craniofacial"]:
        assert f"{scatter['measurement'].replace('_', ' ')} {scatter['r']:.2f}" in chart.alt
    unknown = {**data["craniofacial"][0], "r": None, "p": None, "one": [1, 1], "other": [2, 2]}
    whole(drawing.craniofacial_chart([unknown]))


def test_tsne_of_unknown_ages_and_genders(data):
    whole(drawing.tsne_chart(data["tsne"]))
    two = {"x": [0, 1], "y": [0, 1], "gender": ["", "male"], "age": [None, None], "system": "voice"}
    chart = drawing.tsne_chart(two)
    whole(chart)
    assert "2 embeddings" in chart.alt


def test_what_lies_above_chance_is_coloured():
    def row(name, low, high):
        where = ("what_the_voice_should_not_tell", "faces", "voice", "system", f"{name}_r")
        return name, Record(*where, (low + high) / 2, (low, high), 9, 9), 0.0

    quiet = drawing.interval_chart([row("skin tone", -0.1, 0.1)], "Probes.", "r")
    loud = drawing.interval_chart(
        [row("skin tone", -0.1, 0.1), row("beard", 0.1, 0.3)], "Probes.", "r"
    )
    whole(loud)
    assert not lines_of(quiet, drawing.ACCENT) and lines_of(loud, drawing.ACCENT)
    assert "beard 0.20 (chance 0.00)" in loud.alt


def test_the_same_chart_is_the_same_bytes(colours):
    records = results().select(table="association", kind="embeddings", measure="auc")
    rows = [(r.system, r, 0.5) for r in records]
    one, other = (drawing.interval_chart(rows, "AUC.", "AUC", colours) for _ in range(2))
    assert one.svg == other.svg


def test_names_at_the_ends_are_moved_apart_and_stay_beside_the_chart():
    assert drawing.spread([1, 50, 99], 5, 100) == [1, 50, 99]
    assert drawing.spread([10, 11, 12], 5, 100) == [10, 15, 20]
    assert drawing.spread([60, 99, 100, 100], 5, 100) == [60, 90, 95, 100]


@pytest.mark.parametrize("name", ["voice, 6 s", "average face of the gender and age group"])
def test_no_legend_is_wider_than_its_figure(name):
    from matplotlib.figure import Figure

    kept = []
    original = Figure.savefig

    def keep(figure, *arguments, **options):
        original(figure, *arguments, **options)
        kept.append(figure)

    systems = [f"{name} {place}" for place in range(7)]
    histograms = [
        {"system": system, "role": "floor", "edges": [0, 90, 180], "counts": [3, 1]}
        for system in systems
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        drawing.angle_chart(histograms, dict.fromkeys(systems, drawing.ACCENT))
    (figure,) = kept
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
