"""One arm: a suite's items asked of one target, by inspect's eval_set, which resumes what its log folder holds."""

from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.errors import DataError, UnsupportedError
from halfbyte.evaluate.running.checkers import is_right
from halfbyte.evaluate.running.targets import Target, served_models
from halfbyte.progress import Progress

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog

TRANSPORT_RETRIES = 6
REQUEST_TIMEOUT_S = 3600
MOST_FAILED = 0.1
"""Above this share of failed requests the run stops: it is the server, not the items."""


@dataclass(frozen=True)
class Sampling:
    """temperature, top_p: of the requests. max_tokens: of an answer, reasoning included. epochs: runs of each item."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 16_384
    epochs: int = 1
    max_connections: int = 8


def ask(
    suite: str, items: Sequence[dict[str, Any]], target: Target, sampling: Sampling, logs: Path, progress: Progress
) -> None:
    """Every item asked and its log under `logs`. Raises DataError for a server that died, UnsupportedError."""
    try:
        from inspect_ai import eval_set
        from inspect_ai.model import get_model

        from halfbyte.evaluate.running.watching import watched
    except ImportError:
        raise UnsupportedError("asking needs inspect-ai", hint="pip install 'halfbyte[evaluate]'") from None
    if is_finished(logs):
        return
    served_models(target.base_url, target.api_key)
    progress.note(f"{suite}: {len(items)} items, {sampling.epochs} runs each, asked of {target.name}")
    logs.mkdir(parents=True, exist_ok=True)
    # standard output is the caller's
    with redirect_stdout(StringIO()), watched(suite, len(items) * sampling.epochs, progress):
        service = f"openai-api/halfbyte/{target.model}"
        model = get_model(service, base_url=target.base_url, api_key=target.api_key or "none", memoize=False)
        finished, found = eval_set(
            _task(suite, items),
            log_dir=str(logs),
            model=model,
            epochs=sampling.epochs,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            max_connections=sampling.max_connections,
            max_retries=TRANSPORT_RETRIES,
            timeout=REQUEST_TIMEOUT_S,
            fail_on_error=MOST_FAILED,
            retry_attempts=0,
            retry_immediate=False,
            log_buffer=1,
            log_dir_allow_dirty=True,
            display="none",
            score_display=False,
        )
    if not finished:
        served_models(target.base_url, target.api_key)
        raise DataError(f"{target.name}: {_why(found)}", hint="run the same command again: it goes on where it stopped")


def is_finished(logs: Path) -> bool:
    """Whether a log there is of a run that ended well."""
    from inspect_ai.log import read_eval_log

    for path in logs.glob("*.eval"):
        with suppress(Exception):  # of a damaged one, whatever inspect and zipfile raise
            if read_eval_log(path, header_only=True).status == "success":
                return True
    return False


def _task(suite: str, items: Sequence[dict[str, Any]]) -> "Task":
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, mean, scorer
    from inspect_ai.solver import TaskState, generate

    @scorer(metrics=[mean()], name="checked")
    def checked() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            import anyio

            item = state.metadata["item"]
            right = await anyio.to_thread.run_sync(
                is_right, item["checker"], state.output.completion, item["reference"]
            )
            return Score(value=CORRECT if right else INCORRECT, answer=state.output.completion)

        return score

    samples = [
        Sample(
            id=item["id"],
            input=item["prompt"] if "prompt" in item else _messages(item["messages"]),
            target=str(item["reference"]),
            metadata={"item": {key: item[key] for key in ("checker", "reference")}, "cluster": item.get("cluster")},
        )
        for item in items
    ]
    return Task(dataset=MemoryDataset(samples, name=suite), solver=generate(), scorer=checked(), name=suite)


def _messages(messages: list[dict[str, Any]]) -> Any:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds: dict[str, Any] = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    try:
        return [kinds[message["role"]](content=message["content"]) for message in messages]
    except (KeyError, TypeError, ValueError):
        raise DataError("messages want a role (system, user, assistant) and a content each") from None


def _why(logs: Sequence["EvalLog"]) -> str:
    errors = [log.error.message for log in logs if log.error is not None]
    return f"the run stopped: {errors[0].splitlines()[0][:200]}" if errors else "the run stopped"
