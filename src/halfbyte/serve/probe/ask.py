"""Asks a running engine for the positions of a reference, whichever engine it is."""

from typing import Any

import httpx

from halfbyte.engines import scoring
from halfbyte.engines.scoring import Scored
from halfbyte.errors import HalfbyteError, UsageError, said
from halfbyte.evidence.reference import ReferenceDocument
from halfbyte.progress import Progress
from halfbyte.serve.addresses import base_of
from halfbyte.text import json_of

ASK_S = 120.0
NOT_AN_ANSWER = (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration)


class ProbeError(HalfbyteError):
    """An engine that cannot be asked."""

    kind = "probe"


class Engine:
    """One engine behind a URL. key: an API key that it wants. model: its name there, the first by default."""

    def __init__(self, url: str, model: str | None = None, key: str | None = None) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        try:
            self._client = httpx.Client(base_url=base_of(url), headers=headers, timeout=ASK_S)
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(said("{url!r}: no URL: {error}", url=url[:100], error=str(error))) from None
        self._url = url
        self._model = model or self._first_model()

    def scores(self, reference: ReferenceDocument, progress: Progress) -> list[list[Scored]]:
        """Position by position. Raises ProbeError."""
        progress.start("positions asked for", reference.positions)
        native = self._status("/model_info") == 200
        found = []
        for sequence in reference.sequences:
            try:
                found.append(self._sequence(list(sequence.ids), sequence.first, native))
            except NOT_AN_ANSWER as error:
                raise ProbeError(f"{self._url}: no log-probabilities in its answer: {error!r}") from None
            progress.advance(len(sequence.logprobs))
        return found

    def _sequence(self, ids: list[int], first: int, native: bool) -> list[Scored]:
        if native:
            return scoring.from_native_generate(self._post("/generate", scoring.native_generate(ids)), first)
        answer = self._post("/v1/completions", scoring.prompt_scores(self._model, ids))
        scores = scoring.from_prompt_scores(answer, ids, first)
        if scores is not None:
            return scores
        found = []
        for place in range(first, len(ids)):
            answer = self._post("/v1/completions", scoring.next_token(self._model, ids[:place]))
            found.append(scoring.from_next_token(answer, ids[place]))
        return found

    def _first_model(self) -> str:
        try:
            return str(self._get("/v1/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise ProbeError(f"{self._url}: serves no model", hint=said("name it with {model}")) from None

    def _status(self, path: str) -> int:
        try:
            return self._client.get(path).status_code
        except httpx.HTTPError:
            return 0

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def _post(self, path: str, document: dict[str, Any]) -> Any:
        return self._ask("POST", path, document)

    def _ask(self, method: str, path: str, document: dict[str, Any] | None) -> Any:
        try:
            answer = self._client.request(method, path, json=document)
        except httpx.HTTPError as error:
            raise ProbeError(f"{self._url}: does not answer: {type(error).__name__} {error}") from None
        if answer.status_code != 200:
            raise ProbeError(f"{self._url}{path}: status {answer.status_code}: {answer.text[:200]}")
        try:
            return json_of(answer.content)
        except ValueError:
            raise ProbeError(f"{self._url}{path}: its answer is not JSON") from None

    def close(self) -> None:
        self._client.close()
