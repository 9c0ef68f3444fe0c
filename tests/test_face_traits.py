"""What a voice tells, in words: the probe, its sentence, its fitting, its place in a pipeline."""

import json

import datasets
import numpy as np
import pytest
import torch

from modeling_speech2face import FaceTraitProbe, Speech2FacePipeline
from tests.tiny import tiny_face_traits, tiny_pipeline
from tests.training_cast import CARD
from training.fit_face_traits import fit_face_traits, main

MAN, WOMAN = "samples/librispeech-2414.flac", "samples/librispeech-3080.flac"


def probe_of(*names: str, **buffers: list) -> FaceTraitProbe:
    """Each trait is read along an axis of its own, in units of its deviation among people."""
    probe = FaceTraitProbe(face_embedding_size=len(names), names=list(names))
    probe.weights.copy_(torch.eye(len(names)))
    for name, values in buffers.items():
        getattr(probe, name).copy_(torch.tensor(values))
    return probe


def drawn(means: list, deviations: list, count: int = 1000) -> torch.Tensor:
    """Draws whose mean and deviation along each axis are exactly these."""
    noise = torch.randn(count, len(means), generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean(0)) / noise.std(0, correction=0)
    return torch.tensor(means) + noise * torch.tensor(deviations)


def test_scores_are_the_lines():
    probe = probe_of("age", "lower_face", intercepts=[40.0, -1.0])
    torch.testing.assert_close(
        probe(torch.tensor([[2.0, 0.5], [0.0, 0.0]])), torch.tensor([[42.0, -0.5], [40.0, -1.0]])
    )


@pytest.mark.parametrize(
    ("mean", "deviation", "told"),
    [
        (2.0, 0.6, "The voice fixes: a face perceived as a man's."),
        (-2.0, 0.6, "The voice fixes: a face perceived as a woman's."),
        # As narrow, but beside the border: one draw of six is a woman's face; of three; of two.
        (
            0.6,
            0.6,
            "The voice fixes nothing that can be named; it hints at: a face perceived as a man's.",
        ),
        (0.2, 0.6, "The voice fixes nothing that can be named; it leaves open: perceived gender."),
        # Four of five agree, but so do people.
        (1.0, 1.0, "The voice fixes nothing that can be named; it leaves open: perceived gender."),
    ],
)
def test_a_yes_or_no_is_fixed_where_draws_are_alike_and_agree(mean, deviation, told):
    assert probe_of("gender").tell(drawn([mean], [deviation])) == told


@pytest.mark.parametrize(
    ("deviation", "standing"),
    [(0.69, "fixes:"), (0.72, "hints at:"), (0.88, "hints at:"), (0.91, "leaves open: size of")],
)
def test_the_shares_of_variance_are_the_formula(deviation, standing):
    told = probe_of("lower_face", deviations=[3.0]).tell(drawn([0.0], [3 * deviation]))
    assert f"{standing} " in told + " "
    assert ("lower face of middling size" in told) == (deviation < 0.9)


def test_a_number_is_told_in_words_or_as_an_interval():
    probe = probe_of("age", "lower_face", means=[45.0, 1.0], deviations=[15.0, 2.0])
    assert probe.tell(drawn([50.0, 2.5], [6.0, 0.5])) == (
        "The voice fixes: an age of 40 to 60 years, a large lower face."
    )  # 50 - 1.28 * 6 = 42.3 and 57.7, outwards
    assert probe.tell(drawn([22.0, -1.0], [0.1, 0.5])) == (
        "The voice fixes: an age of 20 to 25 years, a small lower face."
    )


def test_tight_draws_are_told_and_wide_ones_left_open():
    names = ("gender", "age", "hair_length", "beard", "skin_tone", "eye_colour")
    probe = probe_of(*names, deviations=[1.0, 15.0, 1.0, 1.0, 1.0, 1.0])
    means = [2.0, 50.0, 0.9, -2.0, 3.0, -3.0]
    tight = probe.tell(drawn(means, [0.1, 1.0, 0.1, 0.1, 0.1, 0.1]))
    assert tight == (
        "The voice fixes: a face perceived as a man's, an age of 45 to 55 years, long hair, no "
        "beard."
    )
    wide = probe.tell(drawn(means, [0.1, 15.0, 1.0, 1.0, 1.0, 1.0]))
    assert wide == (
        "The voice fixes: a face perceived as a man's; it leaves open: age, length of the hair, "
        "beard, skin tone, eye colour."
    )


@pytest.mark.parametrize("deviation", [0.01, 0.8, 1.0])
@pytest.mark.parametrize("mean", [-3.0, 3.0])
def test_skin_and_eyes_are_never_given_a_value(mean, deviation):
    told = probe_of("skin_tone", "eye_colour").tell(drawn([mean, -mean], [deviation] * 2))
    nothing = "The voice fixes nothing that can be named"
    open_too = f"{nothing}; it leaves open: skin tone, eye colour."
    assert told == (open_too if deviation == 1.0 else f"{nothing}.")


