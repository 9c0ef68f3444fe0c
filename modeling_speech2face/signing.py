"""Content Credentials (C2PA): a signature in the file of a generated image.

It says, in the form that cameras, editors and newsrooms read, that a model generated the image, and
shows whether the file was changed since. Of the voice it says nothing.
"""

import datetime
import io
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .provenance import DISCLAIMER, describe, open_image, read_provenance

CERTIFICATE_VARIABLE, KEY_VARIABLE = "SPEECH2FACE_CERTIFICATE", "SPEECH2FACE_KEY"
AGENT = "Speech2Face"
ASSERTION = "speech2face.provenance"  # our own part of the manifest: what `describe` says
# https://cv.iptc.org/newscodes/digitalsourcetype: made by a model that was trained on samples
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # it would be larger than a face of 64x64
    # Whoever signs or verifies is nobody's business: nothing is fetched.
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
OWN_YEARS = 10  # that a key which is made here is good for


@dataclass(frozen=True)
class SigningKey:
    """Whose signature it is.

    Args:
        certificates (`bytes`): PEM; the signer's own first, then those that it was issued by.
        private_key (`bytes`): PEM, PKCS#8, not encrypted.
        algorithm (`str`): as C2PA names it: "es256", "es384", "es512", "ps256" or "ed25519".
    """

    certificates: bytes
    private_key: bytes = field(repr=False)
    algorithm: str


def sign(path: str | Path, signing_key: SigningKey | None = None) -> None:
    """Signs a saved image in its place.

    What is signed is what its provenance text says: that a model generated it, which version and
    checkpoint, that it is no photograph and shows nobody. The pixels stay as they are.

    Args:
        path (`str` or `Path`): a PNG, JPEG, WebP or TIFF that carries provenance, as every image
            from the pipeline does, however it was saved.
        signing_key (`SigningKey`, *optional*): from `load_signing_key`, which is asked if None.

    Raises:
        ValueError: no image, no provenance, signed already, or a certificate that cannot sign.
        ImportError: c2pa-python is missing.

    Example:
        ```python
        >>> import tempfile
        >>> from PIL import Image
        >>> from modeling_speech2face import describe, save_image, sign, verify_image
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/face.png"
        >>> save_image(Image.new("RGB", (64, 64)), path, describe("somebody/checkpoint", seed=0))
        >>> sign(path)
        >>> verify_image(path).signature
        'valid'

        ```
    """
    path = Path(path).resolve()
    open_image(path).close()  # or it is said what is wrong with the file
    content = signed(path.read_bytes(), signing_key)
    # Beside it, then renamed: an image is never torn.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".signed.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def signed(content: bytes, signing_key: SigningKey | None = None) -> bytes:
    """Signs an image that is not in a file of its own, such as one that a web page shows.

    Args:
        content (`bytes`): an image file's, as for `sign`.
        signing_key (`SigningKey`, *optional*): as for `sign`.

    Returns:
        `bytes`: the signed file's.

    Raises:
        ValueError: as `sign`.
        ImportError: c2pa-python is missing.
    """
    try:
        image = Image.open(io.BytesIO(content))
    # Pillow raises what its readers of the formats happen to raise.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("this cannot be read as an image: pass a whole PNG or JPEG.") from error
    with image:
        form, provenance = image.get_format_mimetype(), read_provenance(image)
    return _signed(content, form, provenance, signing_key or load_signing_key())


def _signed(content: bytes, form: str | None, provenance: dict, signing_key: SigningKey) -> bytes:
    c2pa = c2pa_library()
    context, result = c2pa.Context.from_dict(SETTINGS), io.BytesIO()
    try:
        c2pa.Reader(form or "", io.BytesIO(content), context=context).close()
    except c2pa.C2paError.ManifestNotFound:
        pass
    except c2pa.C2paError as error:
        raise ValueError("files of this kind cannot be signed: save the image as PNG.") from error
    else:
        raise ValueError("the image is signed already: save it anew to sign it anew.")
    info = c2pa.C2paSignerInfo(
        signing_key.algorithm, signing_key.certificates, signing_key.private_key, None
    )
    try:
        with (
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_manifest(provenance), context) as builder,
        ):
            builder.sign(signer, form, io.BytesIO(content), result)
    except c2pa.C2paError as error:
        raise ValueError("the image cannot be signed: check the certificate.") from error
    return result.getvalue()


