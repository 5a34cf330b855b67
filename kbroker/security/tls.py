"""TLS contexts for listeners and for clients, from Kafka's `ssl.*` options. The only place that builds them; knows no
sockets.

PEM alone: a key and its certificate chain in one file (or in the configuration itself), trusted certificates in
another. Every refusal is a StartError whose sentence names the option, the file and the cure.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kbroker.config import TlsOptions
from kbroker.errors import StartError

_KEY = re.compile(r"-----BEGIN ((?:[A-Z]+ )*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE = re.compile(r"-----BEGIN ((?:[A-Z]+ )?CERTIFICATE)-----(.*?)-----END \1-----", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
# What OpenSSL offers under TLS 1.3; Python can choose among them only where SSLContext.set_ciphersuites exists.
_SUITES_13 = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")


def build_server_context(options: TlsOptions) -> ssl.SSLContext:
    """The context of a listener with these options; StartError where they do not make one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _choose_versions(context, options.enabled_protocols)
    _choose_suites(context, options.cipher_suites)
    _load_identity(context, options)
    _load_trust(context, options)
    return context


def build_client_context(options: TlsOptions, *, check_host: bool = True) -> ssl.SSLContext:
    """The context of a client: its truststore, else the system's; a certificate of its own only where options name one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_host
    _choose_versions(context, options.enabled_protocols)
    _choose_suites(context, options.cipher_suites)
    if options.keystore_location or options.keystore_key or options.keystore_certificate_chain:
        _load_identity(context, options)
    if options.truststore_location or options.truststore_certificates:
        _load_certificates(context, options)
    else:
        context.load_default_certs()
    return context


def _choose_versions(context: ssl.SSLContext, names: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in _VERSIONS]
    if unknown or not names:
        raise StartError(
            f"ssl.enabled.protocols={','.join(names)}: kbroker speaks TLSv1.2 and TLSv1.3; name one of them or both."
        )
    versions = sorted(_VERSIONS[name] for name in names)
    context.minimum_version, context.maximum_version = versions[0], versions[-1]


def _choose_suites(context: ssl.SSLContext, names: tuple[str, ...]) -> None:
    """Java's rule: what is not in the list is not negotiated, so a list without TLS 1.3 suites means TLS 1.2."""
    if not names:
        return
    newer = [name for name in names if name in _SUITES_13]
    older = [openssl_suite(name) for name in names if name not in _SUITES_13]
    if not newer:
        _narrow(context, names, ssl.TLSVersion.TLSv1_2)
    elif not older:
        _narrow(context, names, ssl.TLSVersion.TLSv1_3)
    if newer and len(newer) < len(_SUITES_13):
        choose = getattr(context, "set_ciphersuites", None)
        if choose is None:
            raise StartError(
                "ssl.cipher.suites: this Python cannot choose among the suites of TLS 1.3; "
                f"name all of them ({', '.join(_SUITES_13)}) or none."
            )
        choose(":".join(newer))
    if older:
        _choose_older(context, older)


def _choose_older(context: ssl.SSLContext, suites: list[str]) -> None:
    try:
        context.set_ciphers(":".join(suites))
    except ssl.SSLError:
        missing = suites
    else:
        chosen = {cipher["name"] for cipher in context.get_ciphers()}
        missing = [suite for suite in suites if suite not in chosen]
    if missing:
        raise StartError(
            f"ssl.cipher.suites: this OpenSSL does not offer {', '.join(missing)}; "
            "`openssl ciphers -s -stdname` lists what it offers."
        )


def _narrow(context: ssl.SSLContext, names: tuple[str, ...], version: ssl.TLSVersion) -> None:
    if not context.minimum_version <= version <= context.maximum_version:
        raise StartError(
            f"ssl.cipher.suites={','.join(names)}: none of these suites belongs to a version in ssl.enabled.protocols; "
            "add one that does."
        )
    context.minimum_version = context.maximum_version = version


def openssl_suite(name: str) -> str:
    """OpenSSL's name of a TLS 1.2 suite that may be given by IANA's.

    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 is ECDHE-RSA-AES128-GCM-SHA256.
    """
    exchange, with_, cipher = name.removeprefix("TLS_").partition("_WITH_")
    if not with_:
        return name
    exchange = "" if exchange == "RSA" else exchange.replace("_", "-") + "-"
    cipher = re.sub(r"AES_(128|256)", r"AES\1", cipher).replace("_CBC", "").replace("_", "-")
    if cipher.startswith("CHACHA20"):
        cipher = "CHACHA20-POLY1305"
    return exchange + cipher


