"""Who is asked: an OpenAI-compatible URL, its model after `#`"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from halfbyte.errors import DataError, UsageError, said
from halfbyte.text import json_of

KEY_ENV = "OPENAI_API_KEY"
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Target:
    """base_url: ends with /v1. api_key: empty if the server wants none."""

    base_url: str
    model: str
    api_key: str

    @property
    def name(self) -> str:
        return f"{self.base_url}#{self.model}"


def target_of(text: str, key_env: str = KEY_ENV, known: Collection[str] = ()) -> Target:
    """A target by its URL. known: names of an earlier run's, for a URL without a model; else its server is asked.

    Raises UsageError, DataError for a server that does not answer.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        if "://" in text or not text:
            raise UsageError(f"{text[:120]!r} is no http or https URL", hint="http://host:port/v1#model")
        raise DataError(
            f"{text[:120]}: no such checkpoint folder or .gguf file",
            hint="or the URL of a served model: http://127.0.0.1:8000/v1#MODEL",
        )
    path = parts.path.rstrip("/")
    base_url = f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else path + '/v1'}"
    api_key = os.environ.get(key_env, "")
    earlier = [name.partition("#")[2] for name in known if name.partition("#")[0] == base_url]
    model = parts.fragment or (earlier[0] if earlier else _only(served_models(base_url, api_key), base_url))
    return Target(base_url, model, api_key)


def _only(models: Sequence[str], base_url: str) -> str:
    if len(models) != 1:
        raise DataError(f"{base_url}: serves {len(models)} models", hint=f"URL#MODEL, of {', '.join(models)[:200]}")
    return models[0]


def served_models(base_url: str, api_key: str) -> list[str]:
    """What `/models` lists. Raises DataError."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(f"{base_url}/models", headers=headers, timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        reason = str(error)[:120] or type(error).__name__
        raise DataError(f"{base_url}: does not answer: {reason}", hint="start the server, or correct the URL") from None
    if answer.status_code != 200:
        refused = answer.status_code in (401, 403)
        raise DataError(
            f"{base_url}/models: answered {answer.status_code}",
            hint=said("its key is read from OPENAI_API_KEY, or as {key_env} says") if refused else None,
        )
    try:
        return [str(model["id"]) for model in json_of(answer.content)["data"]]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{base_url}/models: answered something else than a list of models") from None