def load_signing_key(
    certificate: str | Path | None = None, key: str | Path | None = None
) -> SigningKey:
    """The key to sign with: the one that is named, or one that this machine makes for itself.

    Args:
        certificate (`str` or `Path`, *optional*): PEM file of the signer's certificate, followed by
            those that it was issued by; else what the environment variable SPEECH2FACE_CERTIFICATE
            names or, in PEM form, holds.
        key (`str` or `Path`, *optional*): PEM file of its private key; else SPEECH2FACE_KEY.

    Returns:
        `SigningKey`. Without a certificate it is a self-signed one, made at first use and kept in
        the user's configuration folder (`own_folder`). It names nobody, but whoever compares two
        images sees that they were signed by the same key.

    Raises:
        ValueError: one without the other, or a file that cannot be read, is not PEM, is encrypted,
            belongs to another key, has expired, or is not allowed to sign by C2PA's rules.
        ImportError: c2pa-python is missing.
    """
    if not is_configured(certificate, key):
        folder = own_folder()
        if not folder.exists():
            _make_own(folder)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate, certificate_name = _source(certificate, CERTIFICATE_VARIABLE, "certificate")
    key, key_name = _source(key, KEY_VARIABLE, "private key")
    if not certificate or not key:
        raise ValueError("a certificate and its private key belong together: name both.")
    certificates = load_certificates(certificate, certificate_name)
    return _checked(certificates, key, (certificate_name, key_name))


def is_configured(certificate: str | Path | None = None, key: str | Path | None = None) -> bool:
    """Whether the user names a certificate or a key, by argument or by environment."""
    return any((certificate, key, *map(os.environ.get, (CERTIFICATE_VARIABLE, KEY_VARIABLE))))


def own_folder() -> Path:
    """Where the key that this machine made for itself is kept, if it has made one."""
    try:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError as error:  # nobody's home
        raise ValueError(
            "there is no home folder for a signing key: set XDG_CONFIG_HOME."
        ) from error
    return Path(home) / "speech2face" / "signing"


def c2pa_library():
    """The module `c2pa`, or an `ImportError` that says how to get it."""
    try:
        import c2pa
    except (ImportError, OSError, RuntimeError) as error:  # it loads a shared library
        raise ImportError("c2pa-python is missing: pip install c2pa-python.") from error
    return c2pa


def load_certificates(certificate: str | Path, name: str | None = None) -> bytes:
    """Reads certificates in PEM form.

    Args:
        certificate (`str` or `Path`): their file, or the text itself.
        name (`str`, *optional*): what a message calls them.

    Raises:
        ValueError: they cannot be read, or there is none.
    """
    from cryptography import x509

    name = name or _named(certificate, "certificate")
    pem = _read_pem(certificate, name)
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{name} holds no certificate in PEM form: convert it.") from None
    return pem