def _load_identity(context: ssl.SSLContext, options: TlsOptions) -> None:
    if options.keystore_location:
        where = f"ssl.keystore.location={options.keystore_location}"
        text = _pem_file(where, options.keystore_location, "keystore", options.keystore_type)
        if options.keystore_password and not options.key_password:
            raise StartError(
                "ssl.keystore.password has no meaning for PEM; give the key's password as ssl.key.password."
            )
        key, chain = text, text
    elif options.keystore_key and options.keystore_certificate_chain:
        where = "ssl.keystore.key and ssl.keystore.certificate.chain"
        _must_be_pem("keystore", options.keystore_type)
        key, chain = options.keystore_key, options.keystore_certificate_chain
    else:
        raise StartError(
            "a listener speaks TLS but has no certificate; set ssl.keystore.type=PEM and "
            "ssl.keystore.location to a file that holds its key and certificate chain."
        )
    keys, certificates = _blocks(_KEY, key), _blocks(_CERTIFICATE, chain)
    if not keys or not certificates:
        lacking = "private key" if not keys else "certificate"
        raise StartError(
            f"{where} holds no {lacking} in PEM; the file needs the key and its certificate chain."
        )
    _load_chain(context, where, keys[0], certificates, options.key_password)


def _load_chain(
    context: ssl.SSLContext, where: str, key: str, certificates: list[str], password: str | None
) -> None:
    encrypted = "ENCRYPTED" in key  # in the block's name or, for older formats, in its header
    if encrypted and not password:
        raise StartError(f"the private key of {where} is encrypted; set ssl.key.password.")
    try:
        with _private_file(key + "".join(certificates)) as path:
            # A password that is never asked for on the terminal, even if OpenSSL wants one.
            context.load_cert_chain(path, password=lambda: password or "")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if "MISMATCH" in reason:
            sentence = f"the private key of {where} does not belong to its first certificate; put the broker's own first."
        elif encrypted:
            sentence = f"the private key of {where} does not open ({reason}); check ssl.key.password."
        else:
            sentence = f"{where} does not load ({reason}); check it with `openssl x509` and `openssl pkey`."
        raise StartError(sentence) from None


def _load_trust(context: ssl.SSLContext, options: TlsOptions) -> None:
    mode = _CLIENT_AUTH.get(options.client_auth.lower())
    if mode is None:
        raise StartError(f"ssl.client.auth={options.client_auth}: choose none, requested or required.")
    if not options.truststore_location and not options.truststore_certificates:
        if mode is ssl.CERT_NONE:
            return
        # Java would trust every public authority here: a client of anybody's could come in.
        raise StartError(
            f"ssl.client.auth={options.client_auth} needs the certificates to trust; "
            "set ssl.truststore.type=PEM and ssl.truststore.location."
        )
    _load_certificates(context, options)
    context.verify_mode = mode


def _load_certificates(context: ssl.SSLContext, options: TlsOptions) -> None:
    """The certificates to trust."""
    if options.truststore_location:
        where = f"ssl.truststore.location={options.truststore_location}"
        text = _pem_file(where, options.truststore_location, "truststore", options.truststore_type)
    else:
        where, text = "ssl.truststore.certificates", options.truststore_certificates or ""
        _must_be_pem("truststore", options.truststore_type)
    certificates = _blocks(_CERTIFICATE, text)
    if not certificates:
        raise StartError(f"{where} holds no certificate in PEM; put the trusted certificates there.")
    try:
        context.load_verify_locations(cadata="".join(certificates))
    except ssl.SSLError as error:
        raise StartError(f"{where} does not load ({error.reason}); check it with `openssl x509`.") from None


def _pem_file(where: str, location: str, store: str, store_type: str) -> str:
    try:
        content = Path(location).read_bytes()
    except OSError as error:
        raise StartError(
            f"{where} cannot be read: {error.strerror}; check the path and its permissions."
        ) from None
    if b"-----BEGIN " not in content and store_type.upper() != "PEM":
        raise StartError(
            f"{where} is a {store_type} store, and kbroker reads PEM; convert it "
            f"({_conversion(location, store, store_type)}) and set ssl.{store}.type=PEM."
        )
    _must_be_pem(store, store_type)
    return content.decode("ascii", "replace")


def _conversion(location: str, store: str, store_type: str) -> str:
    if store == "truststore":
        return f"`keytool -list -rfc -keystore {location} > {location}.pem`"
    if store_type.upper() == "PKCS12":
        return f"`openssl pkcs12 -nodes -in {location} -out {location}.pem`"
    return (
        f"`keytool -importkeystore -srckeystore {location} -destkeystore {location}.p12 -deststoretype PKCS12`, "
        f"then `openssl pkcs12 -nodes -in {location}.p12 -out {location}.pem`"
    )


def _must_be_pem(store: str, store_type: str) -> None:
    if store_type.upper() != "PEM":
        raise StartError(f"the {store} is PEM; set ssl.{store}.type=PEM (it is {store_type}).")


def _blocks(pattern: re.Pattern[str], text: str) -> list[str]:
    """The PEM blocks of a text, laid out anew: a properties file may have joined their lines."""
    return [_block(match.group(1), match.group(2)) for match in pattern.finditer(text)]


def _block(label: str, body: str) -> str:
    if _BASE64.fullmatch(body):
        body = "\n".join(re.findall(".{1,64}", "".join(body.split())))
    return f"-----BEGIN {label}-----\n{body.strip()}\n-----END {label}-----\n"


@contextmanager
def _private_file(text: str) -> Iterator[str]:
    """A file that only this user can read, while OpenSSL reads it: it takes keys from files alone."""
    handle, path = tempfile.mkstemp(prefix="kbroker-", suffix=".pem")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)
