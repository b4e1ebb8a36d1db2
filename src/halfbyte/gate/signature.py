"""OpenSSF model signing: is every file of the folder the one that was signed, by the key that the policy names?"""

from pathlib import Path

from halfbyte.checkpoint.files import LocalFiles
from halfbyte.errors import UnsupportedError
from halfbyte.gate.facts import Facts
from halfbyte.gate.findings import printable

IGNORED = ("gate.json", ".git", ".cache", ".gitattributes", ".gitignore")
"""What downloaders, git and this gate write into the folder after it was signed."""


def problem_with_signature(facts: Facts) -> str | None:
    """What is wrong with the signature that the policy asks for, None if it holds. Hashes every file.

    Raises UnsupportedError where the package `model-signing` is not installed.
    """
    wanted = facts.policy.supply_chain.signature
    if not isinstance(facts.files, LocalFiles):
        return "the signature covers every byte and cannot be verified over the network: download it first"
    if facts.files.path(wanted.file) is None:
        return f"{wanted.file} is missing, the policy asks for a signature"
    if wanted.public_key is None:
        return "the policy asks for a signature but names no public_key"
    key = facts.options.policy_folder / wanted.public_key
    if not key.is_file():
        return f"the policy's public_key {key} does not exist"
    try:
        from model_signing import hashing, verifying
    except ImportError:
        raise UnsupportedError(
            "the policy asks for a signature, and the package that verifies it is not installed",
            hint="pip install model-signing",
        ) from None
    folder = facts.files.folder
    ignored: list[Path] = [folder / name for name in (wanted.file, *IGNORED)]
    hashes = hashing.Config().set_ignored_paths(paths=ignored)  # type: ignore[no-untyped-call]
    try:
        verifier = verifying.Config()  # type: ignore[no-untyped-call]
        verifier.use_elliptic_key_verifier(public_key=key).set_hashing_config(hashes).verify(
            folder, folder / wanted.file
        )
    except Exception as error:  # the package raises whatever its parts raise; any of it means "not verified"
        return f"the signature does not hold: {printable(str(error), 300) or type(error).__name__}"
    return None
