"""Signatures in generated images: who may sign, what is signed, and what `verify` says of it."""

import datetime
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import traceback
import zlib
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from PIL import Image, PngImagePlugin

from modeling_speech2face import (
    describe,
    load_signing_key,
    read_provenance,
    save_image,
    sign,
    verify_image,
)
from modeling_speech2face import signed as signed_content
from modeling_speech2face.__main__ import main
from modeling_speech2face.signing import own_folder
from tests.certificates import PEM, certificate_of, save_pair

PROVENANCE = describe("somebody/checkpoint", seed=7)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A configuration folder without a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def saved(path: Path, **kwargs) -> Path:
    """A picture that carries provenance as text alone."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    save_image(Image.fromarray(pixels), path, {**PROVENANCE, **kwargs})
    return path


def signed(path: Path, key=None) -> Path:
    sign(saved(path), key)
    return path


def manifest_of(path: Path) -> dict:
    with c2pa.Reader(Image.open(path).get_format_mimetype(), path.open("rb")) as reader:
        return reader.get_active_manifest()


@pytest.fixture
def verify(capsys):
    """Runs `speech2face verify`; returns exit status, what it says, and what it refuses."""

    def verify(*arguments) -> tuple[int, str, list[str]]:
        status = main(["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err.splitlines()

    return verify


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_signed_image_is_valid_and_its_pixels_are_as_they_were(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}")
    before, size = np.asarray(Image.open(path)), path.stat().st_size
    sign(path)
    found = verify_image(path)
    assert (found.signature, found.trust) == ("valid", "own")
    assert found.signed == found.text == PROVENANCE == read_provenance(path)
    assert np.array_equal(np.asarray(Image.open(path)), before)
    assert path.stat().st_size - size < 6000
    assert {file.name for file in tmp_path.iterdir()} == {"config", path.name}


def test_it_says_that_a_model_made_it_and_that_it_is_no_photograph_of_the_speaker(tmp_path):
    manifest = manifest_of(signed(tmp_path / "secret-name-of-the-voice.png"))
    (actions, ours) = manifest["assertions"]
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    agent = {"name": "Speech2Face", "version": PROVENANCE["version"]}
    assert action["softwareAgent"] == agent
    assert "Not a photograph" in action["description"] and "the speaker" in action["description"]
    assert ours["data"] == PROVENANCE
    assert "secret" not in json.dumps(manifest)


def test_only_what_describe_says_is_signed(tmp_path):
    path = saved(tmp_path / "a.png", voice="path/of/the/voice.wav")
    sign(path)
    assert "voice.wav" not in json.dumps(manifest_of(path))
    assert verify_image(path).signed == PROVENANCE


def test_the_key_of_this_machine_is_made_once_and_is_the_users_alone(tmp_path):
    assert not own_folder().exists()
    first = load_signing_key()
    assert load_signing_key() == first
    assert stat.S_IMODE(own_folder().stat().st_mode) == 0o700
    assert stat.S_IMODE((own_folder() / "key.pem").stat().st_mode) == 0o600
    assert os.listdir(own_folder().parent) == ["signing"]
    (certificate,) = x509.load_pem_x509_certificates(first.certificates)
    assert certificate.subject == certificate.issuer
    name = certificate.subject.rfc4514_string()
    assert "self-signed" in name and os.uname().nodename not in name
    assert b"PRIVATE" not in repr(first).encode()


def test_processes_that_start_together_sign_by_one_key(tmp_path):
    code = (
        "import hashlib\nfrom modeling_speech2face import load_signing_key\n"
        "print(hashlib.sha256(load_signing_key().private_key).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {run.communicate()[0] for run in runs}
    assert len(said) == 1 and len(said.pop().strip()) == 64
    assert os.listdir(own_folder().parent) == ["signing"]


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_a_certificate_of_the_users_own(tmp_path, kind):
    key = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    pair = save_pair(tmp_path / "pair", key, name="A studio")
    path = signed(tmp_path / "a.png", load_signing_key(*pair))
    found = verify_image(path)
    assert (found.signature, found.trust) == ("valid", "self-signed")
    assert found.signer == "A studio, A studio's pictures"
    assert verify_image(path, trusted=pair[0]).trust == "trusted"
    assert not own_folder().exists()


@pytest.fixture
def authority(tmp_path):
    """A key, its certificate, and that certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_of(key, "An authority", is_authority=True)
    (tmp_path / "authority.pem").write_bytes(certificate.public_bytes(PEM))
    return key, certificate, tmp_path / "authority.pem"


