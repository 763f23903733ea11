"""A model at OpenAI, or at anything that speaks its protocol, asked directly and streaming.

The `openai` package takes a second to import, so it is imported with the first question.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perdure.clock import Clock, SystemClock
from perdure.errors import Invalid
from perdure.llm.model import ModelRequest, named
from perdure.llm.openai_wire import StreamedReply, parameters, reply_of, translated
from perdure.llm.policy import ModelPolicy
from perdure.sidecar.ports import ChatReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai import AsyncOpenAI


class OpenAIModel:
    """`openai:NAME`. One attempt for each question; streams when somebody listens.

    Raises: Invalid (code `extra_missing`) without the package, Invalid (code `model_key_missing`) with neither a
    key nor the address of a server that may need none.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        policy: ModelPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise Invalid(
                "extra_missing", f"model 'openai:{model}' needs the package openai: pip install 'perdure[openai]'"
            )
        if not api_key and not base_url:
            raise Invalid(
                "model_key_missing",
                f"model 'openai:{model}' needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server without keys",
            )
        self._model = model
        self._api_key = api_key or "none"
        self._base_url = base_url
        self._policy = policy or ModelPolicy()
        self._clock = clock or SystemClock()
        self._client: AsyncOpenAI | None = None

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    async def reply(self, request: ModelRequest) -> ChatReply:
        self._policy.check(self.name)
        client = self._opened()
        asked = parameters(self._model, request)
        with self._translating():
            if request.on_text is None:
                whole = await client.chat.completions.create(**asked, timeout=request.timeout_s)
                return named(reply_of(whole), self.name)
            pieces = await client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}, timeout=request.timeout_s
            )
            streamed = StreamedReply(request.on_text)
            async with pieces:
                async for piece in pieces:
                    streamed.add(piece)
            return named(streamed.reply(), self.name)

    async def aclose(self) -> None:
        """Close the connections; the next question opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _opened(self) -> Any:
        if self._client is None:
            from openai import AsyncOpenAI

            # max_retries: repeating has one owner, RetryingModel.
            base_url = self._base_url or "https://api.openai.com/v1"
            self._client = AsyncOpenAI(api_key=self._api_key, base_url=base_url, max_retries=0)
        return self._client

    @contextmanager
    def _translating(self) -> Iterator[None]:
        from httpx2 import TransportError
        from openai import OpenAIError

        try:
            yield
        except (OpenAIError, TransportError, ValueError) as error:  # ValueError: JSON that does not parse
            raise translated(self.name, error, self._clock) from error
