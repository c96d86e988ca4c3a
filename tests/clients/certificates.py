"""Test certificates, made anew for each run.

Owns: an authority, and what it signs, as PEM bytes. Knows no protocol.
"""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_of(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                             serialization.NoEncryption())


def builder(subject, issuer, key, age):
    now = datetime.datetime.now(datetime.timezone.utc) - age
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY).not_valid_after(now + 2 * DAY))


class Authority:
    """Signs for servers and clients."""

    def __init__(self, title="test authority"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name(title)
        made = builder(self.name, self.name, self.key, datetime.timedelta())
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = made.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, subject, usage, kind="ec", age=datetime.timedelta()):
        """Key and certificate of `subject` as PEM."""
        key = (rsa.generate_private_key(65537, 2048) if kind == "rsa"
               else ec.generate_private_key(ec.SECP256R1()))
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (builder(name(subject), self.name, key, age)
                .add_extension(x509.SubjectAlternativeName(names), critical=False)
                .add_extension(x509.ExtendedKeyUsage([usage]), critical=False))
        certificate = made.sign(self.key, hashes.SHA256())
        return pem_of(key), certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, **more):
        return self.sign("server", ExtendedKeyUsageOID.SERVER_AUTH, **more)

    def client(self, **more):
        return self.sign("client", ExtendedKeyUsageOID.CLIENT_AUTH, **more)


def ssl_config(key, certificate, ca=None, verify=False):
    """The text of an `SSLConfig`."""
    def field(field_name, pem):
        lines = "\n  ".join('"' + line.replace("\n", "\\n") + '"'
                            for line in pem.decode().splitlines(keepends=True))
        return f"{field_name}:\n  {lines}\n"
    text = field("server_key", key) + field("server_cert", certificate)
    if ca is not None:
        text += field("custom_ca", ca)
    return text + f"client_verify: {str(verify).lower()}\n"
