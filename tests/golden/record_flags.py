"""Record which flags an engine's server takes: `python tests/golden/record_flags.py vllm|sglang [--package FOLDER]`.

With the engine installed its own argument parser is asked. Engines import torch, CUDA libraries and compiled kernels
before they have a parser; where that cannot be done, `--package` (the unpacked wheel) reads the same declarations in
the source: literal `add_argument` calls, and the annotated fields from which both engines make the rest. The record
says which of the two it was made by.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "src" / "halfbyte" / "engines" / "flags"


def from_parser(engine: str) -> tuple[str, list[str]]:
    """(version, flags) of the installed engine."""
    if engine == "vllm":
        from vllm.entrypoints.common.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        parser = make_arg_parser(FlexibleArgumentParser())
    else:
        from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

        parser = argparse.ArgumentParser()
        ServerArgs.add_cli_args(parser)
    return metadata.version(engine), [option for action in parser._actions for option in action.option_strings]


def from_source(engine: str, package: Path) -> tuple[str, list[str]]:
    """(version, flags) of an unpacked wheel."""
    (info,) = package.glob(f"{engine}-*.dist-info")
    version = next(
        line.split(":", 1)[1].strip()
        for line in (info / "METADATA").read_text().splitlines()
        if line.startswith("Version:")
    )
    found: list[str] = []
    if engine == "vllm":
        arguments = package / "vllm" / "entrypoints" / "common" / "cli_args.py"
        found += _literal(arguments)
        for name in _fields(arguments, {"BaseFrontendArgs", "FrontendArgs"}):
            found += [f"--{name.replace('_', '-')}", f"--no-{name.replace('_', '-')}"]
        found += _literal(package / "vllm" / "engine" / "arg_utils.py")
    else:
        root = package / "sglang" / "srt"
        found += _literal(root / "server_args.py")
        for file in sorted((root / "arg_groups" / "fields").glob("*.py")):
            found += _annotated(file)
        if not (root / "arg_groups" / "fields").is_dir():
            found += _annotated(root / "server_args.py")
    return version, found


def _literal(file: Path) -> Iterator[str]:
    """Flags of `add_argument("--flag", ...)`."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            for word in node.args:
                if isinstance(word, ast.Constant) and str(word.value).startswith("-"):
                    yield str(word.value)


def _fields(file: Path, classes: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            yield from (
                f.target.id for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)
            )


def _annotated(file: Path) -> Iterator[str]:
    """Fields `name: A[type, "help" or Arg(cli_name=..., aliases=[...])]`."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        hint = node.annotation
        if not isinstance(hint, ast.Subscript) or getattr(hint.value, "id", "") not in ("A", "Annotated"):
            continue
        own: dict[str, Any] = {}
        for call in ast.walk(hint):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Arg":
                for keyword in call.keywords:
                    if keyword.arg in ("cli_name", "aliases", "no_cli"):
                        own[keyword.arg] = ast.literal_eval(keyword.value)
        if not own.get("no_cli"):
            yield own.get("cli_name") or f"--{node.target.id.replace('_', '-')}"
            yield from own.get("aliases") or ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=("vllm", "sglang"))
    parser.add_argument("--package", type=Path, help="folder of an unpacked wheel")
    asked = parser.parse_args()
    if asked.package is None:
        made, (version, flags) = "its argument parser", from_parser(asked.engine)
    else:
        made, (version, flags) = "its source", from_source(asked.engine, asked.package)
    names = sorted({flag for flag in flags if flag.startswith("--")})
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{asked.engine}.json"
    document = {"engine": asked.engine, "version": version, "made_from": made, "flags": names}
    file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{file}: {len(names)} flags of {asked.engine} {version}, from {made}", file=sys.stderr)


if __name__ == "__main__":
    main()
