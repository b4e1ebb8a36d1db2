"""A certificate authority of one test: a certificate for 127.0.0.1, and one for an administrator (O=system:masters)."""

import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def write(folder: Path, url: str) -> None:
    """ca.crt, server.crt and .key, client.crt and .key, and a kubeconfig of the server at `url`."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("halfbyte-tests")
    _save(folder / "ca.crt", _signed(issuer, authority, issuer, authority, is_authority=True))
    for who, subject in (("server", _name("127.0.0.1")), ("client", _name("administrator", "system:masters"))):
        key = ec.generate_private_key(ec.SECP256R1())
        _save(folder / f"{who}.crt", _signed(subject, key, issuer, authority, is_authority=False))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.TraditionalOpenSSL
        (folder / f"{who}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(folder, url)), "utf-8")


def _name(common: str, organization: str | None = None) -> x509.Name:
    pieces = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization is not None:
        pieces.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(pieces)


def _signed(subject: x509.Name, key: Key, issuer: x509.Name, signer: Key, *, is_authority: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _save(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _kubeconfig(folder: Path, url: str) -> dict[str, object]:
    cluster = {"server": url, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / "client.crt"), "client-key": str(folder / "client.key")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "administrator", "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "administrator"}}],
        "current-context": "tests",
    }
