"""Families that turn one list into another. The format is told in `tasks.py`."""

TEXT = r"""
## change_every_number
double_numbers(numbers)
Return a new list with every number of the list multiplied by 2.
    return [number * 2 for number in numbers]
? [1, 2] | [] | [-3, 5] | [10]

add_to_all(numbers, amount)
Return a new list with amount added to every number of the list.
    return [number + amount for number in numbers]
? [1, 2], 3 | [], 1 | [-3, 5], -1 | [10], 5

square_numbers(numbers)
Return a new list with the square of every number of the list.
    return [number * number for number in numbers]
? [1, 2] | [] | [-3, 5] | [10]

negate_numbers(numbers)
Return a new list in which every number of the list has its sign changed.
    return [-number for number in numbers]
? [1, 2] | [] | [-3, 5] | [10]

## convert_every_item
convert_to_strings(numbers)
Return a list with every integer of the list converted to a string.
    return [str(number) for number in numbers]
? [1, 2] | [] | [-3, 50] | [0]

convert_to_integers(strings)
Return a list with every string of the list converted to an integer.
    return [int(string) for string in strings]
? ["1", "2"] | [] | ["-3", "50"] | ["007"]

even_flags(numbers)
Return a list that holds True for every even integer of the list and False for every odd one.
    return [number % 2 == 0 for number in numbers]
? [1, 2] | [] | [-3, 50, 4] | [0]

absolute_values(numbers)
Return a list with the absolute value of every number of the list.
    return [abs(number) for number in numbers]
? [1, -2] | [] | [-3, 50, 0] | [-7]

## keep_some_numbers
filter_even_numbers(numbers)
Return a list of the even integers of the list, in the same order.
    return [number for number in numbers if number % 2 == 0]
? [1, 2, 4] | [] | [3, 5] | [0, 7, -2]

filter_multiples(numbers, k)
Return a list of the integers of the list that are divisible by k, in the same order.
    return [number for number in numbers if number % k == 0]
? [1, 2, 4, 6], 2 | [], 3 | [3, 5, 10], 5 | [7, 8], 10

drop_odd(numbers)
Return the list without its odd integers. Keep the order of the others.
    return [number for number in numbers if number % 2 != 1]
? [1, 3, 6] | [] | [3, 5] | [4, 7, 2, 4]

: print_even_numbers
Read one line with integers separated by spaces. Print the even ones in the same order, each on
its own line. At least one of them is even.
    for number in map(int, input().split()):
        if number % 2 == 0:
            print(number)
? "1 2 3 4\n" | "8\n" | "5 10\n" | "6 7 6\n"

## keep_by_size
filter_positive_numbers(numbers)
Return a list of the numbers of the list that are larger than zero, in the same order.
    return [number for number in numbers if number > 0]
? [1, -2, 4] | [] | [0, -5] | [3, 2]

filter_greater_than(numbers, limit)
Return a list of the numbers of the list that are larger than limit, in the same order.
    return [number for number in numbers if number > limit]
? [1, 5, 3], 2 | [], 0 | [4, 4], 4 | [9, 10, 11], 8

keep_between(numbers, low, high)
Return a list of the numbers of the list that are at least low and at most high, in the same
order.
    return [number for number in numbers if low <= number <= high]
? [1, 5, 3], 2, 5 | [], 0, 9 | [4, 8, 4], 4, 4 | [1, 2], 5, 6

replace_negative(numbers)
Return a new list in which every number smaller than zero is replaced by 0.
    return [max(0, number) for number in numbers]
? [1, -2, 4] | [] | [0, -5] | [3, 2]

## remove_items
remove_value(items, value)
Return a new list without any items that are equal to value.
    return [item for item in items if item != value]
? [1, 2, 1], 1 | [], 3 | ["a", "b"], "c" | [5, 5], 5

remove_empty_strings(words)
Return a new list without the empty strings of the list.
    return [word for word in words if word]
? ["a", "", "b"] | [] | [""] | ["x", "y"]

remove_none(items)
Return a new list without the items that are None.
    return [item for item in items if item is not None]
? [1, None, 2] | [] | [None] | [0, None, ""]

remove_duplicate_items(items)
Return a new list in which every item of the list occurs only once, in the order of first
occurrence.
    return list(dict.fromkeys(items))
? [1, 2, 1, 3, 2] | [] | ["b", "a", "b"] | [4]

## ends_of_lists
get_first_element(items)
Return the first item of the list. The list is never empty.
    return items[0]
? [3, 4] | ["x"] | [9, 8, 7] | [[1], [2]]

get_last_element(items)
Return the last item of the list. The list is never empty.
    return items[-1]
? [3, 4] | ["x"] | [9, 8, 7] | [[1], [2]]

ends_of_list(items)
Return a list with two items: the first and the last item of the non-empty list.
    return [items[0], items[-1]]
? [3, 4, 5] | ["x"] | [9, 8] | ["a", "b", "c"]

first_or_none(items)
Return the first item of the list, or None if the list is empty.
    return items[0] if items else None
? [3, 4] | [] | ["x"] | [9, 8, 7]

## parts_of_lists
first_n_items(items, n)
Return a list of the first n items of the list, or the whole list if it has fewer than n items.
    return items[:n]
? [1, 2, 3], 2 | [], 1 | ["a"], 5 | [4, 5], 0

skip_first(items, n)
Return a list of all items of the list except the first n.
    return items[n:]
? [1, 2, 3], 2 | [], 1 | ["a"], 5 | [4, 5], 0

last_n_items(items, n)
Return a list of the last n items of the list. The integer n is at least 1 and at most the
length of the list.
    return items[-n:]
? [1, 2, 3], 2 | ["a"], 1 | [4, 5], 2 | [9, 8, 7, 6], 1

trim_ends(items)
Return the list without its first and its last item. The list has at least two items.
    return items[1:-1]
? [1, 2, 3] | [4, 5] | ["a", "b", "c", "d"] | [0, 0, 0, 0]

## every_other
even_positions(items)
Return a list of the items at index 0, 2, 4 and so on.
    return items[::2]
? [1, 2, 3] | [] | ["a"] | [4, 5, 6, 7]

odd_positions(items)
Return a list of the items at index 1, 3, 5 and so on.
    return items[1::2]
? [1, 2, 3] | [] | ["a"] | [4, 5, 6, 7]

first_half(items)
Return the first half of a list whose length is even.
    return items[: len(items) // 2]
? [1, 2] | [] | ["a", "b", "c", "d"] | [4, 5, 6, 7, 8, 9]

split_in_half(items)
Return a list with two lists: the first half and the second half of a list whose length is even.
    half = len(items) // 2
    return [items[:half], items[half:]]
? [1, 2] | [] | ["a", "b", "c", "d"] | [4, 5, 6, 7, 8, 9]

## reversing_and_turning
reverse_items(items)
Return a new list with the items of the list in reverse order.
    return items[::-1]
? [1, 2, 3] | [] | ["a", "b"] | [5, 5, 4]

move_first_to_end(items)
Return a new list in which the first item of the non-empty list is moved to the end.
    return [*items[1:], items[0]]
? [1, 2, 3] | ["a"] | ["x", "y"] | [5, 5, 4]

swap_ends(items)
Return a new list in which the first and the last item are exchanged. The list has at least two
items.
    return [items[-1], *items[1:-1], items[0]]
? [1, 2, 3] | ["a", "b"] | [4, 5, 6, 7] | [0, 1]

: print_backwards
Read one line with words separated by spaces. Print the words in reverse order, separated by
spaces.
    print(*input().split()[::-1])
? "a b c\n" | "hello\n" | "one two\n" | "1 2 3 4\n"

## sorting_lists
sort_numbers(numbers)
Return a new list with the numbers sorted from smallest to largest.
    return sorted(numbers)
? [3, 1, 2] | [] | [5, -1] | [2, 2, 1]

sort_numbers_descending(numbers)
Return a new list with the numbers sorted from largest to smallest.
    return sorted(numbers, reverse=True)
? [3, 1, 2] | [] | [-1, 5] | [2, 1, 2]

three_smallest(numbers)
Return a list of the three smallest numbers of the list, sorted from small to large. The list
has at least three numbers.
    return sorted(numbers)[:3]
? [3, 1, 2] | [9, 8, 7, 6] | [5, -1, 0, 2] | [2, 2, 1, 1]

: print_sorted
Read one line with integers separated by spaces. Print them sorted from smallest to largest,
separated by spaces.
    print(*sorted(map(int, input().split())))
? "3 1 2\n" | "10 9\n" | "5 -1 0\n" | "7\n"

## sorting_with_key
sort_by_length(words)
Return a new list with the words sorted from shortest to longest. Words of equal length keep
their order.
    return sorted(words, key=len)
? ["ccc", "a", "bb"] | [] | ["dd", "aa", "b"] | ["x"]

sort_by_absolute(numbers)
Return a new list with the numbers sorted by their absolute value, smallest first. No two
absolute values are equal.
    return sorted(numbers, key=abs)
? [3, -1, 2] | [] | [-5, 4] | [0, -2, 1]

sort_pairs(pairs)
Each item of the list is a list of two numbers. Return a new list of these pairs sorted by their
second number, smallest first. No two second numbers are equal.
    return sorted(pairs, key=lambda pair: pair[1])
? [[1, 9], [2, 3]] | [] | [[0, 0]] | [[5, 2], [4, 1], [3, 7]]
"""
