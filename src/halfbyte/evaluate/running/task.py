"""A suite of our items as an inspect task: how an item is asked, and how its answer is scored."""

import json
from collections.abc import Sequence
from typing import Any

import anyio
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    get_model,
)
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from halfbyte.errors import DataError
from halfbyte.evaluate.running.checkers import answer_of, checked, refuses
from halfbyte.evaluate.running.ifbench import Checker
from halfbyte.evaluate.running.judge import MAX_TOKENS, ROLE, grade_of, prompt_of
from halfbyte.evaluate.running.suite import AskedSuite, seed_of
from halfbyte.evaluate.running.tiny import is_call, is_exact, is_expression, is_pick
from halfbyte.evaluate.running.watching import retries_of

KINDS: dict[str, Any] = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


def task_of(suite: AskedSuite, items: Sequence[dict[str, Any]]) -> Task:
    """The task of some of a suite's items. Raises DataError for messages that are none."""
    samples = [
        Sample(
            id=item["id"],
            input=item["prompt"] if "prompt" in item else [_shown(message) for message in item["messages"]],
            target=json.dumps(item["reference"], ensure_ascii=False),
            metadata={"item": _kept(item), "cluster": item.get("cluster")},
        )
        for item in items
    ]
    dataset = MemoryDataset(samples, name=suite.name)
    ifbench = None if suite.data is None else Checker(suite.data)
    return Task(dataset=dataset, solver=ask(suite.sampling.seed), scorer=check(ifbench), name=suite.name)


def _kept(item: dict[str, Any]) -> dict[str, Any]:
    """What asking and scoring want of an item, beside the prompt, which may be long."""
    kept = {key: item[key] for key in ("checker", "reference", "question", "tools") if key in item}
    return kept | ({"messages": item["messages"]} if _calls_tools(item.get("messages") or ()) else {})


def _calls_tools(messages: Sequence[dict[str, Any]]) -> bool:
    return any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)


@solver
def ask(seed: int) -> Solver:
    """One answer, each run of an item with a seed of its own. How often it had to be asked is kept."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        own = seed_of(seed, str(state.sample_id), state.epoch)
        state.output = await get_model().generate(
            state.messages, config=GenerateConfig(seed=own, extra_body=_body(state.metadata["item"]))
        )
        state.messages.append(state.output.message)
        state.metadata |= {"attempts": 1 + retries_of(state.uuid), "seed": own}
        return state

    return solve


def _body(item: dict[str, Any]) -> dict[str, Any] | None:
    """Tools, and conversations with calls of them, as the item has them: inspect would add fields of its own."""
    body: dict[str, Any] = {"tools": item["tools"]} if item.get("tools") else {}
    if "messages" in item:
        body["messages"] = [_sent(message, number) for number, message in enumerate(item["messages"])]
    return body or None


def _sent(message: dict[str, Any], number: int) -> dict[str, Any]:
    """As the API wants it: arguments are JSON in a string, calls and responses have ids."""
    calls = [
        {
            "id": f"call_{number}_{k}",
            "type": "function",
            "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)},
        }
        for k, call in enumerate(message.get("tool_calls") or ())
    ]
    more: dict[str, Any] = {"tool_calls": calls} if calls else {}
    if message["role"] == "tool":
        more["tool_call_id"] = f"call_{number - 1}_0"
    return message | more


def _shown(message: dict[str, Any]) -> ChatMessage:
    """For inspect's log, and sent where no tool is called."""
    try:
        if message["role"] == "tool":
            return ChatMessageTool(content=message["content"])
        kind: ChatMessage = KINDS[message["role"]](content=message["content"])
    except (KeyError, TypeError, ValueError):
        raise DataError("messages want a role (system, user, assistant) and a content each") from None
    return kind


@scorer(metrics=[mean()], name="checked")
def check(ifbench: Checker | None = None) -> Scorer:
    """Right or wrong by the item's checker. Metadata: whether nothing could be read as an answer (`unparsed`),
    whether it begins as a refusal does (`refused`)."""

    async def score(state: TaskState, target: Target) -> Score:
        item, text = state.metadata["item"], state.output.completion
        more = {"refused": refuses(text)}
        if item["checker"] == "judge":
            return await _judged(item.get("question") or state.input_text, item["reference"], text, more)
        if ifbench is not None:
            right: bool | None = await anyio.to_thread.run_sync(ifbench.is_right, answer_of(text), item["reference"])
        else:
            right = await _checked(item, state)
        value = CORRECT if right else INCORRECT
        return Score(value=value, answer=text, metadata=more | {"unparsed": right is None})

    return score


async def _checked(item: dict[str, Any], state: TaskState) -> bool | None:
    kind, reference, text = item["checker"], item["reference"], state.output.completion
    reply = answer_of(text)
    if kind == "tiny-tool_call":
        message = state.output.message
        calls = [(call.function, call.arguments) for call in message.tool_calls or ()]
        return is_call(calls, reply, reference)
    if kind == "tiny-exact":
        return is_exact(reply, reference) if reply else None
    if kind == "tiny-pick":
        return is_pick(reply, reference) if reply else None
    if kind == "tiny-exec":
        return await anyio.to_thread.run_sync(is_expression, reply, reference)
    return await anyio.to_thread.run_sync(checked, kind, text, reference)


async def _judged(question: str, reference: Any, text: str, more: dict[str, Any]) -> Score:
    answer = answer_of(text)
    if not answer:
        return Score(value=INCORRECT, answer=text, metadata=more | {"unparsed": True})
    try:
        asked = prompt_of(question, reference, answer)
        said = await get_model(role=ROLE).generate(asked, config=GenerateConfig(temperature=0.0, max_tokens=MAX_TOKENS))
    except Exception as error:  # of the judge's server, whatever the client raises for it: the answer is not to blame
        return Score.unscored(reason="judge_failed", answer=text, explanation=str(error)[:500], metadata=more)
    right = grade_of(said.completion)
    if right is None:
        return Score.unscored(reason="judge_gave_no_grade", answer=text, explanation=said.completion, metadata=more)
    value = CORRECT if right else INCORRECT
    return Score(value=value, answer=text, explanation=said.completion, metadata=more | {"unparsed": False})
