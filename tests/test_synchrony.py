"""A mouth that is moved by a recording belongs to that recording, and to no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_scripts import synchrony
from dataset_scripts.fit_synchrony import Utterance, fit_weights, report, write_weights
from dataset_scripts.fit_synchrony import main as fit_command
from dataset_scripts.records import SAMPLING_RATE
from dataset_scripts.synchrony import (
    MIN_SCORE,
    MOTIONS,
    MOUTH_HEIGHT,
    MOUTH_WIDTH,
    REACH,
    SOUNDS,
    Synchrony,
    choose_speaker,
    choose_speakers,
    common_offset,
    crop_mouth,
    lag_offsets_s,
    measure_synchrony,
    mouth_motion,
    speech_changes,
)

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 4


@pytest.fixture(scope="module")
def voices() -> list[np.ndarray]:
    """Recordings of two people, (samples,) each."""
    import soundfile

    parts = []
    for path in sorted((ROOT / "samples").glob("*.flac")):
        samples, sampling_rate = soundfile.read(path, dtype="float32")
        assert sampling_rate == SAMPLING_RATE
        # From within speech: where both begin and end at once, so do the mouths.
        parts.append(samples[round(1.7 * SAMPLING_RATE) :][: SECONDS * SAMPLING_RATE])
    return parts


def opening_of(speech: np.ndarray, seed: int, size: float = 1.0) -> np.ndarray:
    """(T,) 0 to 1: a jaw with inertia and a will of its own that follows the vowels' energy."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import butter, sosfilt

    rng = np.random.default_rng(seed)
    vowels = sosfilt(butter(2, (500, 1200), "band", fs=SAMPLING_RATE, output="sos"), speech)
    energy = np.sqrt((vowels.reshape(-1, 640) ** 2).mean(1))
    opening = gaussian_filter1d(np.sqrt(energy / energy.max()), 0.8)
    return size * np.clip(
        opening + 0.05 * gaussian_filter1d(rng.standard_normal(len(energy)), 1), 0, 1
    )


def draw_mouths(opening: np.ndarray, seed: int) -> np.ndarray:
    """(T, 48, 64): skin of noise, lips, a dark gap between them, a jaw that sinks."""
    import cv2

    rng = np.random.default_rng(seed)
    skin = cv2.GaussianBlur(rng.normal(0, 1, (MOUTH_HEIGHT, MOUTH_WIDTH)), (0, 0), 2)
    skin = 140 + 25 * skin / skin.std()
    y, x = np.mgrid[0:MOUTH_HEIGHT, 0:MOUTH_WIDTH].astype(np.float32)
    lips = ((x - 32) / 17) ** 2 + ((y - 17) / 6) ** 2 < 1
    closed = cv2.GaussianBlur(np.where(lips, 85, skin), (0, 0), 1).astype(np.float32)
    mouths = []
    for amount in opening:
        drop = 7 * amount * np.exp(-(((x - 32) / 22) ** 2))
        dx, dy = rng.normal(0, 0.25, 2)  # landmarks are not exact
        below = 1 / (1 + np.exp(-(y - 17 - drop / 2)))
        picture = cv2.remap(
            closed, x + np.float32(dx), (y - drop * below + dy).astype(np.float32), cv2.INTER_LINEAR
        )
        gap = ((x - 32 + dx) / 12) ** 2 + ((y - 17 - drop / 2) / (drop / 2 + 1e-3)) ** 2 < 1
        picture = np.where(gap & (drop > 1), 30, picture) * rng.normal(1, 0.01)
        mouths.append(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255))
    return np.array(mouths).astype(np.uint8)


@pytest.fixture(scope="module")
def films(voices) -> list[np.ndarray]:
    """The mouths of two people who speak each recording: film k speaks recording k % 2."""
    return [draw_mouths(opening_of(voices[k % 2], k), k) for k in range(4)]


def late(speech: np.ndarray, seconds: float) -> np.ndarray:
    """The same sound so much later, and nothing before."""
    return np.roll(speech, round(seconds * SAMPLING_RATE))


def test_a_mouth_belongs_to_the_sound_that_moves_it(voices, films):
    scores = [measure_synchrony(films[k], voices[k % 2]).score for k in range(4)]
    assert min(scores) > MIN_SCORE


