"""Families that boil a list down to one value. The format is told in `tasks.py`."""

TEXT = r"""
## list_totals
sum_of_list(numbers)
Return the sum of all numbers in the list. For an empty list return 0.
    return sum(numbers)
? [1, 2, 3] | [] | [-1, 5] | [10]

product_of_list(numbers)
Return the product of all numbers in the list. For an empty list return 1.
    result = 1
    for number in numbers:
        result *= number
    return result
? [1, 2, 3] | [] | [-1, 5] | [10, 10, 2]

sum_plus_length(numbers)
Return the sum of the numbers in the list plus the length of the list.
    return sum(numbers) + len(numbers)
? [1, 2, 3] | [] | [-1, 5] | [10]

: print_total
Read one line with integers separated by spaces and print their sum.
    print(sum(map(int, input().split())))
? "1 2 3\n" | "10\n" | "-1 5 7 7\n" | "0 0\n"

## list_averages
calculate_mean(numbers)
Return the average of the numbers in the list. The list is never empty.
    return sum(numbers) / len(numbers)
? [1, 2, 3] | [4] | [2, 3] | [-1, 1]

mean_or_zero(numbers)
Return the average of the numbers in the list. For an empty list return 0.
    return sum(numbers) / len(numbers) if numbers else 0
? [1, 2, 3] | [] | [2, 3] | [10]

above_average(numbers)
Return how many numbers in the non-empty list are larger than the average of the list.
    average = sum(numbers) / len(numbers)
    return sum(number > average for number in numbers)
? [1, 2, 3] | [4] | [0, 5, 5, 6] | [1, 1, 10]

: print_average
Read one line with integers separated by spaces. Print their average rounded down to an
integer.
    numbers = list(map(int, input().split()))
    print(sum(numbers) // len(numbers))
? "1 2 3\n" | "10\n" | "1 2\n" | "4 8 1 1\n"

## list_extremes
find_largest(numbers)
Return the largest number in the list. The list is never empty.
    return max(numbers)
? [1, 5, 3] | [-4, -2, -9] | [7] | [2, 2]

find_smallest(numbers)
Return the smallest number in the list. The list is never empty.
    return min(numbers)
? [4, 1, 3] | [-4, -2, -9] | [7] | [2, 2]

max_min_difference(numbers)
Return the largest number in the non-empty list minus the smallest number in it.
    return max(numbers) - min(numbers)
? [1, 5, 3] | [-4, -2, -9] | [7] | [2, 10]

: print_largest
Read one line with integers separated by spaces and print the largest of them.
    print(max(map(int, input().split())))
? "1 5 3\n" | "-4 -2 -9\n" | "7\n" | "10 9 8\n"

## extreme_places
index_of_maximum(numbers)
Return the index of the largest number in the non-empty list. If it occurs several times,
return the index of its first occurrence.
    return numbers.index(max(numbers))
? [1, 5, 3] | [7] | [2, 4, 4] | [-3, -2, -1]

without_largest(numbers)
Return a sorted list of the numbers without one occurrence of the largest. The list is never
empty.
    return sorted(numbers)[:-1]
? [1, 5, 3] | [7] | [4, 4, 2] | [-3, -2]

second_smallest(numbers)
Return the second smallest number in the list. The list holds at least two numbers, and all are
different.
    return sorted(numbers)[1]
? [1, 5, 3] | [9, 4] | [-3, -2, -7] | [10, 30, 20, 40]

two_largest_sum(numbers)
Return the sum of the two largest numbers in a list with at least two numbers.
    return sum(sorted(numbers)[-2:])
? [1, 5, 3] | [9, 4] | [4, 4, 2] | [-3, -2, -7]

## counts_by_sign
count_positive_numbers(numbers)
Return how many numbers in the list are larger than zero.
    return sum(number > 0 for number in numbers)
? [1, -2, 4] | [] | [0, -5] | [3, 3, 3]

count_zeros(numbers)
Return how many numbers in the list are equal to zero.
    return sum(number == 0 for number in numbers)
? [1, 0, 4, 0] | [] | [2, -5] | [0, 0, 0]

sum_of_negative_numbers(numbers)
Return the sum of the numbers in the list that are smaller than zero.
    return sum(number for number in numbers if number < 0)
? [1, -2, 4] | [] | [-1, -5] | [3, 3]

: count_negative_input
Read one line with integers separated by spaces. Print how many of them are negative.
    print(sum(int(word) < 0 for word in input().split()))
? "1 -2 3\n" | "5\n" | "-1 -1 -1\n" | "0 -4 2 -9\n"

## parity_totals
count_even_numbers(numbers)
Return how many integers in the list are even.
    return sum(number % 2 == 0 for number in numbers)
? [1, 2, 4] | [] | [3, 5] | [0, 2, 8]

sum_of_odd_numbers(numbers)
Return the sum of the odd integers in the list.
    return sum(number for number in numbers if number % 2 == 1)
? [1, 2, 3] | [] | [2, 4] | [7, 7, 1]

evens_minus_odds(numbers)
Return the sum of the even integers in the list minus the sum of the odd integers.
    return sum(number if number % 2 == 0 else -number for number in numbers)
? [1, 2, 3] | [] | [2, 4] | [7, 7, 1]

: print_sum_of_evens
Read one line with integers separated by spaces. Print the sum of the even ones.
    print(sum(n for n in map(int, input().split()) if n % 2 == 0))
? "1 2 3 4\n" | "5\n" | "10 10\n" | "7 8 9\n"

## counts_against_limit
count_greater_than(numbers, limit)
Return how many numbers in the list are larger than limit.
    return len([number for number in numbers if number > limit])
? [1, 5, 3], 2 | [], 0 | [4, 4], 4 | [9, 10, 11], 8

sum_less_than(numbers, limit)
Return the sum of the numbers in the list that are smaller than limit.
    return sum(number for number in numbers if number < limit)
? [1, 5, 3], 4 | [], 0 | [4, 4], 4 | [9, 10, 11], 11

count_in_range(numbers, low, high)
Return how many numbers in the list are at least low and at most high.
    return sum(low <= number <= high for number in numbers)
? [1, 5, 3], 2, 5 | [], 0, 9 | [4, 4, 7], 4, 4 | [1, 2, 3], 7, 9

## squares_of_lists
sum_of_squared_numbers(numbers)
Return the sum of the squares of the numbers in the list. For an empty list return 0.
    return sum(number**2 for number in numbers)
? [1, 2, 3] | [] | [-2] | [0, 5]

sum_of_absolute_values(numbers)
Return the sum of the absolute values of the numbers in the list.
    return sum(abs(number) for number in numbers)
? [1, -2, 3] | [] | [-2] | [0, 5, -5]

dot_product(a, b)
The lists a and b have the same length. Multiply each number in a by the number at the same
index in b, and return the sum of the products.
    return sum(x * y for x, y in zip(a, b))
? [1, 2], [3, 4] | [], [] | [5], [-1] | [1, 0, 2], [7, 8, 9]

alternating_sum(numbers)
Return the first number of the list minus the second plus the third minus the fourth and so
on. For an empty list return 0.
    return sum(numbers[::2]) - sum(numbers[1::2])
? [1, 2, 3] | [] | [5] | [1, 10, 2, 20]

## list_tests_all
all_even(numbers)
Return True if every integer in the list is even, otherwise False. For an empty list return
True.
    return all(number % 2 == 0 for number in numbers)
? [2, 4] | [] | [2, 3] | [1] | [0]

any_negative_number(numbers)
Return True if at least one number in the list is smaller than zero, otherwise False.
    return any(number < 0 for number in numbers)
? [1, -1] | [] | [0, 3] | [-5]

all_elements_equal(items)
Return True if all items of the list are equal, otherwise False. For an empty list return
True.
    return len(set(items)) <= 1
? [2, 2] | [] | [2, 3] | ["a", "a", "b"] | ["x"]

all_shorter_than(words, length)
Return True if every word in the list has fewer than length characters, otherwise False.
    return all(len(word) < length for word in words)
? ["a", "bb"], 3 | [], 1 | ["abc", "d"], 3 | ["hello"], 2

## order_tests
is_increasing(numbers)
Return True if every number in the list is larger than the one before it, otherwise False. For
an empty list and for a list with one number return True.
    return all(a < b for a, b in zip(numbers, numbers[1:]))
? [1, 2, 3] | [] | [1, 1] | [3, 2] | [5]

is_sorted(numbers)
Return True if the list is sorted from small to large, where equal neighbors are allowed.
Otherwise return False.
    return numbers == sorted(numbers)
? [1, 2, 2, 3] | [] | [3, 2] | [1, 5, 4]

is_palindrome_list(items)
Return True if the list is equal to its own reverse, otherwise False.
    return items == items[::-1]
? [1, 2, 1] | [] | [1, 2] | ["a", "b", "b", "a"] | [1, 2, 3]

count_rises(numbers)
Return how many numbers in the list are larger than the number directly before them.
    return sum(b > a for a, b in zip(numbers, numbers[1:]))
? [1, 2, 3] | [] | [1, 1, 0] | [3, 2, 5, 9] | [5]

## repeats
has_repeated_elements(items)
Return True if at least one item occurs more than once in the list, otherwise False.
    return len(items) != len(set(items))
? [1, 2, 1] | [] | [1, 2] | ["a", "a"]

count_unique_elements(items)
Return how many different items the list holds.
    return len(set(items))
? [1, 2, 1] | [] | ["a"] | [3, 3, 3, 4, 5]

most_common_element(items)
Return the item that occurs most often in the non-empty list. There is always exactly one such
item.
    return max(items, key=items.count)
? [1, 2, 1] | ["a"] | ["x", "y", "y"] | [4, 5, 5, 4, 5]

count_element(items, value)
Return how many items of the list are equal to value.
    return items.count(value)
? [1, 2, 1], 1 | [], 3 | ["a", "b"], "b" | [5, 5, 5], 5

## searching
first_even(numbers)
Return the first even integer in the list, or -1 if there is none.
    for number in numbers:
        if number % 2 == 0:
            return number
    return -1
? [1, 4, 6] | [] | [3, 5] | [8, 2]

index_of_element(items, value)
Return the index of the first item that is equal to value, or -1 if value does not occur in the
list.
    for i, item in enumerate(items):
        if item == value:
            return i
    return -1
? [1, 2, 3], 3 | [], 1 | [5, 5], 5 | ["a", "b"], "b" | [1], 2

last_index(items, value)
Return the index of the last item that is equal to value. The value always occurs in the list.
    return len(items) - 1 - items[::-1].index(value)
? [1, 2, 1], 1 | [5], 5 | ["a", "b", "b", "c"], "b" | [4, 3], 3

is_in_both(a, b, value)
Return True if value occurs in list a and also in list b, otherwise False.
    return value in a and value in b
? [1, 2], [2, 3], 2 | [1, 2], [3], 1 | [], [4], 4 | [5], [5, 6], 5
"""