def test_there_are_no_words_for_ancestry():
    with pytest.raises(ValueError, match="no words for the traits ancestry"):
        FaceTraitProbe(names=["gender", "ancestry"])
    words = " ".join(
        " ".join([name, trait.noun, *trait.values])
        for name, trait in FaceTraitProbe.known_traits.items()
    )
    assert not {"ancestry", "african", "asian", "caucasian", "race", "ethnic"} & set(words.split())
    for name in ("skin_tone", "eye_colour"):
        trait = FaceTraitProbe.known_traits[name]
        assert trait.values == () and trait.interval == ""


def test_beards_are_asked_of_men_and_make_up_of_women():
    probe = probe_of("gender", "beard", "make_up")
    man, woman, mixed = (
        probe.tell(drawn([mean, 0.0, 0.0], [0.5, 1.0, 1.0])) for mean in (2.0, -2.0, 0.0)
    )
    assert "beard" in man and "make-up" not in man
    assert "make-up" in woman and "beard" not in woman
    assert "beard" in mixed and "make-up" in mixed
    # Only the men among the draws are asked: women's faces would make it look undecided.
    draws = drawn([0.0, 0.0, 0.0], [0.5, 0.1, 0.1])
    draws[:, 1] = torch.where(draws[:, 0] > 0, 1.0, -1.0)
    assert "a beard" in probe.tell(draws)


def test_the_pipeline_tells_and_its_pictures_stay_as_they_are(tmp_path):
    pipe, plain = tiny_pipeline(with_face_traits=True), tiny_pipeline()
    seeded = torch.Generator().manual_seed
    out, silent = (p(MAN, generator=seeded(0), output_type="np") for p in (pipe, plain))
    np.testing.assert_array_equal(out.images, silent.images)
    np.testing.assert_array_equal(out.average_face, silent.average_face)
    assert silent.told is None
    prediction = out.face_embeddings.mean(0)
    pipe.face_traits.deviations.fill_(1e-3)  # people are more alike than the draws
    wide = "The voice fixes nothing that can be named; it leaves open: perceived gender, age, skin"
    assert pipe(MAN, generator=seeded(0)).told == f"{wide} tone."
    pipe.face_traits.deviations.fill_(100.0)
    pipe.face_traits.intercepts.copy_(torch.tensor([10.0, 42.5, 0.0]) - prediction[:3])
    expected = "The voice fixes: a face perceived as a man's, an age of 40 to 45 years."
    assert pipe(MAN, generator=seeded(0), exaggeration=100.0).told == expected  # of the voice
    both = pipe([WOMAN, MAN], generator=seeded(0), num_images_per_prompt=1)
    assert len(both.told) == 2 and both.told[1] == expected
    assert pipe(face_embedding=np.zeros(8)).told is None
    assert pipe.interpolate([MAN, WOMAN], 2).told is None
    pipe.save_pretrained(tmp_path)
    assert Speech2FacePipeline.from_pretrained(tmp_path)(MAN).told == expected


