"""Families that need a single operation. The format is told in `tasks.py`."""

TEXT = r"""
## number_powers
square_number(n)
Multiply the number n by itself and return the result.
    return n * n
? 3 | 0 | -4 | 10

cube_number(n)
Return the number n multiplied by itself two times, so that cube_number(2) is 8.
    return n * n * n
? 2 | 0 | -3 | 5

is_perfect_square(n)
Return True if the non-negative integer n is the square of an integer, otherwise False.
    return int(n**0.5) ** 2 == n
? 16 | 15 | 0 | 26 | 49

## comparing_numbers
is_greater(a, b)
Return True if a is greater than b, otherwise False.
    return a > b
? 2, 1 | 1, 2 | 3, 3 | -1, -5

is_smaller_or_equal(a, b)
Return True if a is smaller than b or equal to b, otherwise False.
    return a <= b
? 2, 1 | 1, 2 | 3, 3 | -1, -5

is_zero(n)
Return True if the number n is equal to 0, otherwise False.
    return n == 0
? 0 | 1 | -1 | 0.5

is_positive_number(n)
Return True if the number n is greater than 0, otherwise False.
    return n > 0
? 1 | 0 | -1 | 0.5

## sizes_of_things
string_length(s)
Return the number of characters in the string s.
    return len(s)
? "abc" | "" | "hello world" | " "

number_of_elements(elements)
Return how many elements the list has.
    return len(elements)
? [1, 2, 3] | [] | ["a"] | [[1, 2], [3]]

is_empty_list(elements)
Return True if the list has no elements, otherwise False.
    return len(elements) == 0
? [1, 2, 3] | [] | [""] | [0]

is_longer_than(s, length)
Return True if the string s has more than length characters, otherwise False.
    return len(s) > length
? "abc", 2 | "", 0 | "hello", 5 | "x", 3

## containing
contains_element(elements, element)
Return True if the list holds the element, otherwise False.
    return element in elements
? [1, 2], 2 | [], 1 | ["a", "b"], "c" | [0], 0

contains_substring(text, part)
Return True if the string part occurs somewhere in the string text, otherwise False.
    return text.find(part) >= 0
? "hello", "ell" | "abc", "d" | "", "x" | "abc", "abc"

get_element(elements, index)
Return the element of the list at the given index. The index is never out of range.
    return elements[index]
? [1, 2, 3], 0 | ["a", "b"], 1 | [7, 8, 9], 2 | [5], 0

concatenate_strings(first, second)
Return one string that consists of first followed by second.
    return first + second
? "ab", "cd" | "", "x" | "hello ", "world" | "1", "2"

## circles_and_cylinders
diameter_of_circle(radius)
Return the diameter of a circle with the given radius. The diameter is two times the radius.
    return 2 * radius
? 1 | 2.5 | 0 | 10

radius_of_circle(diameter)
Return the radius of a circle with the given diameter, as a float.
    return diameter / 2
? 2 | 5 | 0 | 10

## number_words
is_odd_number(n)
Return True if the integer n is odd, otherwise False.
    return n % 2 != 0
? 1 | 2 | 0 | -3

absolute_number(n)
Return the absolute value of the number n.
    return abs(n)
? 4 | -4 | 0 | -2.5

divide_numbers(a, b)
Divide a by b and return the result as a float. The number b is never 0.
    return a / b
? 6, 3 | 1, 2 | 0, 5 | -9, 3
"""
