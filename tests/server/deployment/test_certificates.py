"""Our own authority, and a hospital trust's: what is taken and what is not."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from common.errors import InputError
from server.deployment.certificates import (
    _issue,
    _write,
    adopt,
    client_context,
    expiry,
    make_certificates,
    problems,
    renew,
    server_context,
)
from server.deployment.config import Server, ServerConfig, make_config, make_folder

HOST = "fed.example.org"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Server, ServerConfig]:
    server, config = Server(tmp_path / "c"), make_config("trial", f"{HOST}:8443", None, 9092)
    make_folder(server, config)
    make_certificates(server, config)
    return server, config


def shake(certificate: Path, key: Path, ca: Path, host: str, strict: bool = False) -> str:
    """A TLS handshake: its version. Raises ssl.SSLError on the client's side."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            try:
                server_context(certificate, key).wrap_socket(accepted, server_side=True).close()
            except OSError:
                accepted.close()

        thread = threading.Thread(target=serve)
        thread.start()
        context = client_context(ca)
        if strict:  # as Python 3.13 does by itself
            context.verify_flags |= ssl.VERIFY_X509_STRICT
        try:
            with socket.create_connection(listener.getsockname()) as plain:
                return str(context.wrap_socket(plain, server_hostname=host).version())
        finally:
            thread.join()


@pytest.mark.parametrize("strict", [False, True])
def test_a_site_accepts_ours_for_its_names_alone(made: tuple[Server, ServerConfig], strict: bool) -> None:
    server, _ = made
    for host in (HOST, "localhost", "127.0.0.1"):
        assert shake(server.certificate, server.key, server.ca, host, strict) == "TLSv1.3"
    for host in ("example.org", "x.fed.example.org", "127.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(server.certificate, server.key, server.ca, host, strict)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server.certificate, server.key, server.inside, "localhost", strict)
    assert shake(server.inside, server.inside_key, server.inside, "127.0.0.1", strict) == "TLSv1.3"


def test_keys_are_for_this_user_only(made: tuple[Server, ServerConfig]) -> None:
    server, _ = made
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
    keys = list(server.certificates.glob("*.key"))
    assert len(keys) == 3
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert b"PRIVATE KEY" in key.read_bytes()
    for certificate in server.certificates.glob("*.crt"):
        assert b"PRIVATE KEY" not in certificate.read_bytes()


def test_a_renewed_certificate_is_accepted_by_sites_of_before(made: tuple[Server, ServerConfig]) -> None:
    server, config = made
    authority, before = server.ca.read_bytes(), server.certificate.read_bytes()
    renew(server, config)
    assert server.ca.read_bytes() == authority and server.certificate.read_bytes() != before
    assert shake(server.certificate, server.key, server.ca, HOST) == "TLSv1.3"
    assert expiry(server.certificate) > datetime.now(UTC) + timedelta(days=700)


def trust(folder: Path, host: str = HOST, days: int = 90, before: int = 0) -> tuple[Path, Path, Path]:
    """A trust's files: certificate with the one between, key, authority; RSA, as such authorities have."""
    folder.mkdir()

    def sign(
        name: str, issuer: tuple[x509.Name, rsa.RSAPrivateKey] | None, ca: bool
    ) -> tuple[bytes, rsa.RSAPrivateKey]:
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = datetime.now(UTC) - timedelta(days=before, hours=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0] if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        signed = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM), key

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    root, root_key = sign("Trust root", None, True)
    middle, middle_key = sign("Trust issuing", (named("Trust root"), root_key), True)
    leaf, leaf_key = sign(host, (named("Trust issuing"), middle_key), False)
    secret = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    paths = (folder / "fed.pem", folder / "fed.key", folder / "root.pem")
    for path, content in zip(paths, (leaf + middle, secret, root), strict=True):
        path.write_bytes(content)
    return paths


def test_a_trusts_own_certificate_is_taken(made: tuple[Server, ServerConfig], tmp_path: Path) -> None:
    server, config = made
    adopt(server, config, *trust(tmp_path / "trust"))
    assert shake(server.certificate, server.key, server.ca, HOST) == "TLSv1.3"
    assert stat.S_IMODE(server.key.stat().st_mode) == 0o600


def test_a_wildcard_is_for_one_label(tmp_path: Path) -> None:
    files = trust(tmp_path / "trust", host="*.example.org")
    assert problems(*files, "fed.example.org") == []
    assert problems(*files, "a.fed.example.org") == ["The certificate is not for a.fed.example.org."]


def test_files_that_do_not_fit_are_refused_and_nothing_changes(
    made: tuple[Server, ServerConfig], tmp_path: Path
) -> None:
    server, config = made
    certificate, key, ca = trust(tmp_path / "one")
    other_certificate, other_key, other_ca = trust(tmp_path / "two")
    leaf_only, junk = tmp_path / "leaf.pem", tmp_path / "junk"
    leaf_only.write_bytes(
        certificate.read_bytes().split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    )
    junk.write_text("hello")
    before = server.certificate.read_bytes()
    cases = [
        ((certificate, other_key, ca), "key is not the certificate's"),
        ((other_certificate, key, other_ca), "key is not the certificate's"),
        ((certificate, key, other_ca), "not signed by the authority"),
        ((leaf_only, key, ca), "not signed by the authority"),
        (trust(tmp_path / "host", host="other.example.org"), f"not for {HOST}"),
        (trust(tmp_path / "old", days=10, before=20), "has expired"),
        (trust(tmp_path / "new", before=-5), "valid only from"),
        ((junk, key, ca), "PEM"),
        ((certificate, junk, ca), "PEM"),
    ]
    for files, reason in cases:
        with pytest.raises(InputError, match=reason) as caught:
            adopt(server, config, *files)
        assert caught.value.code == "certificate-wrong"
    with pytest.raises(InputError) as caught:
        adopt(server, config, tmp_path / "none", key, ca)
    assert caught.value.code == "certificate-unreadable"
    assert server.certificate.read_bytes() == before


def test_a_foreign_certificate_cannot_be_renewed_by_us(made: tuple[Server, ServerConfig], tmp_path: Path) -> None:
    server, config = made
    (server.certificates / "ca.key").unlink()
    with pytest.raises(InputError) as caught:
        renew(server, config)
    assert caught.value.code == "certificate-foreign"


def test_an_expired_authority_is_noticed(made: tuple[Server, ServerConfig], tmp_path: Path) -> None:
    server, _ = made
    then = datetime.now(UTC) - timedelta(days=400)
    authority = _issue("old", [], None, then, days=100)
    _write(server.ca, server.certificates / "ca.key", authority)
    _write(server.certificate, server.key, _issue(HOST, [HOST], authority, datetime.now(UTC), days=10))
    found = problems(server.certificate, server.key, server.ca, HOST)
    assert len(found) == 1 and found[0].startswith("The authority has expired")
