"""One suite asked of one target by inspect's eval_set, which resumes what its log folder holds."""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.errors import DataError, UnsupportedError
from halfbyte.evaluate.running.suite import AskedSuite
from halfbyte.evaluate.running.targets import Target, served_models
from halfbyte.progress import Progress

if TYPE_CHECKING:
    from inspect_ai import Task
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model

TRANSPORT_RETRIES = 6
REQUEST_TIMEOUT_S = 3600
MOST_FAILED = 0.1
"""Above this share of failed requests the run stops: it is the server, not the items."""


def needs_inspect() -> None:
    """Raise UnsupportedError where inspect-ai is not installed."""
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        raise UnsupportedError("asking needs inspect-ai", hint="pip install 'halfbyte[evaluate]'") from None


def ask(
    suite: AskedSuite,
    items: Sequence[dict[str, Any]],
    target: Target,
    roles: Mapping[str, Target],
    logs: Path,
    progress: Progress,
) -> None:
    """Some items of a suite asked, the log under `logs`. roles: judge and user simulator.

    Raises DataError for a server that died.
    """
    from inspect_ai import eval_set

    from halfbyte.evaluate.running.task import task_of
    from halfbyte.evaluate.running.watching import watched

    if is_finished(logs):
        return
    for one in (target, *roles.values()):
        served_models(one.base_url, one.api_key)
    sampling = suite.sampling
    progress.note(f"{suite.name}: {len(items)} items, {sampling.epochs} runs each, asked of {target.name}")
    logs.mkdir(parents=True, exist_ok=True)
    # standard output is the caller's
    with redirect_stdout(StringIO()), watched(suite.name, len(items) * sampling.epochs, progress):
        finished, found = eval_set(
            task_of(suite, items) if suite.task is None else _only(suite.task(), items),
            log_dir=str(logs),
            model=_model(target),
            model_roles={role: _model(one) for role, one in roles.items()} or None,
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


def _only(task: "Task", items: Sequence[dict[str, Any]]) -> "Task":
    """A task of others with these items alone. inspect's own filter takes ids for patterns: tau2's hold [, | and :."""
    from inspect_ai import task_with

    wanted = {item["id"] for item in items}
    return task_with(task, dataset=task.dataset.filter(lambda sample: str(sample.id) in wanted))


def _model(target: Target) -> "Model":
    from inspect_ai.model import get_model

    service = f"openai-api/halfbyte/{target.model}"
    # the client's own retries would wait where nobody is told; inspect's are bounded, counted and shown
    return get_model(service, base_url=target.base_url, api_key=target.api_key or "none", memoize=False, max_retries=0)


def is_finished(logs: Path) -> bool:
    """Whether a log there is of a run that ended well."""
    from inspect_ai.log import read_eval_log

    for path in logs.glob("*.eval"):
        with suppress(Exception):  # of a damaged one, whatever inspect and zipfile raise
            if read_eval_log(path, header_only=True).status == "success":
                return True
    return False


def _why(logs: Sequence["EvalLog"]) -> str:
    errors = [log.error.message for log in logs if log.error is not None]
    return f"the run stopped: {errors[0].splitlines()[0][:200]}" if errors else "the run stopped"
