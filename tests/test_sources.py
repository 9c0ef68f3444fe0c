"""Sources list what there is, in every layout in which it is had, and refuse the rest."""

import csv
import json
import os
import random
import threading
from pathlib import Path

import pytest

from dataset_scripts.sources import (
    SpeechAndCrops,
    list_avspeech,
    list_cast,
    list_folder,
    list_voxceleb,
    printable,
    read_avspeech,
)

MP4_HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00"

VOX1_META = (
    "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
    "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
    "id10270\tEartha_Kitt\tf\tUSA\ttest\n"
)
# As published: spaces before the commas and at the end of the lines, and a byte order mark.
VOX2_META = (
    "\ufeffVoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \n"
    "id00012 ,n000012 ,m ,dev \n"
    "id00017 ,n000017 ,f ,test \n"
)


def write(path: Path, content: bytes | str = MP4_HEAD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ids(listing) -> list[str]:
    return [video.video_id for video in listing.videos]


def refused(listing) -> dict[str, str]:
    return {refusal.video_id: refusal.reason for refusal in listing.refusals}


# A folder


def test_a_folder_is_listed_at_any_depth_in_order_whatever_the_order_of_making(tmp_path):
    names = ["b.MP4", "a/z.webm", "a/deep/er/x.mkv", "no_suffix", "c.avi", "wrong.jpg", "sound.wav"]
    shuffled = random.Random(0).sample(names, len(names))
    for name in shuffled:
        write(tmp_path / name)
    write(tmp_path / "notes.txt", "a text")
    write(tmp_path / "true.jpg", b"\xff\xd8\xff\xe0 a picture")
    write(tmp_path / ".hidden.mp4")
    write(tmp_path / "text.mp4", "a text with a film's name is tried, and refused when read")
    listing = list_folder(tmp_path, licence="CC-BY-4.0")
    assert ids(listing) == sorted([*names, "text.mp4"])
    assert listing.ignored == 2 and listing.refusals == []
    assert {video.licence for video in listing.videos} == {"CC-BY-4.0"}
    assert all(video.path.is_file() and video.speaker_id is None for video in listing.videos)


def test_the_same_listing_twice_and_through_a_link_to_the_folder(tmp_path):
    for name in ("a/1.mp4", "b/2.mp4"):
        write(tmp_path / "films" / name)
    (tmp_path / "link").symlink_to("films")
    assert list_folder(tmp_path / "films") == list_folder(tmp_path / "films")
    assert ids(list_folder(tmp_path / "link")) == ["a/1.mp4", "b/2.mp4"]


def test_a_folder_a_speaker(tmp_path):
    for name in ("ann/1.mp4", "ann/2020/2.mp4", "bob/1.mp4", "beside.mp4"):
        write(tmp_path / name)
    listing = list_folder(tmp_path, speaker_folders=True)
    assert {video.video_id: video.speaker_id for video in listing.videos} == {
        "ann/1.mp4": "ann",
        "ann/2020/2.mp4": "ann",
        "beside.mp4": None,
        "bob/1.mp4": "bob",
    }


def test_one_file_is_a_source(tmp_path):
    film = write(tmp_path / "film.mp4")
    (video,) = list_folder(film).videos
    assert (video.video_id, video.path) == ("film.mp4", film)


def test_loops_of_links_end_and_what_lies_within_is_listed_once(tmp_path):
    films, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    write(films / "a" / "1.mp4")
    write(elsewhere / "far.mp4")
    (films / "a" / "self").symlink_to(".")
    (films / "a" / "up").symlink_to("..")
    (films / "a" / "above").symlink_to(tmp_path)
    (films / "again").symlink_to("a")
    (films / "other").symlink_to(elsewhere)
    (films / "other2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(films)
    (elsewhere / "round").symlink_to(elsewhere)
    (films / "round.mp4").symlink_to("round.mp4")
    (films / "nowhere.mp4").symlink_to("missing.mp4")
    listing = list_folder(films)
    assert ids(listing) == ["a/1.mp4", "other/far.mp4"]
    assert refused(listing) == {"nowhere.mp4": "unreadable", "round.mp4": "unreadable"}


def test_what_is_no_file_is_refused_without_being_opened(tmp_path):
    write(tmp_path / "1.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    result = []
    thread = threading.Thread(target=lambda: result.append(list_folder(tmp_path)), daemon=True)
    thread.start()
    thread.join(10)  # opening a pipe that nobody writes would wait for ever
    assert refused(result[0]) == {"pipe.mp4": "unreadable"} and ids(result[0]) == ["1.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_refused_and_the_others_are_listed(tmp_path):
    write(tmp_path / "1.mp4")
    write(tmp_path / "closed" / "2.mp4")
    (tmp_path / "closed").chmod(0)
    try:
        assert refused(list_folder(tmp_path)) == {"closed": "unreadable"}
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_odd_names_get_printable_ids_that_differ(tmp_path):
    raw = [b"new\nline.mp4", b"caf\xc3\xa9.mp4", b"caf\xe9.mp4", b"100%.mp4", b"100%25.mp4"]
    raw += [b"tab\t.mp4", b"bell\x07.mp4", b"\xf0\x9f\x98\x80.mp4", b"quote'\".mp4", b"-o.mp4"]
    for name in raw:
        write(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))))
    listing = list_folder(tmp_path)
    assert len(set(ids(listing))) == len(raw)
    assert all(video_id.isprintable() for video_id in ids(listing))
    "".join(ids(listing)).encode("utf-8")  # no surrogates are left
    assert {"new%0Aline.mp4", "café.mp4", "caf%E9.mp4", "100%25.mp4"} <= set(ids(listing))
    assert all(video.path.read_bytes() == MP4_HEAD for video in listing.videos)


def test_names_of_any_bytes_are_told_apart():
    draw = random.Random(0)
    names = {bytes(draw.choices(b"%25aA\xe9\xc3\n", k=4)) for _ in range(2000)}
    assert len({printable(os.fsdecode(name)) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no video"),
        (lambda path: write(path / "notes.txt", "text"), "holds no video: 1 other file"),
    ],
)
def test_a_folder_without_videos_is_refused_in_one_sentence(tmp_path, make, sentence):
    make(tmp_path / "films")
    with pytest.raises(ValueError, match=sentence) as error:
        list_folder(tmp_path / "films")
    assert "\n" not in str(error.value)


# VoxCeleb


def vox2(root: Path) -> Path:
    write(root / "vox2_meta.csv", VOX2_META)
    for clip in ("00001", "00002"):
        write(root / "dev" / "mp4" / "id00012" / "21Uxsk56VDQ" / f"{clip}.mp4")
        write(root / "dev" / "aac" / "id00012" / "21Uxsk56VDQ" / f"{clip}.m4a")
    write(root / "test" / "mp4" / "id00017" / "-_under__sc" / "00001.mp4")
    write(root / "test" / "txt" / "id00017" / "-_under__sc" / "00001.txt", "Identity : id00017")
    return root


def test_voxceleb2_as_distributed(tmp_path):
    listing = list_voxceleb(vox2(tmp_path))
    assert ids(listing) == [
        "id00012/21Uxsk56VDQ/00001",
        "id00012/21Uxsk56VDQ/00002",
        "id00017/-_under__sc/00001",
    ]
    first, _, last = listing.videos
    assert first.path.suffix == ".mp4"  # the film, not the sound beside it
    assert (first.speaker_id, first.gender, first.split) == ("id00012", "male", "dev")
    assert (last.speaker_id, last.gender, last.split) == ("id00017", "female", "test")
    assert {video.source for video in listing.videos} == {"voxceleb2"}
    assert listing.refusals == []


def test_both_voxcelebs_at_once(tmp_path):
    vox2(tmp_path / "vox2")
    write(tmp_path / "vox1" / "vox1_meta.csv", VOX1_META)
    write(tmp_path / "vox1" / "test" / "mp4" / "id10270" / "5r0dWxy17C8" / "00001.mp4")
    listing = list_voxceleb(tmp_path)
    assert {video.speaker_id: video.source for video in listing.videos} == {
        "id00012": "voxceleb2",
        "id00017": "voxceleb2",
        "id10270": "voxceleb1",
    }


def vox1_sound(root: Path) -> Path:
    for clip in ("id10001/1zcIwhmdeo4/00001", "id10001/1zcIwhmdeo4/00002"):
        write(root / "dev" / "wav" / f"{clip}.wav", b"RIFF")
    write(root / "test" / "wav" / "id10270" / "5r0dWxy17C8" / "00001.wav", b"RIFF")
    return root


@pytest.mark.parametrize("by", ["name", "id"])
def test_voxceleb1_sound_with_face_crops(tmp_path, by):
    vox1_sound(tmp_path)
    meta = write(tmp_path / "elsewhere" / "my_vox1.csv", VOX1_META)
    person = {"name": "A.J._Buckley/1.6", "id": "id10001"}[by]
    crops = tmp_path / "unzippedFaces" / person / "1zcIwhmdeo4"
    for frame in ("0000750.jpg", "0000375.jpg"):
        write(crops / frame, b"\xff\xd8\xff")
    write(crops.parent / "another_one" / "0000025.jpg", b"\xff\xd8\xff")
    for listing in (
        list_voxceleb(tmp_path, [meta]),
        list_voxceleb(tmp_path, [meta], crops=tmp_path / "unzippedFaces"),
    ):
        assert ids(listing) == ["id10001/1zcIwhmdeo4/00001", "id10001/1zcIwhmdeo4/00002"]
        assert all(isinstance(video, SpeechAndCrops) for video in listing.videos)
        assert [path.name for path in listing.videos[0].crops] == ["0000375.jpg", "0000750.jpg"]
        assert listing.videos[0].path.suffix == ".wav"
        assert refused(listing) == {"id10270/5r0dWxy17C8/00001": "no_video"}


def test_crops_of_one_person_alone(tmp_path):
    vox1_sound(tmp_path / "sound")
    meta = write(tmp_path / "vox1_meta.csv", VOX1_META)
    crop = write(tmp_path / "Eartha_Kitt" / "1.6" / "5r0dWxy17C8" / "0000025.jpg", b"\xff\xd8\xff")
    listing = list_voxceleb(tmp_path / "sound", [meta], crops=tmp_path / "Eartha_Kitt")
    assert [video.crops for video in listing.videos] == [(crop,)]


def test_sound_alone_has_nothing_to_pair(tmp_path):
    vox1_sound(tmp_path)
    write(tmp_path / "vox1_meta.csv", VOX1_META)
    with pytest.raises(ValueError, match=f"^{tmp_path} has nothing to pair.*face crops.*3 clips"):
        list_voxceleb(tmp_path)


def test_the_newer_metadata_with_names(tmp_path):
    write(tmp_path / "mp4" / "id00012" / "21Uxsk56VDQ" / "00001.mp4")
    text = "VoxCeleb2ID,Name,VGGFace2 ID,Gender,Set\nid00012,Some_Body,n000012,f,test\n"
    (video,) = list_voxceleb(tmp_path, [write(tmp_path / "vox2_meta.csv", text)]).videos
    assert (video.gender, video.split) == ("female", "test")


def test_persons_without_metadata_are_refused(tmp_path):
    vox2(tmp_path)
    write(tmp_path / "dev" / "mp4" / "id09999" / "21Uxsk56VDQ" / "00001.mp4")
    assert refused(list_voxceleb(tmp_path)) == {"id09999/21Uxsk56VDQ/00001": "failed"}


def test_metadata_of_another_voxceleb_is_the_cause_that_is_named(tmp_path):
    write(tmp_path / "mp4" / "id00012" / "21Uxsk56VDQ" / "00001.mp4")
    write(tmp_path / "vox1_meta.csv", VOX1_META)
    sentence = f"^{tmp_path} has nothing to pair: id00012 is not in the metadata: name the CSV of"
    with pytest.raises(ValueError, match=sentence):
        list_voxceleb(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no vox1_meta.csv or vox2_meta.csv"),
        ("", "is not VoxCeleb's metadata"),
        ("speaker,sex\nid00012,m\n", "is not VoxCeleb's metadata"),
        ("VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012\n", "4 columns"),
    ],
)
def test_missing_or_other_metadata_is_refused(tmp_path, text, sentence):
    write(tmp_path / "mp4" / "id00012" / "21Uxsk56VDQ" / "00001.mp4")
    if text is not None:
        write(tmp_path / "vox2_meta.csv", text)
    with pytest.raises(ValueError, match=sentence):
        list_voxceleb(tmp_path)


