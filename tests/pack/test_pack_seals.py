"""Seals: who vouches, for exactly what, and that two people do."""

from __future__ import annotations

import argparse
import stat
from pathlib import Path

import orjson
import pytest
from pack_kit import MakeRun
from test_pack_verify import rebuild_manifest

from harness.errors import PackError, UsageError
from harness.pack import seals
from harness.pack.build import build, seal
from harness.pack.manifest import examine, verify
from harness.pack.sealing import add_parser, answers
from harness.pack.seals import ATTESTATION, SIGNOFF, check_seal, create_key, key_id, load_key, load_signers, sign_off

AT = "2026-03-01T12:00:00Z"


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Two people's private keys."""
    names = {name: tmp_path / f"{name}.pem" for name in ("engineer", "owner")}
    for file in names.values():
        create_key(file)
    return names


@pytest.fixture
def sealed(pack: Path, keys: dict[str, Path]) -> Path:
    """A pack that the engineer attested."""
    seal(pack, load_key(keys["engineer"]), AT)
    return pack


def test_a_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Nobody else can read it, and it is never overwritten."""
    create_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        create_key(tmp_path / "key")


def test_line_one_says_whether_anybody_vouches(pack: Path, keys: dict[str, Path]) -> None:
    """UNSIGNED before, the key afterwards, and the pack is intact both times."""
    assert (pack / "SUMMARY_1PAGE.md").read_text().startswith("UNSIGNED")
    seal(pack, load_key(keys["engineer"]), AT)
    assert (pack / "SUMMARY_1PAGE.md").read_text().startswith("SEALED with key")
    assert verify(pack) == []


def test_a_stripped_seal_is_found(sealed: Path) -> None:
    """A pack that says it is sealed and is not, is not intact."""
    (sealed / ATTESTATION).unlink()
    (sealed / "seals").rmdir()
    assert verify(sealed)[0].tag == "SEAL"


def test_a_seal_of_another_pack_is_found(sealed: Path, make_run: MakeRun, root: Path, keys: dict[str, Path]) -> None:
    """A seal is worth nothing beside other bytes."""
    kept = (sealed / ATTESTATION).read_bytes()
    other = build([make_run(run_id="other")], 2, sealed.parent, root)
    seal(other, load_key(keys["engineer"]), AT)
    (other / ATTESTATION).write_bytes(kept)
    assert "was made for another manifest.json" in str(verify(other)[0])


def test_a_flipped_byte_in_a_seal_is_found(sealed: Path) -> None:
    """Every byte of the envelope matters."""
    data = (sealed / ATTESTATION).read_bytes()
    for at in range(len(data)):
        (sealed / ATTESTATION).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1:])
        assert check_seal(sealed, ATTESTATION).why, at
    assert verify(sealed)[0].path == ATTESTATION


def test_a_forger_without_the_key_cannot_seal(sealed: Path, tmp_path: Path) -> None:
    """Whoever rebuilds everything must sign with a key that is on nobody's list."""
    trusted = {seals.check_seal(sealed, ATTESTATION).key or "": "the engineer"}
    assert examine(sealed, trusted).attestation.good
    (sealed / ATTESTATION).unlink()
    (sealed / "seals").rmdir()
    create_key(tmp_path / "forger")
    about = orjson.loads((sealed / "pack.json").read_bytes())
    (sealed / "pack.json").write_bytes(seals.encode({**about, "sealed_by": None}))
    rebuild_manifest(sealed)
    assert verify(sealed)  # line 1 is derived, so it must change as well
    assert not examine(sealed, trusted).attestation.good


def test_a_list_of_trusted_keys_is_asked_for_both_signatures(pack: Path, keys: dict[str, Path]) -> None:
    """Whoever gives one is told of a pack that nobody on it attests, and of a sign-off by a stranger, in the same words."""
    public = {name: key_id(load_key(file).public_key()) for name, file in keys.items()}
    assert "nobody on the list of trusted keys vouches for it (UNSIGNED" in str(verify(pack, {})[0])
    seal(pack, load_key(keys["engineer"]), AT)
    sign_off(pack, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)
    assert verify(pack) == []
    assert [each.path for each in verify(pack, {})] == [ATTESTATION, SIGNOFF]
    (found,) = verify(pack, {public["engineer"]: "An Engineer"})
    assert (found.tag, found.path) == ("SIGNOFF", SIGNOFF)
    assert "nobody on the list of trusted keys signed it off" in found.message
    assert f"signed off with {public['owner']} (a key that is on no list of trusted keys)" in examine(pack).seal_says
    trusted = {public["engineer"]: "An Engineer", public["owner"]: "An Owner"}
    assert verify(pack, trusted) == []
    assert f"signed off with {public['owner']} (An Owner)" in examine(pack, trusted).seal_says


