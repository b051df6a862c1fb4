"""Families about several lists, nested lists, and new lists. The format is told in `tasks.py`."""

TEXT = r"""
## joining_lists
merge_two_lists(a, b)
Return one list with all items of a followed by all items of b.
    return a + b
? [1], [2] | [], [3] | [1, 2], [] | ["x"], ["y", "z"]

repeat_list(items, times)
Return one list with the items of the list repeated the given number of times.
    return items * times
? [1, 2], 2 | [], 3 | ["a"], 3 | [7, 8], 0

append_item(items, item)
Return a new list with all items of the list, followed by item.
    return [*items, item]
? [1, 2], 3 | [], "x" | ["a"], "b" | [0], 0

prepend_item(items, item)
Return a new list that starts with item and continues with all items of the list.
    return [item, *items]
? [1, 2], 3 | [], "x" | ["a"], "b" | [0], 1

## pairwise
add_lists(a, b)
The lists a and b have the same length. Return a list of the sums of the numbers at the same
index.
    return [x + y for x, y in zip(a, b)]
? [1, 2], [3, 4] | [], [] | [5], [-1] | [1, 0, 2], [7, 8, 9]

multiply_lists(a, b)
The lists a and b have the same length. Return a list of the products of the numbers at the same
index.
    return [x * y for x, y in zip(a, b)]
? [1, 2], [3, 4] | [], [] | [5], [-1] | [1, 0, 2], [7, 8, 9]

count_matches(a, b)
The lists a and b have the same length. Return at how many indexes their items are equal.
    return sum(x == y for x, y in zip(a, b))
? [1, 2], [1, 4] | [], [] | [5], [5] | ["a", "b", "c"], ["a", "b", "c"]

## neighbors
neighbor_differences(numbers)
Return a list of the differences between each number of the list and the number before it. For
[1, 4, 9] the result is [3, 5].
    return [b - a for a, b in zip(numbers, numbers[1:])]
? [1, 4, 9] | [] | [5] | [3, 1, 1]

running_totals(numbers)
Return a list in which every item is the sum of all numbers of the list up to that index. For
[1, 2, 3] the result is [1, 3, 6].
    totals = []
    total = 0
    for number in numbers:
        total += number
        totals.append(total)
    return totals
? [1, 2, 3] | [] | [5] | [3, -1, 4]

## shared_items
common_items(a, b)
Return a sorted list of the integers that occur in both lists. Each is listed once.
    return sorted(set(a) & set(b))
? [1, 2, 3], [2, 3, 4] | [], [1] | [5, 5], [5] | [1], [2]

only_in_first(a, b)
Return a sorted list of the integers that occur in list a but not in list b. Each is listed once.
    return sorted(set(a) - set(b))
? [3, 2, 1], [2] | [], [1] | [5, 5], [6] | [1], [1]

all_distinct_sorted(a, b)
Return a sorted list of all different integers that occur in a or in b.
    return sorted(set(a) | set(b))
? [1, 2], [2, 3] | [], [] | [5, 5], [4] | [1], [1]

is_subset(a, b)
Return True if every item of list a also occurs in list b, otherwise False.
    return all(item in b for item in a)
? [1, 2], [2, 1, 3] | [], [] | [5, 6], [5] | ["x"], []

## nested_lists
flatten_list(lists)
The argument is a list of lists. Return one list with all their items in order.
    return [item for inner in lists for item in inner]
? [[1, 2], [3]] | [] | [[], ["a"]] | [[5], [], [6, 7]]

row_sums(rows)
Each row is a list of numbers. Return a list with the sum of every row.
    return [sum(row) for row in rows]
? [[1, 2], [3]] | [] | [[], [4]] | [[5, 5, 5]]

longest_list_length(lists)
The argument is a non-empty list of lists. Return the length of the longest of them.
    return max(len(inner) for inner in lists)
? [[1, 2], [3]] | [[]] | [[], ["a", "b", "c"]] | [[5]]

column(rows, index)
Each row is a list. Return a list with the item at the given index of every row.
    return [row[index] for row in rows]
? [[1, 2], [3, 4]], 1 | [], 0 | [["a", "b"]], 0 | [[1, 2, 3], [4, 5, 6]], 2

## build_lists
filled(value, n)
Return a list that holds value n times.
    return [value] * n
? 0, 3 | "a", 1 | 5, 0 | True, 2

zeros_and_ones(n)
Return a list of n items that starts with 0 and alternates between 0 and 1.
    return [i % 2 for i in range(n)]
? 4 | 1 | 0 | 5

index_list(items)
Return a list of all valid non-negative indexes of the list, in increasing order.
    return list(range(len(items)))
? ["a", "b"] | [] | [5] | [7, 7, 7, 7]
"""