def test_whom_an_authority_vouches_for(tmp_path, authority, verify):
    key, certificate, trusted = authority
    pair = save_pair(tmp_path / "pair", name="A studio", issued_by=(key, certificate))
    path = signed(tmp_path / "a.png", load_signing_key(*pair))
    assert verify_image(path).trust == "unknown"
    assert verify_image(path, trusted).trust == "trusted"
    status, said, _ = verify(path)
    assert status == 0 and 'issued by "An authority, An authority\'s pictures"' in said
    assert "not checked" in said
    status, said, _ = verify(path, "--trust", trusted)
    assert status == 0 and "leads to one that you trust" in said
    own = signed(tmp_path / "b.png")
    assert verify(own)[0] == 0
    assert verify(own, "--trust", trusted)[0] == 4


def test_a_certificate_that_only_bears_the_same_names_is_not_this_machines_own(tmp_path):
    signed(tmp_path / "a.png")
    folder = own_folder()
    (own,) = x509.load_pem_x509_certificates((folder / "certificate.pem").read_bytes())
    away = folder.rename(tmp_path / "away")
    load_signing_key()  # another machine's; the names are the same
    forged = signed(tmp_path / "b.png")
    shutil.rmtree(folder)
    away.rename(folder)
    assert verify_image(tmp_path / "a.png").trust == "own"
    assert verify_image(forged).trust == "self-signed"
    pair = save_pair(tmp_path / "pair", serial_number=own.serial_number)
    assert verify_image(signed(tmp_path / "c.png", load_signing_key(*pair))).trust == "self-signed"


def test_the_certificate_may_come_by_the_environment(tmp_path, monkeypatch):
    pair = save_pair(tmp_path / "pair", name="A studio")
    monkeypatch.setenv("SPEECH2FACE_CERTIFICATE", str(pair[0]))
    monkeypatch.setenv("SPEECH2FACE_KEY", str(pair[1]))
    of_files = load_signing_key()
    monkeypatch.setenv("SPEECH2FACE_CERTIFICATE", pair[0].read_text())
    monkeypatch.setenv("SPEECH2FACE_KEY", pair[1].read_text())
    assert load_signing_key() == of_files
    assert verify_image(signed(tmp_path / "a.png")).signer.startswith("A studio")
    monkeypatch.setenv("SPEECH2FACE_KEY", f"\n {pair[1].read_text()}")
    assert load_signing_key() == of_files