def test_another_folder_is_not_voxceleb(tmp_path):
    write(tmp_path / "film.mp4")
    write(tmp_path / "vox1_meta.csv", VOX1_META)
    with pytest.raises(ValueError, match="holds no idXXXXX/YOUTUBE/00001.mp4"):
        list_voxceleb(tmp_path)


# AVSpeech

AVSPEECH = [
    ("0-ABCDEFGHI", "12.500000", "18.200000", "0.510000", "0.330000"),
    ("0-ABCDEFGHI", "30.000000", "33.100000", "0.200000", "0.400000"),
    ("trimmed____", "90.000000", "96.700000", "0.450000", "0.300000"),
    ("start_only_", "3.033333", "9.000000", "0.450000", "0.300000"),
    ("gone_______", "1.000000", "4.000000", "0.500000", "0.500000"),
    ("gone_______", "1.000000", "4.000000", "0.500000", "0.500000"),
]


def avspeech(path: Path, rows=AVSPEECH) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_avspeech_with_whole_videos_and_clips(tmp_path):
    videos = tmp_path / "videos"
    write(videos / "0" / "0-ABCDEFGHI.webm")
    write(videos / "trimmed_____90.0_96.7.mp4")
    write(videos / "trimmed_____10.0_16.7.mp4")
    write(videos / "start_only__3.03.mp4")
    write(videos / "0-ABCDEFGHI.part")
    listing = list_avspeech(avspeech(tmp_path / "avspeech_train.csv"), videos)
    stretches = [(v.path.name, v.start_s, v.end_s, v.face_position) for v in listing.videos]
    assert stretches == [
        ("0-ABCDEFGHI.webm", 12.5, 18.2, (0.51, 0.33)),
        ("0-ABCDEFGHI.webm", 30.0, 33.1, (0.2, 0.4)),
        ("start_only__3.03.mp4", None, None, (0.45, 0.3)),
        ("trimmed_____90.0_96.7.mp4", None, None, (0.45, 0.3)),
    ]
    assert ids(listing)[0] == "0-ABCDEFGHI/12.500000-18.200000@0.510000,0.330000"
    assert list(refused(listing).values()) == ["gone"] and listing.ignored == 1
    assert {video.split for video in listing.videos} == {"dev"}
    assert {video.speaker_id for video in listing.videos} == {None}


