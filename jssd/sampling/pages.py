"""Which pages of the cache each slot holds: the host's book-keeping, nothing on the device.

The cache is a pool of pages that hold a few tokens each. A slot takes pages as its completion grows
and gives all of them back when it ends, so memory follows what is used, not the longest completion
that might come.
"""

import numpy as np

NOBODYS = 0  # This page is never lent: what idle slots write goes there.


class Pages:
    """Pools of `num_pages` pages with `page_size` places each, lent to slots.

    Slots on the same devices are a group with a pool of its own: the first `num_slots / num_groups`
    slots are the first group, and so on.

    Attributes:
      table_BM: int32 [slots, pages of the longest completion]; the pages of each slot in order,
        counted within its pool, then `NOBODYS`.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        num_slots: int,
        pages_per_slot: int,
        num_groups: int = 1,
    ):
        self.page_size = page_size
        self.table_BM = np.full((num_slots, pages_per_slot), NOBODYS, np.int32)
        self._group_size = num_slots // num_groups
        self._num_held = [0] * num_slots
        self._free = [list(range(num_pages - 1, NOBODYS, -1)) for _ in range(num_groups)]

    def group(self, slot: int) -> int:
        """The group `slot` is in."""
        return slot // self._group_size

    def num_free(self, group: int = 0) -> int:
        """Pages of a group's pool that are not lent."""
        return len(self._free[group])

    def extend(self, slot: int, num_tokens: int) -> bool:
        """Lends `slot` pages until `num_tokens` fit; takes none if there are too few."""
        held = self._num_held[slot]
        missing = -(-num_tokens // self.page_size) - held
        free = self._free[self.group(slot)]
        if missing > len(free):
            return False
        for index in range(held, held + missing):
            self.table_BM[slot, index] = free.pop()
        self._num_held[slot] = max(held, held + missing)
        return True

    def release(self, slot: int) -> None:
        """Takes back all pages of `slot`."""
        held = self._num_held[slot]
        self._free[self.group(slot)].extend(self.table_BM[slot, :held][::-1].tolist())
        self.table_BM[slot] = NOBODYS
        self._num_held[slot] = 0