def test_no_key_is_shown_whatever_became_of_it(tmp_path, monkeypatch, capsys):
    certificate, key = save_pair(tmp_path / "pair")
    letters = "".join(key.read_text().splitlines()[1:-1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEECH2FACE_CERTIFICATE", str(certificate))
    command = ["voice.wav", "--output", str(tmp_path / "out")]

    def refused(shown: str, *arguments) -> None:
        with pytest.raises(ValueError, match="private key") as error:
            load_signing_key(*arguments)
        options = ["--certificate", str(certificate), f"--key={arguments[1]}"] if arguments else []
        assert main([*command, *options]) == 1
        said = str(error.value) + "".join(traceback.format_exception(error.value))
        assert shown not in said + capsys.readouterr().err, said

    for broken, shown in (
        ("-----BEGIN PRIVATE KEY-----\nsecret", "secret"),
        ("\n-----BEGIN\nsecret", "secret"),
        ("MIG\nsecret", "secret"),
        (letters, letters[:20]),
        (letters[:44], letters[:20]),
        (f"{letters[:80]}/{letters}", letters[:20]),
    ):
        refused(shown, certificate, broken)
        monkeypatch.setenv("SPEECH2FACE_KEY", broken)
        refused(shown)
        monkeypatch.delenv("SPEECH2FACE_KEY")
    # Of a variable, nothing at all.
    monkeypatch.setenv("SPEECH2FACE_KEY", "hf_secret")
    refused("hf_secret")
    monkeypatch.setenv("SPEECH2FACE_KEY", str(key))
    monkeypatch.setenv("SPEECH2FACE_CERTIFICATE", letters)
    with pytest.raises(ValueError, match="certificate in [$]SPEECH2FACE_CERTIFICATE") as error:
        load_signing_key()
    assert letters[:20] not in "".join(traceback.format_exception(error.value))


def bad_pairs(folder: Path) -> dict[str, tuple]:
    """Certificates and keys that cannot sign, by what the sentence about them must say."""
    good, other = save_pair(folder / "good"), save_pair(folder / "other")
    (folder / "text.pem").write_text("hello")
    curve = ec.generate_private_key(ec.SECP256K1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    weak = rsa.generate_private_key(65537, 1024)
    public, form = folder / "public.pem", serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(curve.public_key().public_bytes(PEM, form))
    return {
        "belong together": (good[0], None),
        "and its private key belong": (None, good[1]),
        "missing.pem cannot be read .No such file": (folder / "missing.pem", good[1]),
        "key .*nowhere.pem cannot be read": (good[0], folder / "nowhere.pem"),
        "cannot be read .Is a directory": (folder, good[1]),
        "holds no certificate": (folder / "text.pem", good[1]),
        "holds no private key": (good[0], folder / "text.pem"),
        "public.pem holds no private key": (good[0], public),
        "does not belong": (good[0], other[1]),
        "is encrypted": save_pair(folder / "locked", password=b"secret"),
        "expired on 20": save_pair(folder / "old", days=(-9, -2)),
        "valid only from": save_pair(folder / "new", days=(2, 9)),
        "may not sign images .the certificate is invalid": save_pair(
            folder / "server", purpose=purpose
        ),
        "no authority": save_pair(folder / "authority", is_authority=True),
        "use P-256": save_pair(folder / "curve", curve),
        "2048 bits or more": save_pair(folder / "weak", weak),
    }


def test_what_cannot_sign_is_refused_in_a_sentence(tmp_path, capsys):
    for message, (certificate, key) in bad_pairs(tmp_path).items():
        with pytest.raises(ValueError, match=message) as error:
            load_signing_key(certificate, key)
        text = str(error.value)
        assert text.endswith(".") and "\n" not in text, text
    # The command refuses before it loads anything, or draws.
    arguments = ["voice.wav", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--certificate", str(tmp_path / "missing.pem"), "--key", "x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("speech2face: the certificate") and said.count("\n") == 1


def test_a_home_that_cannot_be_written_to_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="no signing key can be kept .*set XDG_CONFIG_HOME"):
        load_signing_key()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", lambda: exec("raise RuntimeError"))
    with pytest.raises(ValueError, match="no home folder"):
        load_signing_key()


def test_a_keys_other_forms_are_read(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    certificate, path = save_pair(tmp_path / "pair", key)
    of_pkcs8 = load_signing_key(certificate, path)
    old = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(PEM, *old))
    assert b"BEGIN EC PRIVATE" in path.read_bytes()
    assert load_signing_key(certificate, path) == of_pkcs8


def test_what_cannot_be_signed_is_refused_and_left_as_it_was(tmp_path):
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    (tmp_path / "text.png").write_text("no image")
    again = signed(tmp_path / "a.png")
    for message, path in {
        "no provenance of Speech2Face": plain,
        "cannot be read as an image": tmp_path / "text.png",
        "does not exist": tmp_path / "missing.png",
        "not a regular file": tmp_path,
        "signed already": again,
    }.items():
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ValueError, match=message):
            sign(path)
        assert before is None or path.read_bytes() == before
    with pytest.raises(ValueError, match="cannot be read as an image"):
        signed_content(b"no image")


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path):
    assert verify_image(signed(tmp_path / f"{'a' * 251}.png")).signature == "valid"


def edit(path: Path, old: bytes, new: bytes) -> None:
    """Replaces bytes of a PNG's chunks and mends their checksums, so that it opens as before."""
    content, out, position = path.read_bytes(), bytearray(), 8
    out += content[:8]
    assert old in content and len(old) == len(new)
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        chunk = content[position + 4 : position + 8 + length].replace(old, new)
        out += length.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        position += 12 + length
    path.write_bytes(bytes(out))


def test_pixels_that_were_changed_are_found(tmp_path, verify):
    path = signed(tmp_path / "a.png")
    pixels = np.asarray(Image.open(path)).copy()
    pixels[10:20, 10:20] = 0
    other = io.BytesIO()
    Image.fromarray(pixels).save(other, "PNG")

    def chunk(content: bytes) -> bytes:
        start = content.index(b"IDAT") - 4
        return content[start : content.index(b"IEND") - 4]

    path.write_bytes(path.read_bytes().replace(chunk(path.read_bytes()), chunk(other.getvalue())))
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    found = verify_image(path)
    assert found.signature == "changed" and found.signed is None
    assert found.reasons == ("assertion.dataHash.mismatch",) and found.text == PROVENANCE
    status, said, _ = verify(path)
    assert status == 3 and "the file was changed after" in said


def test_text_that_was_changed_is_found(tmp_path):
    path = signed(tmp_path / "a.png")
    edit(path, b"Synthetic: a face", b"A photograph face")
    assert "photograph" in Image.open(path).text["Description"]
    assert verify_image(path).signature == "changed"


def test_a_manifest_that_was_changed_is_found(tmp_path):
    path = signed(tmp_path / "a.png")
    edit(path, b"Not a photograph", b"It, a photograph")
    assert verify_image(path).signature == "changed"


def test_an_expired_signature_is_invalid(tmp_path, verify):
    pair = save_pair(tmp_path / "pair", days=(-1, 2 / 86400))
    path = signed(tmp_path / "a.png", load_signing_key(*pair))
    (certificate,) = x509.load_pem_x509_certificates(pair[0].read_bytes())
    end = certificate.not_valid_after_utc
    time.sleep(max(0, (end - datetime.datetime.now(datetime.UTC)).total_seconds()) + 1.1)
    assert verify_image(path).signature == "invalid"
    status, said, _ = verify(path)
    assert status == 3 and "invalid (signingCredential.expired)" in said, said


def foreign(path: Path, elsewhere: str | None = None) -> Path:
    """Somebody else's photograph with Content Credentials, in it or at an address."""
    pair = save_pair(path.parent / "foreign", name="A camera")
    content, target = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG")
    content.seek(0)
    info = c2pa.C2paSignerInfo("es256", pair[0].read_bytes(), pair[1].read_bytes(), None)
    action = {"action": "c2pa.created", "digitalSourceType": "http://x.org/digitalCapture"}
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [action]}}
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder({"title": "A photograph", "assertions": [actions]}) as builder,
    ):
        if elsewhere:
            builder.set_no_embed()
            builder.set_remote_url(elsewhere)
        builder.sign(signer, "image/jpeg", content, target)
    path.write_bytes(target.getvalue())
    return path


