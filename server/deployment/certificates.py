"""The coordinator's certificates: an authority of its own or the hospital trust's, and one for inside the machine."""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError
from common.files import new_file
from server.deployment.config import LOOPBACK, Server, ServerConfig

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS, SERVER_DAYS = 3650, 730
_EARLIER = timedelta(hours=1)  # so that a site whose clock is a little behind can connect at once


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: "x509.Certificate"
    key: "EllipticCurvePrivateKey"


def make_certificates(server: Server, config: ServerConfig) -> None:
    """Make an authority, the gateway's certificate by it, and the one for loopback."""
    now = datetime.now(UTC)
    authority = _issue(f"{config.name}: authority of the coordinator", [], None, now, CA_DAYS)
    _write(server.ca, server.certificates / "ca.key", authority)
    issued = _issue(config.host, [config.host, "localhost", LOOPBACK], authority, now, SERVER_DAYS)
    _write(server.certificate, server.key, issued)
    make_inside(server)


def make_inside(server: Server) -> None:
    """Make the certificate of the SuperLink, which is its own authority and leaves this machine never."""
    inside = _issue("SuperLink", ["localhost", LOOPBACK], None, datetime.now(UTC), CA_DAYS)
    _write(server.inside, server.inside_key, inside)


def renew(server: Server, config: ServerConfig) -> None:
    """A new certificate of the gateway by the authority that sites know already.

    Raises InputError `certificate-foreign` where the authority is not ours.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    path = server.certificates / "ca.key"
    if not path.is_file():
        message = f"{path} is not there: the certificate is not of this coordinator's own authority."
        raise InputError("certificate-foreign", message, "Give the renewed files with --certificate, --key and --ca.")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    authority = Issued(x509.load_pem_x509_certificate(server.ca.read_bytes()), key)  # type: ignore[arg-type]
    names = [config.host, "localhost", LOOPBACK]
    _write(server.certificate, server.key, _issue(config.host, names, authority, datetime.now(UTC), SERVER_DAYS))


def adopt(server: Server, config: ServerConfig, certificate: Path, key: Path, ca: Path) -> None:
    """Take the hospital trust's certificate (with its chain), key and authority, after a check that they belong
    together and to `config.host`. Raises InputError `certificate-unreadable` or `certificate-wrong`."""
    contents = [_read(path) for path in (certificate, key, ca)]
    if wrong := problems(certificate, key, ca, config.host):
        message = "The certificate cannot be used:\n" + "\n".join(f"  {line}" for line in wrong)
        raise InputError("certificate-wrong", message, "Ask whoever issued it.")
    for path, content in zip((server.certificate, server.key, server.ca), contents, strict=True):
        _write_bytes(path, content)


def problems(certificate: Path, key: Path, ca: Path, host: str, now: datetime | None = None) -> list[str]:
    """What is wrong with a certificate, in sentences: form, key, host, time and authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    found = []
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        authorities = x509.load_pem_x509_certificates(ca.read_bytes())
    except ValueError:
        return ["The certificate or the authority is not in PEM form."]
    leaf, now = chain[0], now or datetime.now(UTC)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError):
        return ["The key is not in PEM form, or has a passphrase, which a process cannot type."]
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        found.append("The key is not the certificate's.")
    if not _names(leaf, host):
        found.append(f"The certificate is not for {host}.")
    for name, one in (("certificate", leaf), *(("authority", one) for one in authorities)):
        if now < one.not_valid_before_utc:
            found.append(f"The {name} is valid only from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.")
        if now > one.not_valid_after_utc:
            found.append(f"The {name} has expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.")
    if not _signed(chain, authorities):
        found.append("The certificate is not signed by the authority, through the certificates that stand with it.")
    return found


def expiry(path: Path) -> datetime:
    """Until when the first certificate of a file is valid."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, as a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def client_context(authority: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, as a client that knows this authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authority)
    return context


def _names(leaf: "x509.Certificate", host: str) -> bool:
    """Whether a client that asks for `host` accepts the certificate's names."""
    from cryptography import x509

    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    if address := _address(host):
        return address in names.get_values_for_type(x509.IPAddress)
    known, wanted = [name.lower() for name in names.get_values_for_type(x509.DNSName)], host.lower()
    return wanted in known or f"*.{wanted.partition('.')[2]}" in known


def _signed(chain: "Sequence[x509.Certificate]", authorities: "Sequence[x509.Certificate]") -> bool:
    """Whether the first certificate leads to an authority. A site's TLS library has the last word."""
    from cryptography.exceptions import InvalidSignature

    def by(child: "x509.Certificate", parent: "x509.Certificate") -> bool:
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    current, rest = chain[0], list(chain[1:])
    while True:
        if any(by(current, one) for one in authorities):
            return True
        parent = next((one for one in rest if by(current, one)), None)
        if parent is None:
            return False
        rest.remove(parent)
        current = parent


def _issue(name: str, hosts: list[str], authority: Issued | None, now: datetime, days: int) -> Issued:
    """A certificate by `authority`, or by itself. Without hosts it may sign others."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    signs = not hosts
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    signer = authority or Issued(None, key)  # type: ignore[arg-type]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    if hosts:
        names = [x509.IPAddress(found) if (found := _address(host)) else x509.DNSName(host) for host in hosts]
        unique = list(dict.fromkeys(names))
        builder = builder.add_extension(x509.SubjectAlternativeName(unique), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return Issued(builder.sign(signer.key, hashes.SHA256()), key)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _write(certificate: Path, key: Path, issued: Issued) -> None:
    from cryptography.hazmat.primitives import serialization

    secret = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_bytes(key, secret)
    _write_bytes(certificate, issued.certificate.public_bytes(serialization.Encoding.PEM))


def _write_bytes(path: Path, content: bytes) -> None:
    """For this user only, from the first byte on."""
    with new_file(path) as scratch:
        scratch.unlink(missing_ok=True)
        scratch.touch(mode=0o600)
        scratch.write_bytes(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise InputError("certificate-unreadable", message, "Correct the path or its permissions.") from None
