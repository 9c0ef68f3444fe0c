import json
from pathlib import Path

import pytest
import yaml

from dataset_scripts.publishing import check_can_push, push_dataset, state_rights
from dataset_scripts.speech_face_pairs import main
from tests.fake_extraction import fake_extract
from tests.local_hub import HubSession, LocalHub
from tests.test_speech_face_pairs import make_films

RIGHTS = "Everybody in it agreed in writing; the papers are in our archive."


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, no_workers):
    folder = tmp_path_factory.mktemp("published")
    films = make_films(folder / "films", {f"{k}.mp4": f"person:p{k}" for k in range(9)})
    arguments = ["folder", str(films), "--output", str(folder / "pairs")]
    assert main(arguments, extract=fake_extract) == 0
    return folder / "pairs"


@pytest.fixture(scope="module")
def site():
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def session(site, tmp_path_factory):
    with HubSession(site, tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.fixture
def hub(site):
    """The site, on which nothing is yet."""
    site.repos.clear()
    site.contents.clear()
    return site


def command(session: HubSession, *arguments, **token) -> tuple[int, str, str]:
    return session.command("tests.fake_extraction", *arguments, **token)


def person_in(dataset: Path) -> str:
    import pyarrow.parquet

    file = next(dataset.glob("train-*.parquet"))
    return pyarrow.parquet.read_table(file, columns=["speaker_id"])["speaker_id"][0].as_py()


def test_a_data_set_goes_to_the_hub_and_back(hub, session, dataset, tmp_path):
    push = ["built", dataset, "--push-to-hub", "somebody/pairs", "--rights", RIGHTS]
    names = tmp_path / "names.txt"
    names.write_text(person_in(dataset))
    first = command(session, *push)
    again = command(session, *push, "--contact", "me@example.org")
    assert first[0] == again[0] == 0 and f"{hub.url}/datasets/somebody/pairs\n" in first[1]
    repo = hub.repos["dataset", "somebody/pairs"]
    assert repo.private
    assert repo.files() == {path.name for path in dataset.iterdir()}
    card = hub.read("dataset", "somebody/pairs", "README.md").decode()
    assert RIGHTS in card.split("---\n", 2)[2] and "write to me@example.org," in card
    assert yaml.safe_load(card.split("---\n")[1])["speech2face"]["rights"] == RIGHTS
    load = (
        "import json, datasets\n"
        "whole = datasets.load_dataset('somebody/pairs')\n"
        "parts = datasets.load_dataset('somebody/pairs', split='train', streaming=True)\n"
        "rows = [(r['pair_id'], r['face'].size, len(r['audio']['bytes'])) for r in parts]\n"
        "print(json.dumps([{split: len(whole[split]) for split in whole}, rows]))"
    )
    status, out, errors = session.run(load)
    assert status == 0, errors
    counts, rows = json.loads(out.splitlines()[-1])
    assert sum(counts.values()) == 18 and len(rows) == counts["train"]
    assert all(size == [224, 224] and length > 1000 for _, size, length in rows)

    old = set(hub.contents)
    removed = command(session, *push, "--remove", names)
    assert removed[0] == 0 and "1 person and 0 videos were taken out" in removed[1]
    assert len(repo.versions) == 1  # the history, which held the person, is gone
    assert repo.files() == {path.name for path in dataset.iterdir()} - {"removed.json"}
    person = names.read_text().encode()
    assert set(hub.contents) & old and not set(hub.contents) >= old
    assert all(person not in content for content in hub.contents.values())


def test_public_only_if_it_is_said(hub, session, dataset):
    push = ["built", dataset, "--push-to-hub", "somebody/open", "--rights", RIGHTS]
    shown, hidden = command(session, *push, "--public"), command(session, *push)
    assert shown[0] == 0 and not hub.repos["dataset", "somebody/open"].private
    assert hidden[0] == 1
    assert hidden[2] == (
        "speech_face_pairs: somebody/open is public already: add --public, or choose another name"
    )
    assert len(hub.repos["dataset", "somebody/open"].versions) == 2  # nothing was pushed


def test_what_cannot_be_pushed_is_refused_before_any_work(hub, session, tmp_path):
    films = make_films(tmp_path / "films", {"a.mp4": "person:anna"})
    start = ["folder", films, "--output", tmp_path / "pairs", "--push-to-hub"]
    no_rights = command(session, *start, "somebody/pairs")
    tick = command(session, *start, "somebody/pairs", "--rights", "yes")
    bad_name = command(session, *start, "some body/pairs!", "--rights", RIGHTS)
    stranger = command(session, *start, "somebody/pairs", "--rights", RIGHTS, token=None)
    for (status, _, error), words in (
        (no_rights, 'state with --rights "..." by what right they may be passed on'),
        (tick, 'state with --rights "..." by what right they may be passed on'),
        (bad_name, "is no name for a repository"),
        (stranger, "nobody is logged in to the Hub: run `hf auth login` first"),
    ):
        assert status == 1 and words in error and error.startswith("speech_face_pairs: ")
    assert not (tmp_path / "pairs").exists() and not hub.repos


def test_no_rights_no_push(dataset, tmp_path):
    import shutil

    with pytest.raises(ValueError, match="voices and faces are biometric data"):
        check_can_push("somebody/pairs", False, None)
    copy = Path(shutil.copytree(dataset, tmp_path / "pairs"))
    card = (copy / "README.md").read_text()
    (copy / "README.md").write_text(card.replace(f"  rights: {RIGHTS}\n", ""))
    with pytest.raises(ValueError, match="voices and faces are biometric data"):
        push_dataset(copy, "somebody/pairs", False)
    with pytest.raises(ValueError, match="holds no finished data set"):
        push_dataset(tmp_path, "somebody/pairs", False)


def test_what_became_public_meanwhile_gets_nothing(dataset, tmp_path, monkeypatch):
    import shutil

    copy = Path(shutil.copytree(dataset, tmp_path / "pairs"))
    state_rights(copy, RIGHTS, None)
    monkeypatch.setattr("dataset_scripts.publishing._is_private", lambda api, repo: False)
    with pytest.raises(ValueError, match="somebody/pairs is public already: add --public"):
        push_dataset(copy, "somebody/pairs", False)