def test_a_sealed_pack_is_never_changed(sealed: Path, keys: dict[str, Path], make_run: MakeRun, root: Path) -> None:
    """Sealing again is refused, and a new pack leaves the sealed one whole beside it."""
    with pytest.raises(PackError, match="sealed already"):
        seal(sealed, load_key(keys["owner"]), AT)
    before = (sealed / ATTESTATION).read_bytes()
    build([make_run(run_id="next")], 2, sealed.parent, root)
    former = [each for each in sealed.parent.iterdir() if each.name.startswith("phase2.")]
    assert [(each / ATTESTATION).read_bytes() for each in former if (each / ATTESTATION).exists()] == [before]
    assert [verify(each) for each in former] == [[], []]  # the unsealed one from before is kept, too


def test_an_altered_pack_is_not_sealed(pack: Path, keys: dict[str, Path]) -> None:
    """Nobody is made to vouch for what is not intact."""
    (pack / "README.md").write_text("")
    with pytest.raises(PackError, match="cannot be sealed"):
        seal(pack, load_key(keys["engineer"]), AT)


def test_an_altered_pack_is_not_signed_off(sealed: Path, keys: dict[str, Path]) -> None:
    """Else the owner's name would stand under a page that somebody altered, and go on standing there once it is put back."""
    page = sealed / "SUMMARY_1PAGE.md"
    page.write_text(page.read_text().replace("1 of 2 drills passed, 1 FAILED", "2 of 2 drills passed"))
    with pytest.raises(PackError, match=r"cannot be signed off: \[CHANGED\] SUMMARY_1PAGE.md"):
        sign_off(sealed, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)
    assert not (sealed / SIGNOFF).exists()


def test_signing_off_needs_an_attested_pack_and_another_person(sealed: Path, keys: dict[str, Path]) -> None:
    """The key that attested cannot sign off; the other can, once."""
    with pytest.raises(PackError, match="two people"):
        sign_off(sealed, load_key(keys["engineer"]), "A", {"P2-O-SIGNOFF": "seen"}, AT)
    sign_off(sealed, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)
    assert verify(sealed) == []
    with pytest.raises(PackError, match="signed off already"):
        sign_off(sealed, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)


def test_an_unsealed_pack_is_not_signed_off(pack: Path, keys: dict[str, Path]) -> None:
    """The owner signs what somebody attested."""
    with pytest.raises(PackError, match="not attested"):
        sign_off(pack, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)


@pytest.mark.parametrize(("name", "answers"), [("", {"a": "b"}), ("An Owner", {"a": " "})])
def test_a_sign_off_says_who_and_what(sealed: Path, keys: dict[str, Path], name: str, answers: dict[str, str]) -> None:
    """An empty answer is none."""
    with pytest.raises(UsageError, match="needs a name"):
        sign_off(sealed, load_key(keys["owner"]), name, answers, AT)


def test_a_sign_off_without_its_attestation_is_found(sealed: Path, keys: dict[str, Path]) -> None:
    """It signs the attestation's bytes."""
    sign_off(sealed, load_key(keys["owner"]), "An Owner", {"P2-O-SIGNOFF": "seen"}, AT)
    (sealed / ATTESTATION).unlink()
    assert {each.path for each in verify(sealed)} == {ATTESTATION, SIGNOFF}


def test_the_list_of_trusted_keys(tmp_path: Path, keys: dict[str, Path]) -> None:
    """Public keys with names; a bad line is named by its number."""
    public = keys["owner"].with_name("owner.pem.pub").read_text().strip()
    file = tmp_path / "signers.txt"
    file.write_text(f"# who may sign\n\n{public} An Owner\n")
    assert list(load_signers(file).values()) == ["An Owner"]
    file.write_text("not a key\n")
    with pytest.raises(UsageError, match="signers.txt:1"):
        load_signers(file)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"publicKey": "zz"}', b"\xff\xfe"])
def test_a_broken_seal_is_a_finding(sealed: Path, data: bytes) -> None:
    """Never a traceback."""
    (sealed / ATTESTATION).write_bytes(data)
    assert verify(sealed)[0].tag == "SEAL"


def test_only_a_persons_items_are_signed(pack: Path) -> None:
    """An AUTO item cannot be signed for, and a wrong name gets the nearest right one."""
    assert answers(pack, ["P2-O-SIGNOFF=read it"]) == {"P2-O-SIGNOFF": "read it"}
    for pair, says in (("P2-F-CRASH=fine", "not an item"), ("P2-O-SIGNOF=fine", "nearest: P2-O-SIGNOFF"),
                       ("P2-O-SIGNOFF=", "what was seen")):
        with pytest.raises(UsageError, match=says):
            answers(pack, [pair])


def test_sealing_from_the_command_line(pack: Path, tmp_path: Path) -> None:
    """Two keys, an attestation, a sign-off."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    for words in (["key", str(tmp_path / "a")], ["key", str(tmp_path / "b")],
                  ["attest", str(pack), "--key", str(tmp_path / "a")],
                  ["sign-off", str(pack), "--key", str(tmp_path / "b"), "--name", "An Owner", "--saw", "P2-O-SIGNOFF=read"]):
        args = parser.parse_args(["seal", *words])
        assert args.command(args) == 0
    assert verify(pack) == []
    assert examine(pack).signoff.says["name"] == "An Owner"