def test_a_signature_that_is_kept_elsewhere_is_not_fetched(tmp_path, verify):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.c2pa"
        status, said, _ = verify(foreign(tmp_path / "a.jpg", elsewhere=address))
        assert status == 4 and "no signature (it names one on another host, which is" in said
        with pytest.raises(BlockingIOError):  # nobody asked
            server.accept()


def test_what_verify_says_of_all_kinds_of_images(tmp_path, verify):
    text_alone = saved(tmp_path / "text.png")
    stripped = tmp_path / "stripped.jpg"
    Image.open(signed(tmp_path / "signed.png")).save(stripped)
    for path, signature, status, sentence in (
        (tmp_path / "signed.png", "valid", 0, "this machine made for itself"),
        (text_alone, "absent", 4, "Its text says that it was made by Speech2Face"),
        (stripped, "absent", 4, "It has no text of Speech2Face."),
        (foreign(tmp_path / "photo.jpg"), "valid", 4, "does not say that Speech2Face made it"),
    ):
        assert verify_image(path).signature == signature
        returned, said, refused = verify(path)
        assert returned == status and sentence in said and not refused, said
        assert said.startswith(f"{path}:") and "proves nothing" in " ".join(said.split())
    assert "A camera" in verify(tmp_path / "photo.jpg")[1]
    returned, said, refused = verify(tmp_path / "signed.png", tmp_path / "missing.png")
    assert returned == 1 and "proves nothing" in " ".join(said.split()) and "missing" in refused[0]
    assert verify(tmp_path / "signed.png", text_alone)[0] == 4


