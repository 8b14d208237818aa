"""Seals: who vouches for a pack. Ed25519 signatures over bytes as they lie there.

``seals/attestation.json`` signs a statement about the manifest's digest: this is what was recorded.
``seals/signoff.json`` signs manifest and attestation by *another* key, with the owner's answers to the items that
only a person can tick. Both are DSSE envelopes: the payload is signed as it is, with its type, and is never
encoded again.

An envelope carries its public key for convenience. That proves only that somebody signed; whom to believe is the
verifier's list of trusted keys (``trusted``: key id → name).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from harness import files, limits, texts
from harness.errors import PackError, TextError, UsageError
from harness.pack.listing import MANIFEST, encode
from harness.pack.origin import sha256_file

ATTESTATION = "seals/attestation.json"
SIGNOFF = "seals/signoff.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATES = {ATTESTATION: "https://drillproof.invalid/attestation/v1", SIGNOFF: "https://drillproof.invalid/signoff/v1"}
"""``.invalid`` never resolves: these are names, and nothing is ever fetched from them."""

ENVELOPE_BYTES_MAX = 65_536
KEY_BYTES_MAX = 65_536


def create_key(file: Path) -> str:
    """Write a new private key, readable by its owner alone, and its public half beside it; returns the key id."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as why:
        raise UsageError(f"{file}: there is a key already, and it is never overwritten") from why
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(private)
    file.with_name(f"{file.name}.pub").write_text(_public_hex(key.public_key()) + "\n")
    return key_id(key.public_key())


def load_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key that ``create_key`` wrote. Raises UsageError."""
    try:
        key = serialization.load_pem_private_key(texts.read(file, KEY_BYTES_MAX), None)
    except (OSError, ValueError, TypeError) as why:
        raise UsageError(f"{file}: cannot be read as a private key") from why
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{file}: is not an Ed25519 key")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the raw public key: enough to tell keys apart, never a proof."""
    return hashlib.sha256(bytes.fromhex(_public_hex(key))).hexdigest()[:16]


def _public_hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def load_signers(file: Path) -> dict[str, str]:
    """A list of trusted keys: lines of ``<public key as 64 hex digits> <name>``; → key id → name."""
    try:
        lines = texts.read(file, limits.SPEC_FILE_BYTES_MAX).decode().splitlines()
    except (OSError, UnicodeDecodeError) as why:
        raise UsageError(f"{file}: cannot be read as a list of trusted keys") from why
    signers = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        public, _, name = text.partition(" ")
        try:
            signers[key_id(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))] = name.strip()
        except ValueError as why:
            raise UsageError(f"{file}:{number}: expected a public key as 64 hex digits, a space and a name") from why
    return signers


# ---- signing ----------------------------------------------------------------------------------------------


def attest(pack: Path, key: Ed25519PrivateKey, signed_at: str) -> None:
    """Sign the manifest as it lies there. ``harness.pack.build.seal`` prepares the pack for it."""
    _sign(pack, ATTESTATION, {MANIFEST: sha256_file(pack / MANIFEST)}, {"signedAt": signed_at}, key)


def sign_off(pack: Path, key: Ed25519PrivateKey, name: str, answers: Mapping[str, str], signed_at: str) -> None:
    """The owner's signature: manifest and attestation, who, and what was seen for each MANUAL item.

    Raises PackError when the pack is not attested, not intact, or the same key made the attestation.
    """
    from harness.pack.manifest import examine  # which itself asks what a seal is worth

    if (pack / SIGNOFF).exists():
        raise PackError(f"{pack}: is signed off already")
    attested = check_seal(pack, ATTESTATION)
    if attested.why or attested.key is None:
        raise PackError(f"{pack}: cannot be signed off: {attested.why or 'it is not attested'}")
    if attested.key == key_id(key.public_key()):
        raise PackError(f"{pack}: the key that attested cannot sign off, too: two people vouch for a pack")
    if found := examine(pack).findings:  # the seals hold the manifest alone, and the owner has read the pages
        raise PackError(f"{pack}: cannot be signed off: {found[0]}")
    if not name.strip() or not all(isinstance(each, str) and each.strip() for each in answers.values()):
        raise UsageError("a sign-off needs a name, and for each item what was seen")
    subjects = {path: sha256_file(pack / path) for path in (MANIFEST, ATTESTATION)}
    _sign(pack, SIGNOFF, subjects, {"signedAt": signed_at, "name": name, "items": dict(answers)}, key)


def _sign(pack: Path, seal: str, subjects: Mapping[str, str], says: Mapping[str, Any], key: Ed25519PrivateKey) -> None:
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATES[seal],
        "predicate": dict(says),
    }
    payload = orjson.dumps(statement, option=orjson.OPT_SORT_KEYS)
    signature = key.sign(_authenticated(payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
        "publicKey": _public_hex(key.public_key()),
    }
    file = pack / seal
    file.parent.mkdir(exist_ok=True)
    files.replace(file, encode(envelope))


def _authenticated(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: lengths and type are signed with the bytes."""
    kind = PAYLOAD_TYPE.encode()
    return b" ".join((b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))


# ---- checking ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seal:
    """What one seal is worth. ``key`` is None when there is none; ``why`` is what is wrong with it.

    ``name`` is the trusted signer's, None for a key that the verifier does not know.
    """

    key: str | None = None
    why: str | None = None
    name: str | None = None
    says: Mapping[str, Any] | None = None

    @property
    def good(self) -> bool:
        """Signed, unbroken, and by somebody whom the verifier knows."""
        return self.key is not None and self.why is None and self.name is not None


def check_seal(pack: Path, seal: str, trusted: Mapping[str, str] | None = None) -> Seal:
    """Look at ``seals/attestation.json`` or ``seals/signoff.json``. Never raises on what it finds there."""
    file = pack / seal
    if not file.exists():
        return Seal()
    try:
        data = texts.read(file, ENVELOPE_BYTES_MAX)
        envelope = orjson.loads(data)
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(envelope["publicKey"]))
        payload = _decoded(envelope["payload"])
        (signature,) = envelope["signatures"]
        public.verify(_decoded(signature["sig"]), _authenticated(payload))
        statement = orjson.loads(payload)
        subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
        says = dict(statement["predicate"])
        kinds = envelope["payloadType"], statement["predicateType"]
    except InvalidSignature:
        return Seal(key="?", why="the signature does not fit the statement")
    except (OSError, KeyError, TypeError, ValueError, AttributeError, binascii.Error, TextError):
        return Seal(key="?", why="cannot be read as a seal")
    key = key_id(public)
    if encode(envelope) != data or signature.get("keyid") != key or envelope["publicKey"] != _public_hex(public):
        return Seal(key, "is not written as seals are")
    if kinds != (PAYLOAD_TYPE, PREDICATES[seal]):
        return Seal(key, "is a seal of another kind")
    for path in (MANIFEST,) if seal == ATTESTATION else (MANIFEST, ATTESTATION):
        if subjects.get(path) is None or not (pack / path).exists() or sha256_file(pack / path) != subjects[path]:
            return Seal(key, f"was made for another {path}")
    return Seal(key, None, (trusted or {}).get(key), says)


def _decoded(text: str) -> bytes:
    """Base64 in its one canonical spelling: the unused bits of the last character are free otherwise."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data
