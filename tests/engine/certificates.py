"""Certificates for tests, issued by CAs that are made for one test."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server certificate for this host name, and the file with the CA certificate that signed it."""
    authority = trustme.CA()
    path = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context, path


def write(directory: Path, authority: trustme.CA, name: str, ends: datetime | None = None) -> tuple[Path, Path]:
    """Writes a certificate and its key as two files, as a secret is mounted."""
    directory.mkdir(parents=True, exist_ok=True)
    made = authority.issue_cert(name, not_after=ends)
    cert, key = directory / "tls.crt", directory / "tls.key"
    cert.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return cert, key


def vouched(directory: Path, authority: trustme.CA, name: str = "ca.pem") -> Path:
    """Writes a CA certificate to a file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    authority.cert_pem.write_to_path(str(path))
    return path
