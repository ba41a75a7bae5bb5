"""Room that is taken before it is used: bytes of memory, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Held until `shrink` gives a part back, and the rest at the end."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self._budget, self.amount = budget, amount

    def shrink(self, amount: int) -> None:
        """Hold no more than this from now on."""
        freed = max(0, self.amount - amount)
        self.amount -= freed
        self._budget.left += freed
        self._budget.changed.set()


class Budget:
    """Bounds what is held at a time; what is larger than the bound is held alone."""

    def __init__(self, total: int) -> None:
        self.total = self.left = total
        self.changed = asyncio.Event()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def reserve(self, amount: int) -> AsyncIterator[Room]:
        amount = min(amount, self.total)
        async with self._turn:  # the lock is fair: one that needs much is not passed by those that need little
            while self.left < amount:
                self.changed.clear()
                await self.changed.wait()
            self.left -= amount
        room = Room(self, amount)
        try:
            yield room
        finally:
            room.shrink(0)