def test_what_is_no_image_is_one_sentence_each(tmp_path, verify):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    whole = signed(tmp_path / "signed.png")
    (tmp_path / "torn.png").write_bytes(whole.read_bytes()[:-100])
    names = ("empty.png", "text.png", "pipe.png", "missing.png", ".")
    status, said, refused = verify(*(tmp_path / name for name in names))
    assert status == 1 and said == "" and len(refused) == len(names)
    for name, line in zip(names, refused, strict=True):
        assert line.startswith(f"speech2face: {tmp_path / name}") and line.endswith(".")
    status, said, _ = verify(tmp_path / "torn.png")
    assert status == 3 and "the file is damaged" in said
    assert verify(tmp_path / "missing.png", tmp_path / "torn.png")[0] == 1
    for trust in ("missing.pem", "text.png"):
        status, _, refused = verify(whole, "--trust", tmp_path / trust)
        assert status == 1 and len(refused) == 1 and trust in refused[0]


def test_a_strangers_text_does_not_reach_the_terminal_as_it_is(tmp_path, verify):
    path = saved(tmp_path / "a.png", checkpoint="\x1b[2J\nforged line" + "x" * 9999)
    said = verify(path)[1]
    assert "?[2J?forged line" in said and "\x1b" not in said and "x" * 300 not in said
    info = PngImagePlugin.PngInfo()
    info.add_text("speech2face", "[" * 100_000)  # JSON that is nested too deeply
    Image.new("L", (4, 4)).save(path, pnginfo=info)
    assert "no text" in verify(path)[1]


def test_torn_and_flipped_images_end_in_a_verdict(tmp_path):
    content = signed(tmp_path / "a.png").read_bytes()
    rng, path, found = np.random.default_rng(0), tmp_path / "b.png", set()
    for _ in range(150):
        changed = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 20)):
            changed[position] = rng.integers(256)
        path.write_bytes(
            changed[: rng.integers(50, len(content))] if rng.random() < 0.3 else changed
        )
        try:
            found.add(verify_image(path).signature)
        except ValueError as error:
            found.add(str(error).split(" ", 1)[1])
    assert "valid" not in found and {"changed", "invalid"} <= found


@pytest.mark.parametrize("missing", ["c2pa", "c2pa.c2pa"])
def test_without_the_library_there_is_text_and_one_sentence(tmp_path, verify, monkeypatch, missing):
    path = signed(tmp_path / "a.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "c2pa"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    status, said, _ = verify(path)
    assert status == 4 and "not checked: pip install c2pa-python" in said
    with pytest.raises(ImportError, match="c2pa-python is missing: pip install c2pa-python."):
        sign(saved(tmp_path / "b.png"))
    assert read_provenance(tmp_path / "b.png") == PROVENANCE


def test_the_command_signs_what_it_writes_unless_it_is_told_not_to(tmp_path, capsys, monkeypatch):
    from tests.tiny import tiny_pipeline

    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    voice, output = "samples/librispeech-2414.flac", tmp_path / "out"
    arguments = [voice, "--output", str(output), "--checkpoint", str(tmp_path / "tiny")]

    def signatures() -> set[str]:
        return {verify_image(path).signature for path in output.iterdir()}

    assert main(arguments) == 0 and len(list(output.iterdir())) == 7
    assert signatures() == {"valid"}
    assert main([*arguments, "--unsigned"]) == 0 and signatures() == {"absent"}
    certificate, key = save_pair(tmp_path / "pair", name="A studio")
    assert main([*arguments, "--certificate", str(certificate), "--key", str(key)]) == 0
    assert verify_image(next(output.iterdir())).signer.startswith("A studio")
    capsys.readouterr()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert main(arguments) == 0 and signatures() == {"absent"}
    said = capsys.readouterr().err
    assert said.startswith("speech2face: the pictures are not signed: no signing key can be kept")
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--unsigned", "--key", "x"])
    assert exit.value.code == 2
