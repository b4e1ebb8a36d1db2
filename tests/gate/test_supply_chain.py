"""Signature with real keys, templates in their sandbox, the bill of materials by its own schema."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from model_signing import hashing, signing

from halfbyte.gate.judge import gate
from halfbyte.gate.template import judge

from .draft import Draft, flip

SHARD = "model-00001-of-00001.safetensors"
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"


def write_key(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    (folder / f"{name}.pem").write_bytes(private)
    return folder / f"{name}.pem"


@pytest.fixture
def signed(tiny: Draft, tmp_path: Path) -> Path:
    draft = tiny.copy()
    draft.after = lambda written: None
    folder = draft.write(tmp_path / "model")
    ignored = hashing.Config().set_ignored_paths(paths=[folder / "model.sig"])  # type: ignore[no-untyped-call]
    config = signing.Config().use_elliptic_key_signer(private_key=write_key(tmp_path, "ours"))  # type: ignore[no-untyped-call]
    config.set_hashing_config(ignored).sign(folder, folder / "model.sig")
    write_key(tmp_path, "theirs")
    return folder


def signature_policy(tmp_path: Path, key: str) -> Path:
    path = tmp_path / f"{key}.yaml"
    path.write_text(
        f"version: 1\nname: signed\nsupply_chain: {{signature: {{required: true, public_key: {key}.pub}}}}\n"
    )
    return path


def refusals(folder: Path, policy: Path) -> set[str]:
    return {finding.rule for finding in gate(folder, policy=policy).findings if finding.refuses}


def test_a_signature_holds_for_its_key_and_its_bytes(signed: Path, tmp_path: Path) -> None:
    assert refusals(signed, signature_policy(tmp_path, "ours")) == set()
    assert refusals(signed, signature_policy(tmp_path, "theirs")) == {"supply.signature"}
    assert refusals(signed, signature_policy(tmp_path, "nobodys")) == {"supply.signature"}
    (signed / "gate.json").write_text("{}")
    assert refusals(signed, signature_policy(tmp_path, "ours")) == set()
    flip(signed / SHARD, 9_000_000)
    assert refusals(signed, signature_policy(tmp_path, "ours")) == {"supply.signature"}


def test_a_file_added_to_a_signed_folder(signed: Path, tmp_path: Path) -> None:
    (signed / "extra.txt").write_text("x")
    assert refusals(signed, signature_policy(tmp_path, "ours")) == {"supply.signature"}


@pytest.mark.parametrize(
    "template",
    [
        PLAIN,
        "{%- for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{{ m['content'] | trim }}{% endfor -%}",
        "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('roles') }}{% endif %}"
        "{{ m.content }}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ m.content }}{% endfor %}",
        "{% macro say(m) %}{{ m.content }}{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}"
        "{{ strftime_now('%d') }}{{ tools | tojson(indent=2) if tools }}",
        PLAIN + "{# see https://example.org #}",
    ],
)
def test_honest_templates(template: str) -> None:
    assert judge(template) == ()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (PLAIN + "{{ messages.__class__ }}", "private attribute __class__"),
        (PLAIN + "{{ messages['__class__'] }}", "private item"),
        (PLAIN + "{{ messages | map(attribute='__init__') | list }}", "filter map"),
        (PLAIN + "{{ lipsum.__globals__['os'].popen('id').read() }}", "uses lipsum"),
        (PLAIN + "{{ messages['_' ~ '_class__'].x }}", "sandbox forbids"),
        (PLAIN + "{{ messages.append(1) }}", "sandbox forbids"),
        (PLAIN + "{{ range(10000000) | list }}", "out of bounds"),
        (PLAIN + "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxx' }}{% endfor %}", "characters of one short"),
        ("{{ undefined.x }}", "fails to render"),
        ("nothing of the messages", "drops or changes"),
        ("{{ messages[0].content | upper }}", "drops or changes"),
        (PLAIN + "\u200b", "U+200B"),
        ("", "drops or changes"),
    ],
)
def test_dishonest_templates(template: str, words: str) -> None:
    said = judge(template)
    assert any(severity == "deny" and words in message for severity, message in said), said


@pytest.mark.timeout(60)
def test_limits_are_kept() -> None:
    for template in (PLAIN + "{{ 'a' * 9999999999 }}", PLAIN + "{{ 10 ** (10 ** 9) }}"):
        assert any(severity == "deny" for severity, _ in judge(template))


def test_the_bill_of_materials_is_valid_cyclonedx(tiny: Draft, tmp_path: Path) -> None:
    draft = tiny.copy()
    draft.side["README.md"] = b"---\nlicense: mit\nbase_model: zai-org/GLM-5.2\n---\n"
    gate(draft.write(tmp_path / "x"), depth="full", bom=tmp_path / "bom.json")
    text = (tmp_path / "bom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    component = document["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["pedigree"]["ancestors"][0]["name"] == "zai-org/GLM-5.2"
    assert component["licenses"] == [{"license": {"name": "mit"}}]
    shard = next(row for row in document["components"] if row["name"] == SHARD)
    assert len(shard["hashes"][0]["content"]) == 64
