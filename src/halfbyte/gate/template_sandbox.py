"""Runs in a process of its own: reads a chat template (a JSON string) on stdin, writes what is wrong with it as JSON.

No import of halfbyte: this file is run by path, isolated, with limits set before the template is parsed. The
environment is what transformers renders with (`ImmutableSandboxedEnvironment`, `raise_exception`, `strftime_now`,
`tojson`, loop controls).
"""

import importlib
import json
import re
import resource
import sys
from collections.abc import Iterator
from typing import Any

CPU_SECONDS = 2
MEMORY_BYTES = 512 << 20
OUTPUT_LIMIT = 1_000_000
GADGETS = {"lipsum", "cycler", "joiner", "self", "caller", "varargs", "kwargs"}
"""Names that jinja2 gives every template and that sandbox escapes start from; chat templates have no use for them."""

INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
ADDRESS = re.compile(r"(?:https?|ftp|file|data)://|\bdata:[a-z]+/", re.IGNORECASE)
ORDERS = re.compile(r"ignore (?:all |any )?(?:previous|prior|above)|do not (?:tell|reveal|mention)", re.IGNORECASE)
PACKED = re.compile(r"[A-Za-z0-9+/=]{200,}")

WARM_UP = "{% for m in messages %}{{- '\\n' + m.content | trim -}}{% endfor %}{{ [] | tojson }}{{ broken("
"""Parsed, rendered or refused once before files are closed to the process: codecs and the like are imported late."""

USER = {"role": "user", "content": "What is half of a byte? zq7"}
CONVERSATIONS: list[dict[str, Any]] = [
    {"messages": [USER]},
    {"messages": [{"role": "system", "content": "Answer briefly."}, USER]},
    {"messages": [USER, {"role": "assistant", "content": "A nibble."}, {"role": "user", "content": "Thanks zq7"}]},
    {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "halve", "arguments": {"bits": 8}}}],
            },
            {"role": "tool", "content": "4"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "halve", "description": "", "parameters": {"type": "object", "properties": {}}},
            }
        ],
    },
]


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:  # all modules now: later no file can be opened
        for module in ("jinja2.debug", "jinja2.ext", "jinja2.sandbox"):
            importlib.import_module(module)
    except ImportError:
        sys.stdout.write(json.dumps([["deny", "cannot be rendered here: install jinja2"]]))
        return
    list(judged(WARM_UP))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    template = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(list(judged(template))))


def judged(template: str) -> Iterator[tuple[str, str]]:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: "2026-01-01"
    yield from scanned_text(template)
    try:
        tree = environment.parse(without_generation_blocks(template))
        yield from scanned_tree(tree)
        compiled = environment.from_string(tree)
    except (TemplateError, RecursionError, MemoryError) as error:
        yield "deny", f"does not parse: {error}"
        return
    for number, conversation in enumerate(CONVERSATIONS):
        yield from rendered(compiled, conversation, first=number == 0)


class Refused(Exception):
    """The template's own `raise_exception`."""


def refuse(message: object) -> None:
    raise Refused(str(message))


def without_generation_blocks(template: str) -> str:
    """transformers' own `{% generation %}` tag marks the assistant's tokens and changes nothing else."""
    return re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template)


def rendered(compiled: Any, conversation: dict[str, Any], first: bool) -> Iterator[tuple[str, str]]:
    """One conversation. Only the plainest must work; templates may refuse roles they do not know."""
    from jinja2.exceptions import SecurityError

    try:
        text = compiled.render(add_generation_prompt=True, bos_token="", eos_token="", pad_token="", **conversation)
    except SecurityError as error:
        yield "deny", f"reaches for what the sandbox forbids: {error}"
        return
    except Refused:
        if first:
            yield "deny", "refuses a plain user message"
        return
    except (MemoryError, RecursionError, OverflowError) as error:
        yield "deny", f"runs out of bounds: {type(error).__name__} {error}"
        return
    except Exception as error:
        yield ("deny" if first else "warn"), f"fails to render: {type(error).__name__}: {error}"
        return
    if len(text) > OUTPUT_LIMIT:
        yield "deny", f"makes {len(text):,} characters of one short conversation"
    last_user = [m["content"] for m in conversation["messages"] if m["role"] == "user"][-1]
    if last_user not in text:
        yield "deny" if first else "warn", "drops or changes the user's message"


def scanned_text(template: str) -> Iterator[tuple[str, str]]:
    found = INVISIBLE.search(template)
    if found:
        yield "deny", f"holds the invisible character U+{ord(found.group()):04X}"


def scanned_tree(tree: Any) -> Iterator[tuple[str, str]]:
    from jinja2 import nodes

    pieces = [node.data for node in tree.find_all(nodes.TemplateData)]
    pieces += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    for piece in pieces:  # what can reach the model; a comment cannot
        if ADDRESS.search(piece):
            yield "deny", "puts a network or file address into the prompt"
        if ORDERS.search(piece):
            yield "deny", "gives the model instructions that hide something"
        if PACKED.search(piece):
            yield "deny", "puts a long encoded blob into the prompt"
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        yield "deny", f"loads another template ({type(node).__name__.lower()}, line {node.lineno})"
    for node in tree.find_all(nodes.Getattr):
        if node.attr.startswith("_"):
            yield "deny", f"reads the private attribute {node.attr} (line {node.lineno})"
    for node in tree.find_all(nodes.Getitem):
        if isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("__"):
            yield "deny", f"reads the private item {node.arg.value} (line {node.lineno})"
    for node in tree.find_all(nodes.Filter):
        if node.name in ("attr", "map") and any(
            isinstance(arg, nodes.Const) and str(arg.value).startswith("_")
            for arg in [*node.args, *(keyword.value for keyword in node.kwargs)]
        ):
            yield "deny", f"reaches for a private attribute by the filter {node.name} (line {node.lineno})"
    for node in tree.find_all(nodes.Name):
        if node.ctx == "load" and node.name in GADGETS:
            yield "deny", f"uses {node.name} (line {node.lineno})"


if __name__ == "__main__":
    main()