def _checked(certificates: bytes, key: str | Path, names: tuple[str, str]) -> SigningKey:
    """The key and its certificate, after a signature for trial."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    (leaf, *_) = x509.load_pem_x509_certificates(certificates)
    private_key = _load_private_key(key, names[1])
    if leaf.public_key() != private_key.public_key():
        raise ValueError(
            f"{names[1]} does not belong to {names[0]}: name the key it was issued for."
        )
    now = datetime.datetime.now(datetime.UTC)
    if now > leaf.not_valid_after_utc:
        raise ValueError(f"{names[0]} expired on {leaf.not_valid_after_utc:%Y-%m-%d}: renew it.")
    if now < leaf.not_valid_before_utc:
        since = f"{leaf.not_valid_before_utc:%Y-%m-%d}"
        raise ValueError(f"{names[0]} is valid only from {since}: set the clock, or wait.")
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signing_key = SigningKey(certificates, pem, _algorithm_of(private_key, names[1]))
    dot = io.BytesIO()
    Image.new("L", (1, 1)).save(dot, "PNG")
    try:
        _signed(dot.getvalue(), "image/png", describe("none", None), signing_key)
    except ValueError as error:
        reason = str(error.__cause__).removeprefix("Signature: ")
        raise ValueError(
            f"{names[0]} may not sign images ({reason}): it must be one for digital signatures and "
            "e-mail protection or document signing, and no authority's."
        ) from error
    return signing_key


def _load_private_key(key: str | Path, name: str):
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    pem = _read_pem(key, name)
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError(f"{name} is encrypted: decrypt it with `openssl pkey`.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{name} holds no private key in PEM form: convert it.") from None


def _algorithm_of(private_key, name: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if private_key.curve.name in curves:
            return curves[private_key.curve.name]
    if isinstance(private_key, rsa.RSAPrivateKey) and private_key.key_size >= 2048:
        return "ps256"
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ValueError(
        f"{name} is of a kind that C2PA does not take: use P-256, P-384, P-521, Ed25519, or RSA of "
        "2048 bits or more."
    )


def _source(given: str | Path | None, variable: str, what: str) -> tuple[str | Path | None, str]:
    """A file or a text, and what a message calls it; never by what a variable holds."""
    if given:
        return given, _named(given, what)
    return os.environ.get(variable), f"the {what} in ${variable}"


def _read_pem(source: str | Path, name: str) -> bytes:
    """The content of a file, or the text itself: a Space keeps its secrets in variables."""
    if "-----BEGIN" in str(source) or "\n" in str(source):
        return str(source).lstrip().encode()
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # the latter for a name that cannot be one
        reason = getattr(error, "strerror", None) or "no file has such a name"
        # What was raised holds the name, which may be a key, and would stand in a traceback.
        raise ValueError(
            f"{name} cannot be read ({reason}): name a file in PEM form, or give the whole text of "
            "one with its line breaks."
        ) from None


def _named(source: str | Path, what: str) -> str:
    """What a message calls a certificate or a key: by its path, if it is one."""
    text = str(source)
    is_path = os.path.isabs(text) or os.path.exists(text)
    # A key whose line breaks were lost has the letters of a path, and begins as no path from the
    # root does.
    if "-----BEGIN" in text or "\n" in text or (not is_path and re.search(r"[\w+/=-]{40}", text)):
        return f"the {what}"
    return f"the {what} {text}"


def _make_own(folder: Path) -> None:
    """A key pair and a certificate that names nobody, readable by the user alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Speech2Face (self-signed)"),
            x509.NameAttribute(NameOID.COMMON_NAME, "somebody who uses Speech2Face"),
        ]
    )
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        + ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )
    extensions = (  # those that C2PA asks for
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(digital_signature=True, **usages), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - day).not_valid_after(now + 365 * OWN_YEARS * day)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key_form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whole before it has its name: of two processes that start together, one's is kept.
        beside = Path(tempfile.mkdtemp(dir=folder.parent))  # for the user alone
        try:
            (beside / "key.pem").touch(mode=0o600)
            (beside / "key.pem").write_bytes(key.private_bytes(pem, *key_form))
            (beside / "certificate.pem").write_bytes(certificate.public_bytes(pem))
            beside.rename(folder)
        except OSError:
            shutil.rmtree(beside)
            if not folder.exists():
                raise
    except OSError as error:
        raise ValueError(
            f"no signing key can be kept in {folder} ({error.strerror}): set XDG_CONFIG_HOME to a "
            "folder that can be written to."
        ) from error


def _manifest(provenance: dict) -> dict:
    # Only what `describe` says gets in, whatever else somebody wrote into the text.
    provenance = {name: provenance.get(name) for name in describe("", None)}
    agent = {"name": AGENT, "version": str(provenance["version"])}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": GENERATED,
        "softwareAgent": agent,
        "description": f"Not a photograph: {provenance['content']}. {DISCLAIMER}",
    }
    actions = {"label": "c2pa.actions.v2", "created": True, "data": {"actions": [created]}}
    ours = {"label": ASSERTION, "created": True, "data": provenance}
    # A title of our own: a file is named after the recording.
    title = f"Synthetic: {provenance['content']}"
    return {"claim_generator_info": [agent], "title": title, "assertions": [actions, ours]}
