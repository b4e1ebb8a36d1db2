"""Pages of the site that are made from the code: a hook of mkdocs, which needs the core and no more.

Commands come from their own parameters, schemas from the documents' types, rules, families and hardware from their
catalogues, figures from benchmarks/results. Nothing here is typed twice.
"""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages to those of docs/."""
    for name, lines in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines()) + "\n"))
    return files


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def commands() -> Iterator[str]:
    from halfbyte.cli.main import SUMMARIES, command_of

    yield "# Commands\n"
    for name, summary in SUMMARIES.items():
        yield f"## halfbyte {name}\n\n{summary}\n"
        group = command_of(name)
        for path, command in [
            (name, group),
            *((f"{name} {sub}", one) for sub, one in getattr(group, "commands", {}).items()),
        ]:
            if path != name:
                yield f"### halfbyte {path}\n\n{command.help.splitlines()[0] if command.help else ''}\n"
            rows = list(parameters(command))
            if rows:
                yield from ["| | what | default |", "|---|---|---|", *rows, ""]


def parameters(command: Any) -> Iterator[str]:
    for one in command.params:
        if one.name == "help":
            continue
        names = (
            ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            if one.opts[0][:1] == "-"
            else f"`{one.name.upper()}`"
        )
        default = "" if one.default in (None, False, (), []) or callable(one.default) else f"`{cell(one.default)}`"
        yield f"| {names} | {cell(getattr(one, 'help', '') or '')} | {default} |"


def schemas() -> Iterator[str]:
    from halfbyte.cli.schema import DOCUMENTS, schema_of

    yield "# Documents\n\n`halfbyte schema NAME` prints each as JSON Schema.\n"
    for document in DOCUMENTS:
        schema = schema_of(document)
        yield f"## {document}\n\n{schema.get('description', '')}\n"
        yield from ["| key | type | required |", "|---|---|---|"]
        for key, value in schema.get("properties", {}).items():
            yield f"| `{key}` | {cell(kind(value))} | {'yes' if key in schema.get('required', ()) else ''} |"
        yield ""


def kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(kind(one) for one in value["anyOf"])
    if value.get("type") == "array":
        return f"list of {kind(value.get('items', {}))}"
    return str(value.get("type", value.get("const", "any")))


def rules() -> Iterator[str]:
    from halfbyte.gate.catalogue import all_rules

    yield "# Gate rules\n\n`halfbyte gate --explain RULE` says the same.\n"
    yield from ["| rule | severity | depth | why |", "|---|---|---|---|"]
    for rule in all_rules().values():
        yield f"| `{rule.id}` | {rule.severity} | {rule.needs} | {cell(rule.rationale)} |"


def families() -> Iterator[str]:
    """docs/families.md, kept in the repository: `python docs/reference_pages.py families > docs/families.md`."""
    from halfbyte.models import FAMILIES
    from halfbyte.models.roles import Role
    from halfbyte.models.unsupported import REASONS

    yield "# Model families\n\nMade from `src/halfbyte/models/`. Each is one file there; what is known of engines says"
    yield "how: run, read (release and file), or not known. [Adding a family](adding-a-family.md).\n"
    yield from ["| model_type | also | commands | llama.cpp | answers in chat |", "|---|---|---|---|---|"]
    for name, family in FAMILIES.items():
        also = ", ".join(f"`{one}`" for one in sorted(family.aliases))
        graph = "not described" + (f": {cell(family.unwritten)}" if family.unwritten else "")
        if family.llama_cpp is not None and (family.by_name or family.llama_cpp.beside_towers):
            scaled = Role.ROUTED_EXPERT in family.llama_cpp.scaled
            graph = f"`{family.llama_cpp.name}`, NVFP4 {'lossless' if scaled else 'only by `--type`, lossy'}"
        commands = "all"
        if family.wrapping is not None and not family.named_so_alone:
            taken_out = family.llama_cpp is not None and family.llama_cpp.beside_towers
            missing = "`chat` by transformers (`export`: text model)" if taken_out else "`export` and `chat`"
            commands = f"beside its towers, which are kept: all but {missing}"
            commands += "" if family.only_wrapped else "; of the text model alone: all"
        parsed = "parsed" if family.answers is not None else "plain text"
        yield f"| `{name}` | {also} | {commands} | {graph} | {parsed} |"
    yield "\nSources may be BF16, F16 or F32, FP8 in blocks, rows or tensors, INT4 in groups and MXFP4, in any family"
    yield "([sources](sources.md)).\n"
    yield from [
        "| model_type | engine | since | runs it with | router in the exclusion list |",
        "|---|---|---|---|---|",
    ]
    asked = {True: "looked up", False: "never asked", None: "not known"}
    for name, family in FAMILIES.items():
        for engine, support in sorted(family.engines.items()):
            since = ".".join(map(str, support.since)) or ""
            known = support.router_known if support.asks_router is not None else support.since_known
            where = f" ({known.how}: {cell(known.where)})" if known.where else ""
            router = "" if engine == "transformers" else asked[support.asks_router]
            file = f"`{support.file}.py`" if support.file else ""
            yield f"| `{name}` | {engine} | {since} | {file} | {router}{where} |"
    yield (
        "\nRun on an H100: vLLM 0.26 with eighteen families (four on an H200), SGLang 0.5.15.post1 with six: "
        "[engines](engines.md).\n"
    )
    yield from ["| not read | why |", "|---|---|"]
    yield from (f"| `{name}` | {cell(reason)} |" for name, reason in REASONS.items())


def hardware() -> Iterator[str]:
    from halfbyte.plan.hardware import catalogue

    yield "# Hardware that `plan` knows\n"
    yield from ["| GPU | GiB | memory, GB/s | link | link, GB/s | compute capability |", "|---|---|---|---|---|---|"]
    for name, gpu in catalogue().items():
        yield (
            f"| `{name}` | {gpu.memory_gib:g} | {gpu.bandwidth_gb_s:,.0f} | {gpu.link} | {gpu.link_gb_s:,.0f} "
            f"| {gpu.compute_capability} |"
        )


def api() -> Iterator[str]:
    from halfbyte import api

    yield "# Python API\n\n`from halfbyte.api import quantize`: every command as a function, options by name.\n"
    yield "::: halfbyte.api.quantize\n"
    for name in api.__all__:
        if name in api._MODULES:
            where = api._MODULES[name]
            module = import_module(where) if where.endswith("export") else None
            yield f"::: {where if module is None else f'{getattr(module, name).__module__}'}.{name}\n"


def benchmarks() -> Iterator[str]:
    yield "# Benchmarks\n\nOne row a run, as it was appended to `benchmarks/results/`; the figures are in the files.\n"
    yield from ["| benchmark | date | commit | machine | command |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "benchmarks/results").glob("*.jsonl")):
        for row in map(json.loads, path.read_text("utf-8").splitlines()):
            device = row.get("device") or row.get("processor") or row.get("cpu", "")
            command = row.get("command", "")
            yield (
                f"| {path.stem} | {str(row.get('date', ''))[:10]} | {row.get('commit', '')} | {cell(device)} "
                f"| {f'`{cell(command)}`' if command else 'not noted'} |"
            )


PAGES = {
    "commands": commands,
    "schemas": schemas,
    "rules": rules,
    "hardware": hardware,
    "api": api,
    "benchmarks": benchmarks,
}
"""Name of a page -> its lines."""


if __name__ == "__main__":
    print("\n".join({**PAGES, "families": families}[sys.argv[1]]()))
