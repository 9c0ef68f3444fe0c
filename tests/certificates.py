"""Certificates and keys of the kinds that people have, made anew for every test."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


def certificate_of(
    key,
    name: str,
    issuer_key=None,
    issuer: str | None = None,
    is_authority: bool = False,
    days: tuple[float, float] = (-1, 10),
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    serial_number: int | None = None,
) -> x509.Certificate:
    """A certificate of `name` for a key, issued by another or by itself.

    Args:
        key: the private key whose public half is certified.
        name: organisation.
        issuer_key, issuer: who issues it; itself if None.
        is_authority: whether it may issue others instead of signing.
        days: from when to when it is valid, counted from now.
        purpose: the extended key usage.
        serial_number: a random one if None.
    """
    now, issuer_key = datetime.datetime.now(datetime.UTC), issuer_key or key
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        + ("encipher_only", "decipher_only"),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        **usages,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer or name))
        .public_key(key.public_key())
        .serial_number(serial_number or x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    is_edwards = isinstance(issuer_key, ed25519.Ed25519PrivateKey)
    return builder.sign(issuer_key, None if is_edwards else hashes.SHA256())


def save_pair(
    folder: Path,
    key=None,
    name: str = "Somebody",
    issued_by: tuple | None = None,
    password: bytes | None = None,
    **kwargs,
) -> tuple[Path, Path]:
    """Writes a certificate with its issuer's, and the key; returns their paths.

    `issued_by` is (key, certificate) of an authority; further arguments are of `certificate_of`.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(exist_ok=True)
    chain = []
    if issued_by is not None:
        issuer_key, issuer = issued_by
        organisation = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
        kwargs |= {"issuer_key": issuer_key, "issuer": str(organisation)}
        chain = [issuer]
    chain = [certificate_of(key, name, **kwargs), *chain]
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(b"".join(certificate.public_bytes(PEM) for certificate in chain))
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    paths[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
    return paths


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name}'s pictures"),
        ]
    )
