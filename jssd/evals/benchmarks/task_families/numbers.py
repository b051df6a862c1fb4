"""Families about single numbers: arithmetic, digits, divisors. The format is told in `tasks.py`."""

TEXT = r"""
## two_numbers
add_two_numbers(a, b)
Return the sum of the two numbers a and b.
    return a + b
? 1, 2 | 0, 0 | -3, 1 | 10, 5

subtract_numbers(a, b)
Subtract b from a and return the result.
    return a - b
? 4, 5 | 0, 0 | -2, 1 | 1, 1

multiply_numbers(a, b)
Return the product of the two numbers a and b.
    return a * b
? 2, 3 | 0, 4 | -1, 5 | 6, 6

sum_of_two_squares(a, b)
Return the square of a plus the square of b.
    return a * a + b * b
? 3, 4 | 0, 0 | -2, 1 | 5, 5

## three_numbers
sum_of_three(a, b, c)
Return the sum of the three numbers a, b and c.
    return a + b + c
? 1, 2, 3 | 0, 0, 0 | -5, 2, 1 | 10, 20, 30

product_of_three(a, b, c)
Return the product of the three numbers a, b and c.
    return a * b * c
? 1, 2, 3 | 4, 0, 9 | -1, 2, 5 | 2, 2, 2

mean_of_three(a, b, c)
Return the average of the three numbers a, b and c.
    return (a + b + c) / 3
? 1, 2, 3 | 0, 0, 0 | 4, 4, 10 | -3, 0, 9

middle_of_three(a, b, c)
Return the number that is in the middle when a, b and c are sorted.
    return sorted([a, b, c])[1]
? 1, 2, 3 | 9, 1, 5 | 7, 7, 2 | 3, -1, -8 | 2, 8, 4

## change_by_constant
add_ten(n)
Return n plus 10.
    return n + 10
? 0 | 5 | -10 | 32

subtract_seven(n)
Return n minus 7.
    return n - 7
? 0 | 7 | 20 | -3

triple(n)
Return three times the number n.
    return 3 * n
? 0 | 4 | -2 | 11

add_two(n)
Return the integer that is two larger than n.
    return n + 2
? 0 | 9 | -2 | 41

## halves_and_signs
half(x)
Return one half of the number x, as a float.
    return x / 2
? 4 | 7 | 0 | -3

negate(x)
Return the number x with its sign changed.
    return -x
? 5 | -8 | 0 | 2.5

reciprocal(x)
Return 1 divided by x. The number x is never zero.
    return 1 / x
? 2 | 4 | -8 | 0.5

fourth_power(x)
Return x raised to the fourth power.
    return x**4
? 2 | -1 | 0 | 3 | 10

## differences
distance_between(a, b)
Return the absolute difference between the numbers a and b.
    return abs(a - b)
? 3, 8 | 8, 3 | -2, 2 | 5, 5

squared_difference(a, b)
Return the square of the difference between a and b.
    return (a - b) ** 2
? 5, 3 | 3, 5 | 0, 0 | -1, 4

sum_times_difference(a, b)
Return the sum of a and b multiplied by the difference a minus b.
    return (a + b) * (a - b)
? 5, 3 | 3, 5 | 4, 4 | 0, 2

midpoint(a, b)
Return the number that is exactly halfway between a and b, as a float.
    return (a + b) / 2
? 0, 10 | 1, 2 | -4, 4 | 7, 7

## larger_smaller
get_maximum(a, b)
Return the larger of the two numbers a and b.
    return max(a, b)
? 3, 8 | 9, 2 | -5, -1 | 4, 4

get_minimum(a, b)
Return the smaller of the two numbers a and b.
    return min(a, b)
? 3, 8 | 9, 2 | -5, -1 | 4, 4

smallest_of_four(a, b, c, d)
Return the smallest of the four numbers a, b, c and d.
    return min(a, b, c, d)
? 4, 3, 2, 1 | 1, 2, 3, 4 | 5, -5, 0, 2 | 7, 7, 6, 7

larger_absolute(a, b)
Return the larger of the absolute values of a and b.
    return max(abs(a), abs(b))
? 3, -8 | -9, 2 | 5, 5 | 0, 1

## remainders
last_digit(n)
Return the last decimal digit of the non-negative integer n, as an integer.
    return n % 10
? 123 | 5 | 0 | 70 | 999

remove_last_digit(n)
Return the non-negative integer n without its last decimal digit. For a one-digit number
return 0.
    return n // 10
? 123 | 5 | 0 | 70 | 9999

tens_digit(n)
Return the tens digit of the non-negative integer n, or 0 when n is smaller than 10.
    return n // 10 % 10
? 123 | 5 | 70 | 1000 | 98

minute_on_clock(total)
Return which minute of the hour (0 to 59) it is when total minutes have passed since
midnight.
    return total % 60
? 61 | 0 | 59 | 120 | 1439

## quotient_pairs
quotient_and_remainder(a, b)
Return a list with two integers: a divided by b, rounded down, and the remainder of that division.
Both a and b are positive.
    return [a // b, a % b]
? 7, 3 | 6, 2 | 1, 5 | 100, 9

full_boxes(items, size)
Return how many boxes can be filled completely with the given number of items when each box
holds size items.
    return items // size
? 10, 3 | 9, 3 | 2, 5 | 0, 4

left_over(items, people)
Return how many items are left over after they are shared equally among the people.
    return items % people
? 10, 3 | 9, 3 | 2, 5 | 0, 4

boxes_needed(items, size)
Return how many boxes are needed to hold all items when each box holds size items. The last
box may be partly full.
    return (items + size - 1) // size
? 10, 3 | 9, 3 | 2, 5 | 0, 4

## rounding
round_to_two(x)
Return the number x rounded to two decimal places.
    return round(x, 2)
? 3.14159 | 2.5 | -1.239 | 10.0 | 0.126

round_up(x)
Return the smallest integer that is not smaller than the number x.
    import math

    return math.ceil(x)
? 2.1 | 3.0 | -1.5 | 0.9

integer_part(x)
Return the non-negative number x without its fractional part, as an integer.
    return int(x)
? 2.9 | 3.0 | 0.5 | 17.25

## digit_sums
sum_of_digits(n)
Add up the decimal digits of the non-negative integer n and return the result.
    return sum(int(digit) for digit in str(n))
? 123 | 0 | 99 | 1000 | 7

product_of_digits(n)
Return the product of the decimal digits of the positive integer n.
    result = 1
    for digit in str(n):
        result *= int(digit)
    return result
? 123 | 9 | 505 | 222

count_even_digits(n)
Return how many decimal digits of the positive integer n are even.
    return sum(int(digit) % 2 == 0 for digit in str(n))
? 1234 | 135 | 2008 | 6

: print_digit_total
Read one non-negative integer from the input and print the sum of its decimal digits.
    print(sum(int(digit) for digit in input().strip()))
? "123\n" | "0\n" | "99\n" | "1000\n"

## digit_views
largest_digit(n)
Return the largest decimal digit of the non-negative integer n, as an integer.
    return int(max(str(n)))
? 1924 | 5 | 0 | 100 | 373

get_digits(n)
Return a list of the decimal digits of the non-negative integer n, from left to right, as
integers.
    return [int(digit) for digit in str(n)]
? 123 | 0 | 505 | 70

count_number_of_digits(n)
Return how many decimal digits the positive integer n has.
    return len(str(n))
? 123 | 5 | 1000 | 42

reverse_digits(n)
Return a string with the decimal digits of the non-negative integer n in reverse order.
    return str(n)[::-1]
? 123 | 5 | 120 | 4455

## divisors
count_divisors(n)
Return how many positive integers divide the positive integer n without remainder.
    return sum(n % d == 0 for d in range(1, n + 1))
? 6 | 1 | 7 | 12 | 16

sum_of_divisors(n)
Return the sum of all positive divisors of the positive integer n, including 1 and n.
    return sum(d for d in range(1, n + 1) if n % d == 0)
? 6 | 2 | 7 | 12 | 16

smallest_divisor(n)
Return the smallest divisor of n that is larger than 1. The integer n is at least 2.
    d = 2
    while n % d != 0:
        d += 1
    return d
? 9 | 2 | 13 | 35 | 12

proper_divisors(n)
Return a sorted list of the positive divisors of n that are smaller than n. The integer n is at
least 2.
    return [d for d in range(1, n) if n % d == 0]
? 6 | 2 | 7 | 12

## sums_to_n
sum_of_first_n(n)
Return the sum of all integers from 1 to n, including n. For n equal to 0 return 0.
    return sum(range(1, n + 1))
? 1 | 5 | 10 | 0 | 100

sum_of_squares_up_to(n)
Return the sum of the squares of the integers from 1 to n, including n. For n equal to 0
return 0.
    return sum(i * i for i in range(1, n + 1))
? 1 | 3 | 5 | 0

sum_of_evens_up_to(n)
Return the sum of the even integers from 0 to n, including n when n is even.
    return sum(range(0, n + 1, 2))
? 1 | 4 | 7 | 0 | 10

: print_sum_up_to
Read one positive integer n and print the sum of all integers from 1 to n.
    n = int(input())
    print(sum(range(1, n + 1)))
? "1\n" | "5\n" | "10\n" | "100\n"

## products_and_powers
compute_factorial(n)
Return the product of all integers from 1 to n. For n equal to 0 return 1.
    result = 1
    for i in range(1, n + 1):
        result *= i
    return result
? 1 | 3 | 5 | 0 | 8

power_of_two(n)
Return 2 raised to the power n, where n is a non-negative integer.
    return 2**n
? 0 | 1 | 5 | 10

calculate_power(base, exponent)
Return base raised to the power exponent. Both are integers and exponent is not negative.
    return base**exponent
? 2, 3 | 5, 0 | -2, 3 | 10, 4

powers_of_two(n)
Return a list of the first n powers of two, starting with 1.
    return [2**i for i in range(n)]
? 1 | 4 | 0 | 7
"""