def test_avspeech_clips_are_preferred_to_whole_videos_and_odd_ids_are_kept_apart(tmp_path):
    videos = tmp_path / "videos"
    write(videos / "a_12_34.mp4")  # a whole video, of an id that looks like a clip's name
    write(videos / "both.mp4")
    write(videos / "both_1_3.mp4")
    rows = [("a_12_34", 1, 3, 0.5, 0.5), ("both", 1, 3, 0.5, 0.5), ("both", 5, 8, 0.5, 0.5)]
    listing = list_avspeech(avspeech(tmp_path / "part.csv", rows), videos)
    assert [(video.path.name, video.start_s) for video in listing.videos] == [
        ("a_12_34.mp4", 1),
        ("both_1_3.mp4", None),
        ("both.mp4", 5),
    ]
    assert {video.split for video in listing.videos} == {None}


def test_avspeech_lists_add_up(tmp_path):
    write(tmp_path / "videos" / "x.mp4")
    train = avspeech(tmp_path / "avspeech_train.csv", [("x", 0, 3, 0.5, 0.5)])
    test = avspeech(tmp_path / "avspeech_test.csv", [("x", 3, 6, 0.5, 0.5)])
    listing = list_avspeech([train, test], tmp_path / "videos")
    assert [video.split for video in listing.videos] == ["dev", "test"]


