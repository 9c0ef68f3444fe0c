"""What a file's provenance says, and what that proves."""

import json
from dataclasses import dataclass
from pathlib import Path

from .provenance import open_image, read_provenance
from .signing import ASSERTION, SETTINGS, c2pa_library, load_certificates, own_folder

WHAT_IT_PROVES = (
    "Text in an image is written and removed by anyone: it proves nothing, and nor does its "
    "absence. A valid signature proves that whoever holds its key signed this very file; who that "
    "is it proves only where you trust the certificate. A missing signature proves nothing: it is "
    "lost whenever an image is saved anew, as most web sites do. None of it makes an image a "
    "photograph."
)


@dataclass(frozen=True)
class Verification:
    """What was found in an image; nothing in it is proved but by a valid signature.

    Args:
        text (`dict`, *optional*): the provenance that stands in it as text, as `describe` makes it.
        signature (`str`): "valid"; "changed": the file was changed after it was signed; "invalid":
            for another reason; "absent"; or "unchecked": c2pa-python is missing here.
        signed (`dict`, *optional*): the provenance that is signed; None where the signature is not
            valid or of somebody who does not say that Speech2Face made the image.
        signer (`str`): as the certificate names it; "" without one.
        issuer (`str`): who issued that certificate, as it says; "" without one.
        trust (`str`): "trusted": it leads to a certificate that was passed as trusted; "own": it is
            this machine's own; "self-signed": it vouches for itself; "unknown": none of these; "".
        reasons (`tuple` of `str`): what is wrong, C2PA's codes among it.
    """

    text: dict | None
    signature: str
    signed: dict | None = None
    signer: str = ""
    issuer: str = ""
    trust: str = ""
    reasons: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """The same for people: about the text, about the signature, and about who signed."""
        sentences = ["It has no text of Speech2Face."]
        if self.text:
            sentences = [f"Its text says that it was made by {_made_by(self.text)}."]
        who = f'"{self.signer}"' if self.signer else "somebody"
        reasons = ", ".join(self.reasons)
        sentences += {
            "valid": [f"Its signature is valid: the file is as it was when {who} signed it."],
            "changed": [f"Its signature is broken: the file was changed after {who} signed it."],
            "invalid": [f"Its signature is invalid ({reasons}): it proves nothing."],
            "absent": [f"It has no signature{f' ({reasons})' if reasons else ''}."],
            "unchecked": ["Its signature was not checked: pip install c2pa-python."],
        }[self.signature]
        if self.signature != "valid":
            return sentences
        if self.signed and self.signed == self.text:
            sentences.append("Signed is what its text says.")
        elif self.signed:
            sentences.append(f"Signed is that it was made by {_made_by(self.signed)}.")
        else:
            sentences.append("What is signed does not say that Speech2Face made it.")
        sentences += {
            "trusted": [f'The certificate leads to one that you trust; "{self.issuer}" issued it.'],
            "own": ["The key is the one that this machine made for itself."],
            "self-signed": ["The certificate is self-signed: anyone can make one of any name."],
            "unknown": [
                f'The certificate was issued by "{self.issuer}", which was not checked: name '
                "certificates that you trust with --trust."
            ],
        }[self.trust]
        return sentences


def verify_image(path: str | Path, trusted: str | Path | None = None) -> Verification:
    """Reads the provenance of an image file, as text and as signature, without using the network.

    Args:
        path (`str` or `Path`): the image.
        trusted (`str` or `Path`, *optional*): PEM file of certificates that you trust, of signers
            or of authorities.

    Returns:
        `Verification`.

    Raises:
        ValueError: no image, or no certificates in `trusted`.
    """
    path = Path(path)
    with open_image(path) as image:
        form = image.get_format_mimetype()
        try:
            text = read_provenance(image)
        except Exception:  # Pillow raises what it likes for EXIF that is damaged
            text = None
    anchors = load_certificates(trusted) if trusted else None
    try:
        return _verify_signature(path, form, text, anchors)
    except ImportError:
        return Verification(text, "unchecked")


def _verify_signature(path: Path, form: str, text: dict | None, anchors: bytes | None):
    c2pa = c2pa_library()
    try:
        store, certificate = _read(path, form, anchors)
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return Verification(text, "absent")
    except c2pa.C2paError as error:
        if str(error).startswith("Remote"):
            elsewhere = "it names one on another host, which is not asked"
            return Verification(text, "absent", reasons=(elsewhere,))
        return Verification(text, "invalid", reasons=("the file is damaged",))
    manifest = store["manifests"][store["active_manifest"]]
    names = {whose: _name(certificate.get(whose, {})) for whose in ("subject", "issuer")}
    failures = {
        _plain(status["code"])
        for status in store.get("validation_status", ())
        if status["code"] != "signingCredential.untrusted"
    }
    if store["validation_state"] == "Invalid":
        changed = any(code.endswith(".mismatch") for code in failures)
        return Verification(
            text,
            "changed" if changed else "invalid",
            signer=names["subject"],
            issuer=names["issuer"],
            reasons=tuple(sorted(failures)),
        )
    if store["validation_state"] == "Trusted":
        trust = "trusted"
    elif _is_own(path, form):
        trust = "own"
    else:
        trust = "self-signed" if names["subject"] == names["issuer"] else "unknown"
    signed = [a["data"] for a in manifest.get("assertions", ()) if a["label"] == ASSERTION]
    signed = signed[0] if signed and isinstance(signed[0], dict) else None
    return Verification(text, "valid", signed, names["subject"], names["issuer"], trust)


def _read(path: Path, form: str, anchors: bytes | None) -> tuple[dict, dict]:
    """The manifests with their validation, and what the signer's certificate says."""
    c2pa = c2pa_library()
    trust = {"trust": {"user_anchors": anchors.decode()}} if anchors else {}
    context = c2pa.Context.from_dict({**SETTINGS, **trust})
    with path.open("rb") as file, c2pa.Reader(form, file, context=context) as reader:
        store, signatures = json.loads(reader.json()), json.loads(reader.crjson())
    for manifest in signatures["manifests"]:
        if manifest["label"] == store["active_manifest"]:
            return store, manifest.get("signature", {}).get("certificateInfo", {})
    return store, {}


def _is_own(path: Path, form: str) -> bool:
    try:
        own = load_certificates(own_folder() / "certificate.pem")
    except ValueError:  # it has made none
        return False
    store, _ = _read(path, form, own)
    return store["validation_state"] == "Trusted"


def _name(parts: dict) -> str:
    return _plain(", ".join(str(parts[part]) for part in ("O", "CN") if part in parts))


def _made_by(provenance: dict) -> str:
    version, checkpoint, seed, content = (
        _plain(str(provenance.get(name))) for name in ("version", "checkpoint", "seed", "content")
    )
    return f"Speech2Face {version}, checkpoint {checkpoint}, seed {seed}: {content}"


def _plain(text: str) -> str:
    """Of a stranger's text what a terminal may be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