def test_a_checkpoint_of_before_the_component_loads(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["face_traits"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    loaded = Speech2FacePipeline.from_pretrained(tmp_path)
    assert loaded.face_traits is None and loaded(MAN).told is None


def test_a_probe_of_another_teacher_is_refused():
    pipe, probe = tiny_pipeline(), tiny_face_traits()
    probe.register_to_config(face_recogniser="arcface")
    with pytest.raises(ValueError, match="'dlib'.*'arcface'.*same face recogniser"):
        Speech2FacePipeline(**pipe.components | {"face_traits": probe})


def test_the_demo_tells_gender_and_claims_no_more():
    pipe = Speech2FacePipeline.from_demo()
    pipe.set_progress_bar_config(disable=True)
    assert {"gender", "age", "skin_tone"} <= set(pipe.face_traits.config.names)
    told = pipe([MAN, WOMAN], decoder="normalized", generator=torch.Generator().manual_seed(0)).told
    for sentence, whose in zip(told, ("a man's", "a woman's"), strict=True):
        fixed, _, open_ = sentence.partition("leaves open: ")
        assert whose in fixed and "age" in open_ and "skin tone" in open_


# What the data set's faces are made of: an axis for each trait, and noise.
AXES = ("male", "age", "lower_face", "weight", "beard", "skin_tone")
NOISE = 0.05


def write_faces(folder, people: int = 120, faces: int = 2, with_traits: bool = True):
    """A data set without sound whose embeddings show all of AXES but the weight."""
    folder.mkdir()
    (folder / "README.md").write_text(CARD.format(teacher="dlib"))
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        rows = []
        for person in range(people):
            male = float(person % 2)
            number = {name: rng.standard_normal() for name in AXES[1:]}
            age, bearded = 45 + 12 * number["age"], male and number["beard"] > 0
            shown = [male - 0.5, number["age"], number["lower_face"], 0.0]
            shown += [2.0 * bearded, number["skin_tone"]]
            traits = {
                "lower_face": number["lower_face"],
                "weight": number["weight"],
                "beard": "full" if bearded else "none",
                "skin_tone": number["skin_tone"],
                "ancestry": [1.0, 0.0, 0.0],
            }
            for _ in range(faces):
                embedding = 0.3 + np.array(shown) + NOISE * rng.standard_normal(len(AXES))
                rows.append(
                    {
                        "face_embedding": embedding.astype(np.float32).tolist(),
                        "speaker_id": f"{split}-{person}",
                        "gender": "male" if male else "female",
                        "age": age,
                        **({"traits": traits} if with_traits else {}),
                    }
                )
        datasets.Dataset.from_list(rows).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traits")
    data = write_faces(folder / "faces")
    return data, fit_face_traits(str(data), folder / "probe", str(folder / "cache")), folder


def test_probes_that_work_are_kept_and_the_others_are_not(fitted, tmp_path, capsys):
    data, probe, folder = fitted
    assert list(probe.config.names) == ["gender", "age", "lower_face", "beard", "skin_tone"]
    assert min(probe.config.held_out) > 0.95 and probe.config.held_out_people == 120
    loaded = FaceTraitProbe.from_pretrained(folder / "probe")
    assert loaded.config.face_recogniser == "dlib" and loaded.config.face_embedding_size == 6
    torch.testing.assert_close(loaded.weights, probe.weights)
    assert main([str(data), "--output", str(tmp_path / "p"), "--cache", str(tmp_path)]) is None
    (left_out,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert left_out.startswith("fullness of the face")


def test_a_probe_reads_centred_faces_in_the_traits_own_units(fitted):
    data, probe, _ = fitted
    table = datasets.Dataset.from_parquet(str(data / "validation-00000-of-00001.parquet"))
    train = datasets.Dataset.from_parquet(str(data / "train-00000-of-00001.parquet"))
    mean = np.asarray(train["face_embedding"]).mean(0)
    scores = probe(torch.tensor(np.asarray(table["face_embedding"]) - mean).float())
    ages = torch.tensor(np.asarray(table["age"]))
    assert (scores[:, 1] - ages).abs().mean() < 2
    men = torch.tensor([gender == "male" for gender in table["gender"]])
    assert ((scores[:, 0] > 0) == men).all()
    bearded = torch.tensor([traits["beard"] == "full" for traits in table["traits"]])
    assert ((scores[men, 3] > 0) == bearded[men]).float().mean() > 0.98
    # People's deviation is of the gender as a whole, but within a gender of all else.
    torch.testing.assert_close(
        probe.deviations[0], scores[:, 0].std(correction=0), rtol=1e-3, atol=0
    )
    parts = torch.stack([scores[rows, 3].var(correction=0) for rows in (men, ~men)])
    torch.testing.assert_close(probe.deviations[3], parts.mean().sqrt(), rtol=1e-3, atol=0)
    torch.testing.assert_close(probe.means, scores.mean(0), rtol=1e-3, atol=1e-3)


def test_what_follows_from_the_gender_alone_is_not_kept(tmp_path):
    """Hair that is long among women and short among men, and the face shows only the gender."""
    data = write_faces(tmp_path / "faces")
    for path in data.glob("*.parquet"):
        rows = datasets.Dataset.from_parquet(str(path)).to_list()
        rng = np.random.default_rng(len(path.name))
        for row in rows:
            cuts = ("short", "buzz") if row["gender"] == "male" else ("long", "bob")
            row["traits"] |= {"hair_cut": str(rng.choice(cuts))}
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    probe = fit_face_traits(str(data), tmp_path / "probe", str(tmp_path / "cache"))
    assert "hair_length" not in probe.config.names


def test_without_traits_gender_and_age_are_fitted(tmp_path):
    data = write_faces(tmp_path / "faces", with_traits=False)
    probe = fit_face_traits(str(data), tmp_path / "probe", str(tmp_path / "cache"))
    assert list(probe.config.names) == ["gender", "age"]


def test_where_nothing_can_be_read_nothing_is_written(tmp_path, capsys):
    data = write_faces(tmp_path / "faces", people=8)  # too few of either gender to ask
    for path in data.glob("*.parquet"):
        table = datasets.Dataset.from_parquet(str(path)).remove_columns(["traits", "age"])
        table.to_parquet(str(path))
    with pytest.raises(SystemExit) as exit:
        main([str(data), "--output", str(tmp_path / "probe"), "--cache", str(tmp_path / "cache")])
    assert exit.value.code == 2 and not (tmp_path / "probe").exists()
    assert "no trait can be read" in capsys.readouterr().err
