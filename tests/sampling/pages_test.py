"""Lending pages: none is lent twice, none is lost."""

import numpy as np

from jssd.sampling.pages import NOBODYS, Pages


def test_pages_are_lent_in_order_and_come_back():
    pages = Pages(num_pages=6, page_size=4, num_slots=2, pages_per_slot=4)
    assert pages.num_free() == 5
    assert pages.extend(0, 1) and pages.extend(0, 4)  # The second needs no further page.
    assert pages.num_free() == 4
    assert pages.extend(1, 9)
    assert pages.table_BM.tolist() == [[1, 0, 0, 0], [2, 3, 4, 0]]
    assert not pages.extend(0, 12)  # Two are missing, one is free: none is taken.
    assert pages.num_free() == 1 and pages.table_BM[0].tolist() == [1, 0, 0, 0]
    pages.release(1)
    assert pages.num_free() == 4 and pages.table_BM[1].tolist() == [NOBODYS] * 4
    assert pages.extend(0, 16) and sorted(pages.table_BM[0].tolist()) == [1, 2, 3, 4]
    pages.release(0)
    pages.release(0)
    assert pages.num_free() == 5


def test_whatever_happens_no_page_has_two_owners():
    rng = np.random.default_rng(0)
    pages = Pages(num_pages=20, page_size=3, num_slots=6, pages_per_slot=8)
    sizes = [0] * 6
    for _ in range(2000):
        slot = int(rng.integers(6))
        if rng.random() < 0.3:
            pages.release(slot)
            sizes[slot] = 0
        else:
            wanted = min(24, sizes[slot] + int(rng.integers(1, 9)))
            before = pages.num_free()
            if pages.extend(slot, wanted):
                sizes[slot] = wanted
            else:
                assert pages.num_free() == before
        held = pages.table_BM[pages.table_BM != NOBODYS]
        assert len(set(held.tolist())) == len(held) == 19 - pages.num_free()
        assert [-(-size // 3) for size in sizes] == (pages.table_BM != NOBODYS).sum(axis=1).tolist()


def test_groups_of_slots_have_pools_of_their_own():
    pages = Pages(num_pages=3, page_size=4, num_slots=4, pages_per_slot=2, num_groups=2)
    assert [pages.group(slot) for slot in range(4)] == [0, 0, 1, 1]
    assert pages.extend(0, 8) and not pages.extend(1, 1)
    assert pages.extend(3, 4) and pages.table_BM.tolist() == [[1, 2], [0, 0], [0, 0], [1, 0]]
    assert (pages.num_free(0), pages.num_free(1)) == (0, 1)
