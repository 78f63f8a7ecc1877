"""uvicorn's HTTP, less patient with clients that hold a connection and do nothing with it."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 15.0  # seconds for a request's head, and for what is unread when a response has ended


class Impatient(H11Protocol):
    """Closes connections on which no request is under way, for once or twice `PATIENCE`."""

    patience = PATIENCE
    _timer: asyncio.TimerHandle | None = None
    _seen: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.patience, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        # A cycle is a request and its response.
        idle = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or (idle and self._seen is (self.cycle or self)):
            self.transport.abort()
            return
        self._seen = (self.cycle or self) if idle else None
        self._timer = self.loop.call_later(self.patience, self._look)
