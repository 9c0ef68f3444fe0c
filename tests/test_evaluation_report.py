"""The report says what the records say: every headline figure, kinds apart, and words by rule."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.fake_results import pictures, results
from training.evaluation import wording
from training.evaluation.conclusions import conclude, main_systems
from training.evaluation.report import Pictures, model_index, sections, unbroken, write_report
from training.evaluation.results import (
    LAW_FROM_GENDER,
    LAW_FROM_VOICE,
    WITH_TRUTH,
    Record,
    Results,
)


class Page(HTMLParser):
    """Tables with the section they stand in, images, and everything that names an address."""

    def __init__(self, text: str):
        super().__init__()
        self.tables, self.images, self.addresses, self.words = [], [], [], ""
        self.anchors, self.row, self.cell = [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[k] for k in ("src", "href", "srcset") if k in attributes]
        if "id" in attributes:
            self.anchors.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "table":
            self.tables.append((self.anchors[-1], []))
        if tag == "tr":
            self.row = []
            self.tables[-1][1].append(self.row)
        if tag in ("td", "th"):
            self.cell = []

    def handle_data(self, data):
        data = data.replace("\xa0", " ")
        self.words += data
        if self.cell is not None:
            self.cell.append(data.strip())

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.row.append(" ".join(part for part in self.cell if part))
            self.cell = None


@pytest.fixture(scope="module")
def found() -> Results:
    return results()


@pytest.fixture(scope="module")
def report(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    markdown, html = write_report(folder, found, pictures())
    return markdown.read_text(), html.read_text()


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report[1])


def markdown_tables(text: str) -> list[tuple[str, list[list[str]]]]:
    """(heading, rows) of each table, in order."""
    tables, heading, rows = [], "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            tables.append((heading, rows))
            rows = []
    return tables


def headline_records(found: Results, kind: str, table: str) -> list[Record]:
    measures = wording.HEADLINES[table]
    return [r for r in found.select(kind=kind, table=table) if r.measure in measures]


@pytest.mark.parametrize("kind", ["embeddings", "faces"])
def test_every_headline_figure_stands_in_the_table_of_its_kind(found, report, page, kind):
    checked = 0
    for table in wording.HEADLINES:
        records = headline_records(found, kind, table)
        if not records:
            continue
        title = f"{wording.TITLES[table]} ({kind})"
        of_markdown = next(rows for heading, rows in markdown_tables(report[0]) if heading == title)
        anchor = f"{kind}-{wording.slug(table)}"
        of_html = next(rows for place, rows in page.tables if place == anchor)
        for rows, first in ((of_markdown, 2), (of_html, 1)):
            columns = rows[0][first:]
            for record in records:
                row = next(row for row in rows if row[first - 1] == record.system)
                cell = row[first:][columns.index(wording.measure_name(record.measure))]
                numbers = [float(n.replace("−", "-")) for n in re.findall(r"[−\d.]+\d", cell)]
                factor = wording.unit_of(record.measure).factor
                expected = [factor * v for v in (record.value, *record.interval)]
                half = 0.5 * 10 ** -wording.unit_of(record.measure).decimals
                np.testing.assert_allclose(numbers, expected, atol=1.01 * half)
                checked += 1
    assert checked >= 2 * 60


def test_embeddings_and_faces_share_no_table(found, report, page):
    systems = {
        kind: {r.system for r in found.records if r.kind == kind and r.table != "what_it_should"}
        for kind in ("embeddings", "faces")
    }
    tables = [rows for _, rows in page.tables] + [rows for _, rows in markdown_tables(report[0])]
    named = [{cell for row in rows for cell in row} for rows in tables]
    assert not systems["embeddings"] & systems["faces"]
    assert not [words for words in named if all(words & systems[kind] for kind in systems)]
    assert sum(bool(words & systems["faces"]) for words in named) > 20


def test_rows_are_floors_systems_ceilings_controls_and_chance(page):
    rows = next(rows for place, rows in page.tables if place == "embeddings-association")
    assert [row[0] for row in rows[1:]] == [
        "constant",
        "gender oracle",
        "gender-and-age oracle",
        "voice, 3 s",
        "voice, 6 s",
        "true embedding",
        "another picture of the speaker",
        "voice, 6 s, shuffled",
        "voice, 6 s, shuffled within the gender",
        "chance",
    ]
    assert rows[-1][1:] == ["50.0 %", "0.50", "0.50", "0.50"]


def test_every_record_of_everybody_is_on_the_page(found, page):
    cells = {cell for _, rows in page.tables for row in rows for cell in row}
    cells |= {re.sub(" (better|worse)$", "", cell) for cell in cells}
    for record in found.records:
        if record.by is None and not record.table.startswith("what_"):
            assert wording.figure_text(record) in cells, record


def test_every_group_is_on_the_page(found, page):
    cells = {cell for _, rows in page.tables for row in rows for cell in row}
    grouped = [record for record in found.records if record.by]
    assert len(grouped) > 1000
    for record in grouped:
        assert wording.figure_text(record) in cells, record
        assert f"{record.group} ({record.speakers} speakers)" in cells


def test_the_page_asks_for_nothing_and_shows_no_gap(report, page):
    own = [a for a in page.addresses if a.startswith("#")]
    assert {a[1:] for a in own} <= set(page.anchors)
    assert all(a.startswith(("#", "data:image/")) for a in page.addresses)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", report[1])
    for text in (report[0], page.words):
        assert not re.search(r"\b(nan|NaN|None|inf|Undefined)\b", text)


def test_pictures_are_inline_and_described(page):
    kinds = [re.match(r"data:image/(png|svg\+xml);base64,", i["src"])[1] for i in page.images]
    assert kinds.count("png") == 5 * 3 + 2 * 2 and kinds.count("svg+xml") > 10
    assert all(len(image["alt"]) > 10 for image in page.images)
    assert "worst: decoded from the voice, diffusion" in [image["alt"] for image in page.images]


def test_the_markdown_has_no_picture_and_its_tables_are_whole(report):
    assert "![" not in report[0] and "<img" not in report[0] and "data:image" not in report[0]
    tables = markdown_tables(report[0])
    assert len(tables) > 30
    for heading, rows in tables:
        assert len({len(row) for row in rows}) == 1, heading


def test_the_markdown_says_first_what_was_measured_how_and_where_to_read_on(report):
    head, contents = report[0].split("- [What it can do]")[0].split("```bash\n")
    assert "Measured on data/demo_cast, test split: 656 pairs of 164 speakers" in head
    assert contents.startswith("python -m training.evaluation --checkpoint demo")
    assert "`training/README.md` explains every measure" in contents
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in report[0].splitlines()
        if line.startswith("#")
    }
    links = re.findall(r"\]\(#([^)]+)\)", report[0])
    assert len(links) > 15 and set(links) <= headings


def test_the_markdown_leaves_out_what_nobody_reads_there(found, report, page):
    tables = [rows for _, rows in markdown_tables(report[0]) if rows[0][0] == "angle, centred"]
    assert not tables  # it has no groups in these results
    (rows,) = [
        rows
        for heading, rows in markdown_tables(report[0])
        if rows[0][0] == "AUC" and heading == "Association (embeddings)"
    ]
    systems = ["gender oracle", "gender-and-age oracle", "voice, 6 s"]
    assert rows[0] == ["AUC", *systems, "another picture of the speaker", "chance"]
    groups = ["women", "men", "under 30", "30 to 44", "45 to 59", "60 and over"]
    assert [row[0].split(" (")[0] for row in rows[2:]] == groups
    record = found.find(**VOICE, table="association", measure="auc", by="gender", group="male")
    assert rows[3][3] == wording.figure_text(record)
    assert len(report[0]) < 75_000 < sum(map(len, page.words)) + len(report[1])
    assert "R@1 of 100, by L1" not in report[0] and "R@1, by L1" in report[0]
    assert "R@1 of 100, by L1" in page.words


def test_nothing_is_balanced_within_one_gender(tmp_path):
    where = {"table": "attribute_agreement", **FACES, "role": "system", "value": 0.9}
    where |= {"interval": (0.8, 1.0), "speakers": 9, "samples": 9, "by": "gender", "group": "male"}
    records = [
        Record(measure=name, chance=chance, **where)
        for name, chance in (("gender_accuracy", None), ("gender_balanced_accuracy", 1.0))
    ]
    records.append(dataclasses.replace(records[0], by=None, group=None))
    for path in write_report(tmp_path, Results(about={}, records=records)):
        text = path.read_text()
        assert "gender, right" in text and "gender, balanced" not in text


def test_tables_of_a_kind_are_explained_in_its_words():
    assert wording.explained("voices", "embeddings") != wording.explained("voices", "faces")
    assert wording.explained("voices", "embeddings").startswith("Recordings whose speaker's face")
    assert wording.explained("kernel_distance", "faces") == wording.EXPLAINED["kernel_distance"]


def test_a_report_without_pictures_charts_and_checkpoint(tmp_path):
    record = Record("retrieval", "embeddings", "voice", "system", "recall_at_1", None, None, 0, 0)
    markdown, html = write_report(tmp_path, Results(about={}, records=[record]), Pictures())
    assert "| system | voice | — |" in markdown.read_text()
    assert "Faces</h2>" not in html.read_text()


def changed(found: Results, change, **where) -> Results:
    """The same results, with other values in some records."""
    chosen = set(map(id, found.select(**where)))
    assert chosen
    records = [dataclasses.replace(r, **change(r)) if id(r) in chosen else r for r in found.records]
    return dataclasses.replace(found, records=records)


def said(found: Results, claim: str, within: str = "") -> list:
    return [c for c in conclude(found) if claim in c.claim and within in c.text]


def only(found: Results, **where) -> Results:
    """Few records and no charts: quickly printed."""
    return Results(about={}, records=found.select(**where))


def interval(low: float, high: float):
    return lambda record: {"value": (low + high) / 2, "interval": (low, high)}


FACES = {"kind": "faces", "system": "diffusion from voice, 6 s"}
VOICE = {"kind": "embeddings", "system": "voice, 6 s"}
EMBEDDING = "The embedding predicted from 6 s of voice"


def test_age_is_read_only_where_its_interval_leaves_out_nothing(found):
    of = {**FACES, "measure": "age_r", "table": "attribute_agreement"}
    (conclusion,) = said(
        changed(found, interval(-0.09, 0.15), **of), "Age is not read from the faces."
    )
    assert conclusion.part == "cannot" and "r = 0.03 [−0.09, 0.15]" in conclusion.text
    (conclusion,) = said(changed(found, interval(0.05, 0.15), **of), "Age is read")
    assert conclusion.part == "can"


def test_men_and_women_are_told_apart_by_their_intervals(found):
    assert "do not clearly differ" in said(found, "Gender is read from the faces.")[0].text
    of = {**FACES, "table": "attribute_agreement", "measure": "gender_accuracy_female"}
    worse = changed(found, interval(0.6, 0.7), **of)
    (conclusion,) = said(worse, "Gender is read from the faces.")
    assert "men are read better than women" in conclusion.text and "65.0 %" in conclusion.text
    of["measure"] = "gender_balanced_accuracy"
    (conclusion,) = said(changed(found, interval(0.45, 0.55), **of), "Gender is not read")
    assert conclusion.part == "cannot"


def test_within_one_gender(found):
    (can,) = said(found, "Within one gender it tells")
    assert can.part == "can" and can.text.startswith(EMBEDDING)
    hardly = changed(
        found, interval(0.51, 0.54), **VOICE, table="association", measure="auc_same_gender"
    )
    assert said(hardly, "Within one gender it tells speakers apart hardly better than chance.")
    touched = changed(
        found, interval(0.5, 0.56), **VOICE, table="association", measure="auc_same_gender"
    )
    assert not said(touched, "Within one gender it tells")
    assert len(said(touched, "Within one gender it does not")) == 2


def test_the_oracle_is_met_with_the_paired_difference(found):
    of = {"kind": "embeddings", "table": "differences", "system": "voice, 6 s"}
    for low, high, claim in (
        (0.01, 0.03, "It knows more than gender and age."),
        (-0.01, 0.01, "It knows no more than gender and age would tell."),
        (-0.03, -0.01, "Being told gender and age would be better"),
    ):
        other = found
        for measure in ("association: auc", "retrieval: recall_at_10"):
            where = {**of, "measure": measure, "other": "gender-and-age oracle"}
            other = changed(other, interval(low, high), **where)
        (conclusion,) = said(other, claim, EMBEDDING)
        assert conclusion.part == ("can" if low > 0 else "cannot")


def test_without_a_paired_difference_overlapping_intervals_are_level(found):
    alone = dataclasses.replace(
        found, records=[r for r in found.records if r.table != "differences"]
    )
    assert len(said(alone, "It knows no more than gender and age would tell.", EMBEDDING)) == 1


def test_share_of_the_ceiling(found):
    other = changed(found, interval(0.6, 0.7), **FACES, table="association", measure="auc")
    best = {**FACES, "system": "diffusion from true embedding", "table": "association"}
    other = changed(other, interval(0.75, 0.85), **best, measure="auc")
    (conclusion,) = said(other, "How far it gets", "faces")
    assert "50 % in AUC (0.65 [0.60, 0.70] of 0.80 [0.75, 0.85])" in conclusion.text
    above = changed(other, interval(0.9, 0.95), **FACES, table="association", measure="auc")
    (warning,) = said(above, "above its ceiling")
    assert warning.warning


def test_faces_from_voice_stand_beside_what_the_law_allows(found):
    of = {**FACES, "table": WITH_TRUTH, "measure": "mean_r"}
    for low, high, claim, part in (
        (-0.1, 0.1, "The measurements of the faces do not follow the true ones.", "cannot"),
        (0.1, 0.2, "The measurements of the faces follow the true ones, less than", "can"),
        (0.2, 0.32, "follow the true ones, and the law does not clearly allow more.", "can"),
    ):
        (conclusion,) = said(changed(found, interval(low, high), **of), claim)
        assert conclusion.part == part and not conclusion.warning
        assert conclusion.text.startswith("The faces decoded from 6 s of voice: r = ")
        assert "The law allows a listener 0.35 [0.30, 0.40] and whoever is" in conclusion.text
        best = found.find(**of | {"system": "diffusion from true embedding"})
        reached = f"the faces decoded from the true embedding reach {best.value:.2f} ["
        assert f"Read alike, {reached}" in conclusion.text
        assert "and the original faces reach" in conclusion.text
    (warning,) = said(changed(found, interval(0.42, 0.5), **of), "than the law allows.")
    assert warning.warning and "Something gives the answer away." in warning.text


def test_without_the_truth_nothing_is_said_of_it(found):
    older = [r for r in found.records if WITH_TRUTH not in (r.table, r.measure.split(": ")[0])]
    older = dataclasses.replace(found, records=older, charts={})
    assert not [c for c in conclude(older) if "true ones" in c.claim or "law allows" in c.text]
    titles = [section.title for section in sections(older, "faces")]
    assert "Craniofacial correlation with the original" in titles
    assert wording.TITLES[WITH_TRUTH] not in titles
    few = dataclasses.replace(found, records=[r for r in found.records if "law" not in r.system])
    (conclusion,) = said(few, "The measurements of the faces follow the true ones.")
    assert "The law" not in conclusion.text and "Read alike" in conclusion.text


def test_the_law_stands_in_the_table_of_the_true_faces(report, page):
    name = "Craniofacial correlation with the true face"
    rows = next(rows for place, rows in page.tables if place == f"faces-{wording.slug(WITH_TRUTH)}")
    assert rows[0][1:] == ["mean r", "mean r, persons permuted"]
    figures = {row[0]: row[1] for row in rows[1:]}
    assert figures[LAW_FROM_VOICE] == "0.35 [0.30, 0.40]" and figures["chance"] == "0.00"
    assert list(figures).index(LAW_FROM_GENDER) < list(figures).index(FACES["system"])
    tables = [t for heading, t in markdown_tables(report[0]) if heading == f"{name} (faces)"]
    assert [LAW_FROM_VOICE in row for row in tables[0]].count(True) == 1
    assert LAW_FROM_VOICE in tables[1][0] and tables[1][2][0] == "upper lip height"
    assert any("what the laws allow" in image["alt"] for image in page.images)


def test_a_second_decoder_is_told_apart_everywhere(found, tmp_path):
    second = [
        dataclasses.replace(r, system=r.system.replace("diffusion", "normalized"))
        for r in found.records
        if r.system.startswith("diffusion") and r.table not in ("diversity", "differences")
    ]
    both = dataclasses.replace(found, records=found.records + second, charts={})
    assert main_systems(both, "faces") == [FACES["system"], "normalized from voice, 6 s"]
    for claim in ("Gender is read from the faces.", "How far it gets", "the true ones"):
        normalized = said(both, claim, "The normalized faces decoded from 6 s of voice")
        assert len(normalized) == 1, claim
    (far,) = said(both, "How far it gets", "The normalized faces")
    assert "held against the normalized faces decoded from the true embedding" in far.text
    of_voices = write_report(tmp_path, only(both, table="voices"))[1]
    ((_, rows),) = Page(of_voices.read_text()).tables[:1]
    assert [row[0] for row in rows[1:]] == ["diffusion from voice", "normalized from voice"]


def test_a_control_that_knows_something_is_a_bold_warning(found, tmp_path):
    assert not [c for c in conclude(found) if c.warning]
    cheat = changed(
        found, interval(0.6, 0.7), system="voice, 6 s, shuffled", table="association", measure="auc"
    )
    (warning,) = [c for c in conclude(cheat) if c.warning]
    assert "does NOT score chance" in warning.claim and "AUC at 0.65 [0.60, 0.70]" in warning.text
    markdown, html = write_report(tmp_path, only(cheat, role="control", kind="embeddings"))
    assert f"**Warning: {warning.claim} {warning.text}**" in markdown.read_text()
    assert re.search(
        r'<div class="warning" role="alert">\s*<p>What knows nothing', html.read_text()
    )


def test_what_is_shuffled_within_the_gender_may_know_the_gender(found):
    of = {"system": "voice, 6 s, shuffled within the gender", "table": "association"}
    assert found.find(**of, measure="auc").interval[0] > 0.5
    cheat = changed(found, interval(0.6, 0.7), **of, measure="auc_same_gender")
    (warning,) = [c for c in conclude(cheat) if c.warning]
    assert "AUC, same gender at 0.65 [0.60, 0.70] (chance 0.50)" in warning.text


def test_faces_of_a_folder_have_a_folder_as_ceiling(found):
    folders = [
        dataclasses.replace(r, system=name, role=role)
        for name, role, of in (
            ("paper_from_voice: faces", "system", "diffusion from voice, 6 s"),
            ("paper_from_face: faces", "ceiling", "diffusion from true embedding"),
        )
        for r in found.select(system=of)
    ]
    both = dataclasses.replace(found, records=found.records + folders)
    (conclusion,) = said(both, "How far it gets", "“paper_from_voice”")
    assert (
        "The faces of “paper_from_voice”, held against the faces of “paper_from_face”: "
        in conclusion.text
    )


def test_a_trait_that_leaks_is_a_bold_warning(found, tmp_path):
    leak = changed(
        found,
        interval(0.1, 0.3),
        **FACES,
        table="what_the_voice_should_not_tell",
        measure="skin_tone_r",
    )
    (warning,) = [c for c in conclude(leak) if c.warning]
    assert "NOT at chance" in warning.claim
    assert "skin tone 0.20 [0.10, 0.30], chance 0.00" in warning.text
    assert "1 of 7 traits" in warning.text
    markdown, _ = write_report(
        tmp_path, only(leak, kind="faces", table="what_the_voice_should_not_tell")
    )
    assert "0.20 [0.10, 0.30], chance 0.00 **NOT at chance**" in markdown.read_text()
    below = changed(
        found,
        interval(-0.3, -0.1),
        **FACES,
        table="what_the_voice_should_not_tell",
        measure="skin_tone_r",
    )
    assert not [c for c in conclude(below) if c.warning]
    texts = [c.text for c in said(below, "It does not tell what a voice cannot tell.")]
    faces = "The faces decoded from 6 s of voice"
    assert texts[-1] == (
        f"{faces}, below chance: skin tone −0.20 [−0.30, −0.10], chance 0.00. Of 7 that tell "
        "nothing, about 0.2 would lie there by accident."
    )
    assert all("at chance" not in text for text in texts)


def test_what_gender_and_age_tell_is_a_traits_chance(found):
    where = {"table": "what_the_voice_should_not_tell", "kind": "faces", "role": "system"}
    where |= {"system": FACES["system"], "speakers": 160, "samples": 160}
    records = [
        Record(measure="grey_balanced_accuracy", value=0.6, interval=(0.55, 0.65), **where),
        Record(measure="grey_from_covariates", value=0.58, interval=(0.5, 0.66), **where),
    ]
    other = dataclasses.replace(found, records=found.records + records)
    assert not [c for c in conclude(other) if c.warning]
    assert [c for c in conclude(dataclasses.replace(other, records=records[:1])) if c.warning]


def test_age_that_only_the_embedding_knows_is_said_beside_the_faces(found):
    touched = changed(
        found,
        interval(-0.02, 0.12),
        **FACES,
        table="attribute_agreement",
        measure="age_r",
    )
    (plain,) = said(touched, "Age is not read from the faces.")
    assert "probe" not in plain.text
    of = {**VOICE, "table": "what_it_should", "measure": "age_r"}
    for low, high, knows in ((0.1, 0.3, "a little"), (0.4, 0.6, "it")):
        other = changed(touched, interval(low, high), **of)
        (both,) = said(other, f"Age is not read from the faces; the embedding knows {knows}.")
        assert both.part == "cannot" and "r = 0.05 [−0.02, 0.12]" in both.text
        value = (low + high) / 2
        assert f"a probe finds age with r = {value:.2f} [{low:.2f}, {high:.2f}]" in both.text
        assert f"{100 * value / 0.6:.0f} % of what the true voice allows" in both.text
    of_another = dataclasses.replace(
        other,
        records=[
            dataclasses.replace(r, system=f"other: {r.system}") if r.kind == "embeddings" else r
            for r in other.records
        ],
    )
    assert said(of_another, "Age is not read from the faces.")


def test_the_judge_is_not_held_against_itself(found):
    of = {"kind": "faces", "table": "attribute_agreement", "measure": "age_r"}
    touched = changed(found, interval(-0.09, 0.15), **of, system=FACES["system"])
    known = found.find(**of, system="original")
    (beside,) = said(touched, "Age is not read")
    assert f"of the original faces the judge reads it with r = {known.value:.2f}" in beside.text
    about = {"dataset": {"age_source": "judge"}}
    (alone,) = said(dataclasses.replace(touched, about=about), "Age is not read")
    assert "original" not in alone.text


def test_figures_are_not_broken_over_lines():
    text = "voice, 6 s, R@10 14.6 % [10.4, 18.9] and R@5, 3 of 4"
    assert unbroken(text) == "voice, 6\xa0s, R@10 14.6\xa0% [10.4,\xa018.9] and R@5, 3 of 4"


@pytest.mark.parametrize(
    ("low", "high", "part", "how"),
    [
        (0.98, 1.02, "can", "as much as"),
        (0.96, 0.99, "can", "nearly as much as"),
        (0.7, 0.8, "cannot", "less than"),
    ],
)
def test_nearly_as_different_as_persons_is_no_failing(found, low, high, part, how):
    of = {"table": "diversity", "measure": "relative_distance"}
    claim = f"The faces of one voice differ {how} persons do."
    (conclusion,) = said(changed(found, interval(low, high), **of), claim)
    assert conclusion.part == part


def test_a_claim_is_made_once_with_a_line_for_each_kind(found, report, page):
    claims = [c.claim for c in conclude(found) if c.claim]
    assert len(set(claims)) < len(claims)
    for claim in set(claims):
        assert page.words.count(claim) == 1 and report[0].count(f"**{claim}**") == 1
    for conclusion in conclude(found):
        assert conclusion.text in report[0] and conclusion.text in page.words
    assert re.search(
        r"^- \*\*Laws[^*]+learnt\.\*\*\n  - The embedding .*\n  - The faces", report[0], re.M
    )


def test_what_two_kinds_do_not_tell_alike_is_said_once(found):
    (conclusion,) = said(found, "It does not tell what a voice cannot tell.")
    faces = "the faces decoded from 6 s of voice"
    assert conclusion.text.startswith(f"{EMBEDDING} and {faces}, none of 7 traits above chance: ")


@pytest.mark.parametrize(
    ("system", "called"),
    [
        ("voice, 6 s", "the embedding predicted from 6 s of voice"),
        ("voice", "the embedding predicted from voice"),
        ("one: voice, 3 s", "the embedding that “one” predicts from 3 s of voice"),
        ("voice, 6 s, shuffled", "the embedding predicted from 6 s of voice, shuffled"),
        ("diffusion from voice, 6 s", "the faces decoded from 6 s of voice"),
        ("direct from voice, 6 s", "the faces decoded from 6 s of voice by direct"),
        ("one: diffusion from voice", "the faces that “one” decodes from voice"),
        ("diffusion from true embedding", "the faces decoded from the true embedding"),
        ("normalized from voice, 6 s", "the normalized faces decoded from 6 s of voice"),
        ("one: normalized from voice", "the normalized faces that “one” decodes from voice"),
        ("paper_from_face: faces", "the faces of “paper_from_face”"),
        ("gender-and-age oracle", "an oracle that is told gender and age group"),
        ("something else", "“something else”"),
    ],
)
def test_systems_have_names_in_sentences(system, called):
    assert wording.called(system) == called


def test_laws_are_held_against_the_true_voice(found):
    (can,) = said(found, "Laws of the cast that it has learnt.", EMBEDDING)
    assert (
        "lower face 0.20 [0.12, 0.28], chance 0.00, 44 % of what the true voice allows" in can.text
    )
    (cannot,) = said(found, "Laws of the cast that it has not learnt.", EMBEDDING)
    assert cannot.text.startswith(f"{EMBEDDING}: age 0.05")


def test_stand_ins_are_counted(found):
    texts = [c.text for c in conclude(found)]
    (text,) = [text for text in texts if "stand-in" in text]
    assert "diffusion from voice, 6 s: no face found to align 0.3 %" in text
    assert text.endswith("0.3 %; for all else, none.")


def test_of_each_system_the_longest_speech_speaks(found):
    assert main_systems(found, "embeddings") == ["voice, 6 s"]
    assert main_systems(found, "faces") == ["diffusion from voice, 6 s"]
    assert main_systems(found, "faces", "voices") == ["diffusion from voice"]
    several = [
        dataclasses.replace(r, system=f"other: {r.system}")
        for r in found.select(kind="embeddings", role="system")
    ]
    both = dataclasses.replace(found, records=found.records + several)
    assert main_systems(both, "embeddings") == ["voice, 6 s", "other: voice, 6 s"]


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        ("recall_at_10", 0.1404, "14.0 %"),
        ("recall_at_1_of_5000", 0.0002, "0.0 %"),
        ("gender_accuracy_male", 1.0, "100.0 %"),
        ("angle_centred", 67.96, "68.0°"),
        ("age_mae", 11.26, "11.3 years"),
        ("cosine_centred", -0.031, "−0.03"),
        ("cosine_centred", -0.0001, "0.00"),
        ("association: eer_same_gender", 0.4512, "45.1 %"),
        ("kernel_distance", 0.00123, "1.23"),
        ("auc", None, "—"),
    ],
)
def test_numbers_are_written_as_they_are_read(measure, value, text):
    assert wording.number(value, measure) == text


def test_a_small_chance_is_not_nothing():
    assert wording.chance_number(0.0002, "recall_at_1_of_5000") == "0.02 %"
    assert wording.chance_number(0.0, "age_r") == "0.00"


@pytest.mark.parametrize(
    ("measure", "name", "lower"),
    [
        ("recall_at_5_of_5000_l1", "R@5 of 5,000, by L1", False),
        ("auc_same_gender_and_age_group", "AUC, same gender and age group", False),
        ("angle_raw", "angle, raw", True),
        ("l2_centred", "L2, centred", True),
        ("retrieval: median_rank", "median rank", True),
        ("gender_accuracy_female", "gender, women", False),
        ("eer", "equal error rate", True),
        ("between_same_gender", "between same gender", False),
        ("mandibular_index_r", "mandibular index", False),
    ],
)
def test_measures_have_names_and_a_better_end(measure, name, lower):
    assert wording.measure_name(measure) == name
    assert wording.lower_is_better(measure) is lower


def test_differences_say_which_way_is_better(found, page):
    rows = next(
        rows for place, rows in page.tables if place == "differences" and rows[0][0] == "voice, 6 s"
    )
    assert rows[0][1:] == ["minus gender-and-age oracle", "minus voice, 3 s"]
    said = {row[0]: row[1] for row in rows[1:] if len(row) > 1}
    assert said["AUC"].endswith("] worse") and "Association" not in said
    by_place = {
        r.measure: r
        for r in found.select(table="differences", kind="embeddings", other="gender-and-age oracle")
    }
    angle = by_place["feature_similarity: angle_centred"]
    assert angle.interval[0] > 0 and said["angle, centred"].endswith("] worse")


def test_compared_checkpoints_and_a_folder_keep_their_names(found, tmp_path):
    def named(records, name):
        return [dataclasses.replace(r, system=f"{name}: {r.system}") for r in records]

    voice = [r for r in found.select(**VOICE) if r.table != "differences"]
    shown = found.select(**FACES, table="attribute_agreement")
    folder = [dataclasses.replace(r, system="paper: faces") for r in shown]
    apart = Record(
        "differences",
        "embeddings",
        "one: voice, 6 s",
        "system",
        "association: auc",
        0.021,
        (0.004, 0.038),
        9,
        9,
        other="two: voice, 6 s",
    )
    records = named(voice, "one") + named(voice, "two") + named(shown, "one") + folder + [apart]
    markdown, html = write_report(tmp_path, Results(about={}, records=records))
    page = Page(html.read_text())
    (rows,) = [rows for place, rows in page.tables if place == "differences"]
    assert rows[0] == ["one: voice, 6 s", "minus two: voice, 6 s"]
    assert rows[-1] == ["AUC", "0.021 [0.004, 0.038] better"]
    assert "| AUC | 0.021 [0.004, 0.038] *better* |" in markdown.read_text()
    for name in (
        "The embedding that “one” predicts from 6 s of voice: AUC",
        "The embedding that “two” predicts from 6 s of voice: AUC",
        "The faces that “one” decodes from 6 s of voice: the judge",
        "The faces of “paper”: the judge",
    ):
        assert page.words.count(name) == 1 and f"  - {name}" in markdown.read_text()


def test_the_model_index_survives_the_hub(found):
    from huggingface_hub import ModelCard, ModelCardData

    index = model_index(found, "demo")
    data = ModelCardData(license="apache-2.0", **{"model-index": index})
    assert data.model_name == "demo"
    again = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# Card\n").data
    assert again.to_dict()["model-index"] == index
    metrics = {m["name"]: m for result in index[0]["results"] for m in result["metrics"]}
    assert 6 <= len(metrics) <= 12
    record = found.find(**VOICE, table="retrieval", measure="recall_at_10")
    metric = metrics["R@10 (embeddings; voice, 6 s)"]
    assert metric["value"] == pytest.approx(record.value, abs=5e-5)
    assert metric["args"]["interval"] == pytest.approx(list(record.interval), abs=5e-5)
    assert not [name for name in metrics if "3 s" in name or "oracle" in name]
    assert re.fullmatch(r"[\w-]+", index[0]["results"][0]["dataset"]["type"])


def test_of_compared_checkpoints_the_index_holds_the_named_one(found):
    records = [
        dataclasses.replace(r, system=f"{name}: {r.system}")
        for r in found.select(role="system", kind="embeddings")
        for name in ("one", "two")
    ]
    index = model_index(dataclasses.replace(found, records=records), "two")
    names = [m["name"] for result in index[0]["results"] for m in result["metrics"]]
    assert names and all("two: voice, 6 s" in name for name in names)
    assert model_index(Results(about={}), "two") == []


def test_six_speakers_are_a_warning():
    few = results()
    few.about["dataset"] = few.about["dataset"] | {"speakers": 6}
    first = conclude(few)[0]
    assert first.warning and first.text.startswith("6 speakers:")
    assert not [c for c in conclude(results()) if c.claim == first.claim]