@pytest.mark.parametrize(
    "row",
    [
        ("id", "start", "end", "x", "y"),
        ("x", 3, 1, 0.5, 0.5),
        ("x", 0, "inf", 0.5, 0.5),
        ("x", "nan", 3, 0.5, 0.5),
        ("x", 0, 3, 1.5, 0.5),
        ("x", 0, 3, 0.5),
        ("../../etc/x", 0, 3, 0.5, 0.5),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row):
    path = avspeech(tmp_path / "list.csv", [("x", 0, 3, 0.5, 0.5), row])
    with pytest.raises(ValueError, match="line 2"):
        read_avspeech(path)


def test_an_empty_or_binary_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        read_avspeech(write(tmp_path / "empty.csv", b""))
    with pytest.raises(ValueError, match="cannot be read"):
        read_avspeech(write(tmp_path / "film.csv", b"\xff\xfe\x00\xd8"))
    with pytest.raises(ValueError, match="cannot be read"):
        read_avspeech(tmp_path / "missing.csv")


# Films of the cast


def cast(root: Path) -> Path:
    write(root / "films.json", json.dumps({"seed": 0, "licence": "CC0-1.0"}))
    people = [
        {"speaker_id": "cast-0-1", "split": "test", "voice_id": "af_bella", "gender": "female"},
        {"speaker_id": "cast-0-2", "split": "train", "voice_id": "am_adam", "gender": "male"},
    ]
    people[0] |= {"age": 33.0, "traits": {"weight": 0.5}, "licence": "Apache-2.0"}
    people[1] |= {"licence": "CC BY 4.0"}
    for film_id, cast_of_it in (("film-0", people[:1]), ("film-1", people)):
        write(root / "videos" / f"{film_id}.mkv")
        truth = {"film_id": film_id, "kind": "plain", "people": cast_of_it, "segments": []}
        write(root / "videos" / f"{film_id}.json", json.dumps(truth))
    return root


def test_films_of_the_cast_are_labelled_with_their_main_person(tmp_path):
    listing = list_cast(cast(tmp_path))
    assert ids(listing) == ["film-0", "film-1"]
    for video in listing.videos:
        assert (video.speaker_id, video.split, video.voice_id) == ("cast-0-1", "test", "af_bella")
        assert (video.gender, video.age, video.traits) == ("female", 33.0, {"weight": 0.5})
        assert video.source == "cast"
        assert video.face_position is None  # the truth says where; the extraction must find out
    # Either of two people may speak in a pair.
    assert [video.licence for video in listing.videos] == ["Apache-2.0", "Apache-2.0; CC BY 4.0"]


def test_films_without_film_or_truth_are_refused(tmp_path):
    cast(tmp_path)
    (tmp_path / "videos" / "film-1.mkv").unlink()
    write(tmp_path / "videos" / "film-2.mp4")
    write(tmp_path / "videos" / "film-3.mp4")
    write(tmp_path / "videos" / "film-3.json", "{}")
    listing = list_cast(tmp_path)
    assert refused(listing) == {"film-1": "gone", "film-2": "failed", "film-3": "failed"}


def test_a_folder_without_films_is_no_cast(tmp_path):
    with pytest.raises(ValueError, match="films.json cannot be read"):
        list_cast(tmp_path)
