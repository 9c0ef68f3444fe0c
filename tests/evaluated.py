"""People made of numbers, whose faces and voices are known, for tests of the evaluation."""

from pathlib import Path

import numpy as np

from training.evaluation.instruments import Readings
from training.evaluation.subjects import Subjects, Training
from training.evaluation.tables import Labels

SIZE = 32  # of an embedding
CUTS = ("bob", "long", "short")
GENDER, AGE, SKIN = 0, 1, 2  # directions of the embedding


def make_subjects(speakers: int = 120, pairs: int = 2, seed: int = 0) -> Subjects:
    """A cast whose embeddings hold gender, age, skin tone, and something of everybody's own."""
    rng = np.random.default_rng(seed)
    people = [_person(rng, index) for index in range(speakers)]
    mean = 1.3 * np.eye(SIZE)[-1]
    own = 0.25 * rng.standard_normal((speakers, SIZE))
    for row, (traits, _) in zip(own, people, strict=True):
        row[GENDER] += 0.5 if traits["gender"] == "male" else -0.5
        row[AGE] += 0.6 * (traits["age"] - 45) / 15
        row[SKIN] += 2 * (traits["skin_tone"] - 0.5)
    who = np.repeat(np.arange(speakers), pairs)
    embeddings = mean + own[who] + 0.05 * rng.standard_normal((len(who), SIZE))
    traits = [people[index][0] for index in who]
    genders = np.asarray([t["gender"] for t in traits])
    ages = np.asarray([t["age"] for t in traits])
    names = np.asarray([f"speaker-{index:04d}" for index in who])
    faces = rng.integers(0, 255, (len(who), 8, 8, 3), dtype=np.uint8)
    speech = 0.1 * rng.standard_normal((len(who), 800)).astype(np.float32)
    training = Training(embeddings.copy(), genders, ages, names, lambda row: b"")
    return Subjects(
        name="people of numbers",
        split="test",
        fingerprint="0123456789abcdef",
        teacher="dlib",
        pair_ids=[f"pair-{index:05d}" for index in range(len(who))],
        speakers=names,
        faces=faces,
        face_found=np.ones(len(who), bool),
        embeddings=embeddings.astype(np.float32),
        genders=genders,
        ages=ages,
        traits=traits,
        voice_parameters=[people[index][1] for index in who],
        centre=embeddings.mean(0).astype(np.float32),
        centred_by="the training split's mean",
        training=training,
        read_speech=lambda index: speech[index],
    )


def _person(rng: np.random.Generator, index: int) -> tuple[dict, dict]:
    """Traits, and a voice that goes with gender and age alone."""
    male, age = bool(rng.random() < 0.5), float(rng.uniform(20, 75))
    size = rng.standard_normal()
    traits = {
        "gender": "male" if male else "female",
        "age": age,
        "skin_tone": float(rng.random()),
        "ancestry": rng.dirichlet((0.4, 0.4, 0.4)).tolist(),
        "hair_cut": str(rng.choice(CUTS)),
        "weight": float(rng.random()),
        "lower_face": float(0.8 * size + 0.6 * rng.standard_normal()),
        "shape": rng.standard_normal(24).tolist(),
        "seed": int(rng.integers(1000)),
    }
    pitch = (115 if male else 205) * np.exp(-0.004 * (age - 45) + 0.02 * rng.standard_normal())
    voice = {
        "voice_id": f"base/{index % 50}",
        "pitch_hz": float(pitch),
        "formant_ratio": float(np.exp(-0.04 * size)),
        "rate_ratio": float(np.exp(0.05 * rng.standard_normal())),
        "breathiness": float(rng.random()),
    }
    return traits, voice


def true_landmarks_of(subjects: Subjects, seed: int = 0) -> np.ndarray:
    """(N, 68, 2), each speaker's own: random, but the jaw goes with size, gender and age."""
    rng = np.random.default_rng(seed)
    _, index = np.unique(subjects.speakers, return_inverse=True)
    people = 112 + 30 * rng.standard_normal((index.max() + 1, 68, 2))
    landmarks = people[index]
    lower_face = np.asarray([traits["lower_face"] for traits in subjects.traits])
    jaw_width = 80 + 4 * lower_face + 3 * (subjects.genders == "male") + 0.1 * subjects.ages
    landmarks[:, [4, 12]] = 112.0, 160.0
    landmarks[:, 4, 0] -= jaw_width / 2
    landmarks[:, 12, 0] += jaw_width / 2
    return landmarks.astype(np.float32)


def state_true_landmarks(folder: Path, **of_split: list) -> None:
    """Adds to splits of a data set the landmarks of each row's true face, 68 points or None."""
    import datasets

    feature = datasets.List(datasets.List(datasets.Value("float32"), length=2))
    for split, landmarks in of_split.items():
        (file,) = folder.glob(f"{split}-*.parquet")
        table = datasets.Dataset.from_parquet(str(file), keep_in_memory=True)
        table = table.add_column("normalized_landmarks", landmarks, feature=feature)
        table.to_parquet(str(file))


def labels_of(subjects: Subjects) -> Labels:
    """What the people are, as labelled."""
    return Labels(subjects.genders, subjects.ages, "label", "label")


def readings_of(subjects: Subjects, embeddings: np.ndarray, seed: int = 0) -> Readings:
    """Instruments that see the truth in nine of ten faces, and measure faces of random shape."""
    rng = np.random.default_rng(seed)
    count = len(subjects)
    wrong = rng.random(count) < 0.1
    opposite = np.where(subjects.genders == "male", "female", "male")
    return Readings(
        embeddings=embeddings.astype(np.float32),
        genders=np.where(wrong, opposite, subjects.genders),
        ages=subjects.ages + 8 * rng.standard_normal(count),
        judge_found=np.ones(count, bool),
        landmarks=(112 + 30 * rng.standard_normal((count, 68, 2))).astype(np.float32),
        lightness=rng.uniform(20, 80, count),
    )
