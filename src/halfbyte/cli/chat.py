"""`halfbyte chat`"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.chat.options import CONTEXT_TOKENS, Sampling
from halfbyte.cli.output import FollowLinks, Json, command, print_json, shown_progress
from halfbyte.disk import read_stream
from halfbyte.errors import UsageError
from halfbyte.progress import tell
from halfbyte.text import block

if TYPE_CHECKING:
    from halfbyte.chat.answer import Answer, Engine, Summary
    from halfbyte.models.answers import Delta

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"


@command
def chat(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder, or a .gguf file for llama.cpp.")],
    prompt: Annotated[str | None, typer.Option(help="Ask this and exit; without it, a conversation.")] = None,
    messages: Annotated[
        Path | None, typer.Option(help="JSON with messages (and tools) to answer; of JSON lines, the first.")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, llama.cpp or transformers.")] = "auto",
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, reasoning included.")] = Sampling.max_tokens,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = Sampling.temperature,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = Sampling.top_p,
    top_k: Annotated[int, typer.Option(min=0, help="0 for all tokens.")] = Sampling.top_k,
    seed: Annotated[int | None, typer.Option(help="For repeatable sampling.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Reason first. [default: the template's]")
    ] = None,
    context: Annotated[int, typer.Option(min=16, help="Tokens of context that llama.cpp reserves.")] = CONTEXT_TOKENS,
    yes: Annotated[bool, typer.Option("--yes", help="Export a GGUF of more than 20 GB without asking.")] = False,
    follow_links: FollowLinks = False,
    json_output: Json = False,
) -> None:
    """Talk to a checkpoint on this machine; llama.cpp runs it on any processor, no Blackwell needed.

    Example: halfbyte chat ./glm-nvfp4 --prompt "Why is the sky blue?"
    """
    from halfbyte.chat.engine import load

    if prompt is not None and messages is not None:
        raise UsageError("--prompt and --messages exclude each other")
    conversation, tools = _read_messages(messages) if messages else ([], [])
    if system:
        conversation.insert(0, {"role": "system", "content": system})
    if prompt is None and messages is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise UsageError("nothing to answer: give --prompt, --messages or text on standard input")
    if prompt is not None:
        conversation.append({"role": "user", "content": prompt})
    sampling = Sampling(max_tokens, temperature, top_p, top_k, seed, thinking)

    def confirm(question: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(f"{question}. Go on?", err=True))

    with shown_progress() as progress:
        model = load(path, engine, context, progress, confirm, follow_links)
    if prompt is not None or messages is not None:
        _answer(model, conversation, tools, sampling, json_output)
    else:
        _converse(model, conversation, sampling)


def _converse(model: "Engine", conversation: list[dict[str, Any]], sampling: "Sampling") -> None:
    tell(f"{model.label}; an empty line or Ctrl-D ends")
    while True:
        try:
            asked = input(f"{BOLD}> {PLAIN}").strip()
        except EOFError:
            return
        if not asked:
            return
        conversation.append({"role": "user", "content": asked})
        conversation.append(_answer(model, conversation, [], sampling, as_json=False).as_message())


def _answer(
    model: "Engine",
    conversation: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    sampling: "Sampling",
    as_json: bool,
) -> "Answer":
    from halfbyte.chat.answer import Answer
    from halfbyte.models.answers import Delta

    answer, shown = Answer(), _Shown(sys.stdout.isatty())
    for piece in model.stream(conversation, tools, sampling):
        if isinstance(piece, Delta):
            answer.add(piece)
            if not as_json:
                shown.piece(piece)
        elif as_json:
            print_json({"engine": model.label} | vars(answer) | vars(piece))
        else:
            shown.end()
            tell(_figures(model.label, piece))
    return answer


def _figures(label: str, summary: "Summary") -> str:
    return (
        f"[{label}: {summary.completion_tokens} tokens, {summary.decode_tokens_per_s:.1f} tokens/s; prompt "
        f"{summary.prompt_tokens} tokens, {summary.prefill_tokens_per_s:.1f} tokens/s; first token after "
        f"{summary.ttft_ms:.0f} ms; {summary.finish_reason}]"
    )


class _Shown:
    """Prints pieces as they come: reasoning dimmed (in brackets where there is no terminal), tool calls as calls."""

    def __init__(self, terminal: bool) -> None:
        self._dim, self._plain = (DIM, PLAIN) if terminal else ("[", "]")
        self._kind: str | None = None

    def piece(self, delta: "Delta") -> None:
        if delta.kind != self._kind and (self._kind, delta.kind) != ("tool_name", "tool_arguments"):
            self._close()
            opening = {"reasoning": self._dim, "tool_name": "tool call: "}
            print(opening.get(delta.kind, ""), end="")
        self._kind = delta.kind
        print(block(delta.text) + (" " if delta.kind == "tool_name" else ""), end="", flush=True)

    def _close(self) -> None:
        if self._kind is not None:
            print(self._plain if self._kind == "reasoning" else "")
            if self._kind == "reasoning" and self._plain == PLAIN:
                print()

    def end(self) -> None:
        self._close()


def _read_messages(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        text = read_stream(path, UsageError).decode("utf-8")
        document = json.loads(text.splitlines()[0]) if path.suffix == ".jsonl" else json.loads(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise UsageError(f"--messages {path}: cannot be read as JSON: {error}") from None
    document = {"messages": document} if isinstance(document, list) else document
    if not isinstance(document, dict) or not isinstance(document.get("messages"), list) or not document["messages"]:
        raise UsageError(f"--messages {path}: wanted a list of messages, or an object with `messages` and `tools`")
    return document["messages"], document.get("tools") or []
