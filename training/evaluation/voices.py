"""Several faces of a voice: how much they differ, and how the judge reads real speakers' voices.

Letters: V speakers, n faces of each.
"""

import numpy as np

from training.evaluation.controls import base_voices
from training.evaluation.generation import Decoder
from training.evaluation.instruments import Readings
from training.evaluation.results import Results
from training.evaluation.subjects import Subjects, Voices
from training.evaluation.tables import GENDERS, Labels
from training.evaluation.workbench import Checkpoint, Workbench
from training.measures.consistency import consistency
from training.measures.generated_faces import distance_between_persons, diversity
from training.measures.resampling import Figure, SpeakerBootstrap

FACES_EACH = 4  # by a decoder that draws; any other makes one
MOST_VOICES = 200  # each has four faces to decode


def judge_draws(bench: Workbench, checkpoint: Checkpoint, labels: Labels, results: Results) -> None:
    """Adds how much several faces of one recording differ, for a recording of each speaker.

    Of decoders that draw: any other makes one face of a voice.
    """
    subjects = bench.subjects
    families = base_voices(subjects)
    where = {"table": "diversity", "kind": "faces", "role": "system"}
    for decoder in checkpoint.decoders.values():
        if decoder.draws:
            readings, speakers, rows = _imagine(
                bench, checkpoint, decoder, subjects, results, families
            )
            figures = _differences_within(bench, labels, labels.genders[rows], speakers, readings)
            results.add(figures, **where, system=_name_of(checkpoint, decoder))


def judge_voices(
    bench: Workbench, checkpoint: Checkpoint, voices: Voices, labels: Labels, results: Results
) -> None:
    """Adds what a checkpoint hears in, and imagines for, recordings without a face.

    The images of a speaker's first recording are judged; all recordings tell how consistent the
    predictions are. How much the images differ is asked of decoders that draw.

    Args:
        bench: the data set, whose persons the images of a voice are compared with.
        checkpoint: that listens.
        voices: the recordings.
        labels: of the data set's pairs.
        results: where the records go.
    """
    predicted = bench.predict(checkpoint, voices)
    bootstrap = SpeakerBootstrap(voices.speakers, *_resampling(results))
    figures = consistency(bootstrap, predicted, voices.speakers, voices.genders)
    where = {"table": "voices", "role": "system"}
    results.add(figures, **where, kind="embeddings", system=checkpoint.calls("voice"))
    for decoder in checkpoint.decoders.values():
        readings, speakers, rows = _imagine(bench, checkpoint, decoder, voices, results)
        genders = voices.genders[rows]
        figures = _gender_and_age(genders, speakers, readings)
        if decoder.draws:
            figures |= _differences_within(bench, labels, genders, speakers, readings)
        results.add(figures, **where, kind="faces", system=_name_of(checkpoint, decoder))


def _name_of(checkpoint: Checkpoint, decoder: Decoder) -> str:
    return checkpoint.calls(f"{decoder.name} from voice")


def _resampling(results: Results) -> tuple[int, int]:
    return results.about["rounds"], results.about["seed"]


def _imagine(
    bench: Workbench,
    checkpoint: Checkpoint,
    decoder: Decoder,
    recordings: Subjects | Voices,
    results: Results,
    families: np.ndarray | None = None,
) -> tuple[Readings, SpeakerBootstrap, np.ndarray]:
    """What is read from a decoder's faces, whose they are, and of which recordings (V,).

    It is the first recording of every speaker; of more than 200, of 200 drawn by lot.
    """
    names, rows = np.unique(recordings.speakers, return_index=True)
    if len(names) > MOST_VOICES:
        rng = np.random.default_rng(results.about["seed"])
        chosen = np.sort(rng.choice(len(names), MOST_VOICES, replace=False))
        names, rows = names[chosen], rows[chosen]
    families = None if families is None else families[rows]
    bootstrap = SpeakerBootstrap(names, *_resampling(results), families)
    readings = bench.imagine(checkpoint, decoder, recordings, rows, FACES_EACH)
    return readings, bootstrap, rows


def _by_voice(values: np.ndarray, voices: int) -> np.ndarray:
    """(V n, ...) to (V, n, ...)."""
    return np.reshape(values, (voices, -1, *np.shape(values)[1:]))


def _gender_and_age(
    genders: np.ndarray, bootstrap: SpeakerBootstrap, readings: Readings
) -> dict[str, Figure]:
    """How often the judge reads each labelled gender (V,), balanced over the two, and what age."""
    right = (_by_voice(readings.genders, len(genders)) == genders[:, None]).mean(1)
    ages = _by_voice(readings.ages, len(genders)).mean(1)
    figures: dict[str, Figure] = {}
    for gender in GENDERS:
        kept = genders == gender
        figures[f"gender_accuracy_{gender}"] = bootstrap.mean(right, kept, 0.5, share=True)
    each = list(figures.values())
    figures["gender_balanced_accuracy"] = bootstrap.figure(
        float(np.mean([figure.value for figure in each])),
        np.mean([figure.replicates for figure in each], axis=0),
        chance=0.5,
    )
    for gender in GENDERS:
        figures[f"age_mean_{gender}"] = bootstrap.mean(ages, genders == gender)
    found = _by_voice(readings.judge_found, len(genders)).mean(1)
    return figures | {"face_found": bootstrap.mean(found, share=True)}


def _differences_within(
    bench: Workbench,
    labels: Labels,
    genders: np.ndarray,
    bootstrap: SpeakerBootstrap,
    readings: Readings,
) -> dict[str, Figure]:
    """How much the faces of a voice differ, relative to persons of its gender; their skin, to all.

    Where a gender is unknown, or the data set has not two persons of it, they are those of any.
    """
    subjects = bench.subjects
    among = {}
    for gender in np.unique(genders).tolist():
        kept = labels.genders == gender
        if len(np.unique(subjects.speakers[kept])) < 2 or gender == "":
            kept[:] = True
        among[gender] = distance_between_persons(subjects.embeddings[kept], subjects.speakers[kept])
    draws = _by_voice(readings.embeddings, len(genders))  # (V, n, D)
    figures = diversity(bootstrap, draws, np.asarray([among[gender] for gender in genders]))
    skin = bench.original.readings.lightness.std(ddof=1)
    variance = bootstrap.mean(_by_voice(readings.lightness, len(genders)).var(axis=1, ddof=1))
    figures["skin_deviation"] = bootstrap.figure(
        float(np.sqrt(variance.value) / skin), np.sqrt(variance.replicates) / skin
    )
    return figures