def test_no_mouth_belongs_to_another_sound(voices, films):
    scores = [measure_synchrony(films[k], voices[(k + 1) % 2]).score for k in range(4)]
    scores += [measure_synchrony(films[k], voices[k % 2][::-1]).score for k in range(4)]
    assert max(scores) < MIN_SCORE
    assert np.median(scores) < 2


def test_the_same_sound_a_second_later_is_another_sound(voices, films):
    scores = [
        measure_synchrony(mouths, late(voice, lag)).score
        for mouths, voice in zip(films, [*voices, *voices], strict=True)
        for lag in (-1.6, 1.2, 2.1)
    ]
    assert max(scores) < MIN_SCORE


@pytest.mark.parametrize("lag_s", [-0.2, 0.0, 0.12, 0.28])
def test_the_offset_is_found_to_a_frame(voices, films, lag_s):
    for mouths, voice in zip(films[:2], voices, strict=True):
        found = measure_synchrony(mouths, late(voice, lag_s))
        assert found.score > MIN_SCORE
        assert found.offset_s == pytest.approx(lag_s, abs=0.061)


def test_a_known_offset_sharpens_and_a_wrong_one_refuses(voices, films):
    searched = measure_synchrony(films[0], voices[0])
    assert measure_synchrony(films[0], voices[0], offset_s=searched.offset_s).score > searched.score
    assert measure_synchrony(films[0], voices[0], offset_s=0.4).score < MIN_SCORE


def test_faces_that_do_not_speak(voices):
    rng = np.random.default_rng(3)
    count = SECONDS * 25
    still = np.repeat(draw_mouths(np.zeros(1), 5), count, 0)
    static = draw_mouths(np.full(count, 0.3), 5)  # noise, light and jitter, but no jaw
    smile = np.cumsum(rng.normal(0, 0.03, count))
    idle = draw_mouths(np.clip(smile - smile.min(), 0, 1), 6)
    for mouths in (still, static, idle):
        for voice in voices:
            assert measure_synchrony(mouths, voice).score < MIN_SCORE
    assert measure_synchrony(still, voices[0]).lag_curve == pytest.approx(0, abs=1e-6)


def test_silence_and_noise_are_nobodys(films):
    noise = np.random.default_rng(0).normal(0, 0.1, SECONDS * SAMPLING_RATE).astype(np.float32)
    for mouths in films:
        assert measure_synchrony(mouths, noise).score < MIN_SCORE
        assert measure_synchrony(mouths, 0 * noise).score < MIN_SCORE


def test_neither_contrast_nor_loudness_counts(voices, films):
    plain = measure_synchrony(films[1], voices[1])
    dull = (films[1] * 0.5 + 60).astype(np.uint8)
    assert measure_synchrony(dull, 0.1 * voices[1]).score == pytest.approx(plain.score, rel=0.25)


def test_who_of_two_faces_speaks(voices, films):
    for k in range(4):
        other = (k + 1) % 4
        measured = {i: measure_synchrony(films[i], voices[k % 2]) for i in (k, other)}
        assert choose_speaker(measured).face == k
    nobody = choose_speaker({1: measure_synchrony(films[1], voices[0])})
    assert (nobody.face, nobody.reason) == (None, "not_in_sync")
    twice = measure_synchrony(films[0], voices[0])
    assert choose_speaker({"a": twice, "b": twice}).reason == "several_speakers"
    assert choose_speaker({}).reason == "not_in_sync"


def curve(score: float, offset_s: float, elsewhere: float = 0.0) -> Synchrony:
    """A measurement with one peak."""
    offsets = lag_offsets_s()
    near = np.abs(offsets - offset_s) < 0.021
    return Synchrony(score, offset_s, np.where(near, score, elsewhere))


def test_a_face_that_surely_speaks_elsewhere_needs_less_proof():
    sure, weak, late = curve(7.0, 0.08), curve(2.4, 0.08), curve(2.4, -0.24)
    assert choose_speakers([{"a": weak}])[0].reason == "not_in_sync"
    chosen = choose_speakers([{"a": sure}, {"a": weak}, {"b": weak}, {"a": late}])
    assert [choice.face for choice in chosen] == ["a", "a", None, None]


def test_several_weak_segments_support_each_other_and_none_itself():
    weak = curve(2.8, 0.08)
    assert [choice.face for choice in choose_speakers([{"a": weak}] * 3)] == ["a"] * 3
    astray = [{"a": curve(2.8, offset_s)} for offset_s in (-0.24, 0.0, 0.24)]
    assert [choice.face for choice in choose_speakers(astray)] == [None] * 3
    assert [choice.face for choice in choose_speakers([{"a": weak}, {"b": weak}])] == [None] * 2


def test_two_who_speak_at_once_are_refused():
    both = {"a": curve(6.0, 0.0), "b": curve(MIN_SCORE + 0.1, 0.04)}
    assert choose_speaker(both).reason == "several_speakers"
    assert choose_speaker({"a": curve(6.0, 0.0), "b": curve(1.0, 0.0)}).face == "a"


def test_the_offset_of_a_face_is_what_its_segments_agree_on():
    assert common_offset([]) is None
    assert common_offset([curve(1.0, 0.2)]) is None
    assert common_offset([curve(5.0, 0.2), curve(4.0, 0.2)]) == pytest.approx(0.2, abs=0.041)


def test_the_shapes(voices, films):
    motion = mouth_motion(films[0])
    sound = speech_changes(voices[0], len(films[0]))
    assert motion.shape == (SECONDS * 25, len(MOTIONS))
    assert sound.shape == (SECONDS * 25, len(SOUNDS))
    assert np.allclose(motion[1:].mean(0), 0, atol=0.05)
    assert measure_synchrony(films[0], voices[0]).lag_curve.shape == lag_offsets_s().shape
    short = measure_synchrony(films[0][:12], voices[0][: 12 * 640])
    assert np.isfinite(short.score)


def test_long_tracks_are_measured_in_chunks_as_if_whole(films):
    twice = np.concatenate(films)  # longer than a chunk
    whole = mouth_motion(twice)
    assert np.isfinite(whole).all()
    jaw = MOTIONS.index("jaw")
    part = mouth_motion(twice[100:170])
    assert np.corrcoef(whole[101:170, jaw], part[1:, jaw])[0, 1] > 0.98


def test_what_is_no_mouth_is_refused(voices):
    with pytest.raises(ValueError, match="48, 64"):
        measure_synchrony(np.zeros((10, 64, 48), np.uint8), voices[0])
    with pytest.raises(ValueError, match="two crops"):
        mouth_motion(np.zeros((1, 48, 64), np.uint8))


# --- the crop ---

LANDMARKS = np.array([(165.7, 68.8), (133.2, 71.2), (54.3, 68.8), (86.8, 71.2), (110, 130)])


def face_picture(scale: float, turn_degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a bright mouth at (110, 155) of the chip, and its landmarks."""
    turn = np.exp(1j * np.radians(turn_degrees)) * scale
    size = 900
    centre = complex(size / 2, size / 2)
    y, x = np.mgrid[0:size, 0:size]
    chip = (x + 1j * y - centre) / turn + (110 + 112j)
    picture = 40 + 180 * np.exp(-(((chip.real - 110) / 20) ** 2) - ((chip.imag - 155) / 8) ** 2)
    points = (LANDMARKS[:, 0] + 1j * LANDMARKS[:, 1] - (110 + 112j)) * turn + centre
    return picture.astype(np.uint8), np.stack([points.real, points.imag], 1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.7])
@pytest.mark.parametrize("turn_degrees", [-25, 0, 12])
def test_the_mouth_is_cut_out_the_same_at_any_size_and_turn(scale, turn_degrees):
    reference = crop_mouth(*face_picture(1.0, 0)).astype(float)
    assert reference.shape == (MOUTH_HEIGHT, MOUTH_WIDTH)
    brightest = np.unravel_index(reference.argmax(), reference.shape)
    assert brightest == (pytest.approx(18.5, abs=1.5), pytest.approx(31.5, abs=1.5))
    crop = crop_mouth(*face_picture(scale, turn_degrees)).astype(float)
    assert np.abs(crop - reference).mean() < 4


def test_large_faces_are_averaged_not_sampled():
    picture, landmarks = face_picture(3.5, 0)
    noise = np.random.default_rng(0).normal(0, 40, picture.shape)
    noisy = np.clip(picture * 0.5 + 60 + noise, 0, 255).astype(np.uint8)
    clean = (picture * 0.5 + 60).astype(np.uint8)
    rest = crop_mouth(noisy, landmarks).astype(float) - crop_mouth(clean, landmarks)
    assert rest.std() < 10


def test_noise_of_one_landmark_moves_the_mouth_little():
    picture, landmarks = face_picture(1.0, 0)
    moved = landmarks.copy()
    moved[1] += 2
    difference = crop_mouth(picture, moved).astype(float) - crop_mouth(picture, landmarks)
    assert np.abs(difference).mean() < 4


def test_what_is_no_face_is_refused():
    picture, landmarks = face_picture(1.0, 0)
    with pytest.raises(ValueError, match="grey picture"):
        crop_mouth(np.zeros((9, 9, 3), np.uint8), landmarks)
    with pytest.raises(ValueError, match="one point"):
        crop_mouth(picture, np.full((5, 2), 7.0))
    with pytest.raises(ValueError, match="5 finite landmarks"):
        crop_mouth(picture, np.full((5, 2), np.nan))


@pytest.mark.parametrize("score", [-60.0, -9.0, -1.0, 0.0, 3.0, 12.0, 60.0])
def test_scores_stay_finite_and_in_order(score):
    low, high = (synchrony._after_search(s) for s in (score - 0.5, score + 0.5))
    assert np.isfinite([low, high]).all()
    assert low <= high
    assert high <= score + 0.5 or score < -20


# --- the fit ---


def invented_utterances(count: int, seed: int = 0) -> list[Utterance]:
    """Mouths whose lips part as the third band rises, some frames sooner or later."""
    rng = np.random.default_rng(seed)
    utterances = []
    for k in range(count):
        sound = rng.standard_normal((120, len(SOUNDS)))
        motion = rng.standard_normal((120, len(MOTIONS)))
        rise = np.roll(sound[:, SOUNDS.index("rise_3")], -int(rng.integers(-2, 3)))
        motion[:, MOTIONS.index("lips")] += 1.5 * rise
        motion[:, MOTIONS.index("jaw")] += 0.3 * rise
        fields = (f"film-{k}", f"voice-{k % 5}", True, True, 4.8)
        utterances.append(Utterance(*fields, motion.astype(np.float32), sound.astype(np.float32)))
    return utterances


def test_the_fit_finds_what_goes_with_what():
    weights = fit_weights(invented_utterances(20))
    assert weights.shape == (len(MOTIONS), len(SOUNDS), 2 * REACH + 1)
    strongest = np.unravel_index(np.abs(weights).argmax(), weights.shape)
    assert strongest[0] == MOTIONS.index("lips")
    assert strongest[1] == SOUNDS.index("rise_3")
    assert weights[strongest] > 0


def test_the_fit_needs_faces_that_speak_and_several_voices():
    some = invented_utterances(5)
    for useless in ([], some[:1], [replace(u, speaks=False) for u in some]):
        with pytest.raises(ValueError, match="two voices"):
            fit_weights(useless)


def test_weights_are_written_as_they_are_read(tmp_path, monkeypatch):
    file = tmp_path / "weights.json"
    weights = fit_weights(invented_utterances(10))
    write_weights(weights, file)
    monkeypatch.setattr(synchrony, "WEIGHTS_FILE", file)
    read = synchrony.read_weights.__wrapped__()
    assert np.allclose(read, weights, atol=6e-5)


def test_the_table_tells_speaking_faces_from_unrelated_ones(voices, films):
    utterances = []
    for k in range(4):
        motion, sound = mouth_motion(films[k]), speech_changes(voices[k % 2], len(films[k]))
        utterances.append(Utterance(f"film-{k}", f"voice-{k % 2}", False, True, 3.5, motion, sound))
    lines = list(report(utterances))
    assert len(lines) == 2 and lines[1].startswith("2-4     4:")
    assert "100.0%" in lines[1] and "0.00%" in lines[1]


def test_a_folder_without_films_is_named(tmp_path, capsys):
    assert fit_command([str(tmp_path)]) == 2
    assert "holds no films" in capsys.readouterr().err
