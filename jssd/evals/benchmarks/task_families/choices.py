"""Families about conditions and decisions. The format is told in `tasks.py`."""

TEXT = r"""
## parity
is_even_number(n)
Return True if the integer n is even, otherwise False.
    return n % 2 == 0
? 2 | 7 | 0 | -3

both_odd(a, b)
Return True if both integers a and b are odd, otherwise False.
    return a % 2 == 1 and b % 2 == 1
? 1, 3 | 1, 2 | 4, 6 | 7, 7

same_parity(a, b)
Return True if the integers a and b are both even or both odd, otherwise False.
    return a % 2 == b % 2
? 1, 3 | 1, 2 | 4, 6 | 7, 10

: print_even_or_odd
Read one non-negative integer. Print "even" if it is even, otherwise print "odd".
    print("odd" if int(input()) % 2 else "even")
? "2\n" | "7\n" | "0\n" | "99\n"

## divisibility
is_divisor(a, b)
Return True if the positive integer b is divisible by the positive integer a, otherwise False.
    return b % a == 0
? 3, 6 | 2, 7 | 5, 5 | 8, 4

divisible_by_both(n, a, b)
Return True if n is divisible by a and also by b, otherwise False. All three are positive integers.
    return n % a == 0 and n % b == 0
? 12, 3, 4 | 9, 3, 2 | 10, 5, 5 | 7, 2, 3

ends_in_zero(n)
Return True if the last decimal digit of the non-negative integer n is 0, otherwise False.
    return n % 10 == 0
? 10 | 7 | 0 | 101

is_leap(year)
Return True if the year is a leap year, otherwise False. A leap year is divisible by 4, but not by
100 unless it is also divisible by 400.
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
? 2000 | 1900 | 2024 | 2023

## signs
is_negative_number(x)
Return True if the number x is smaller than zero, otherwise False.
    return x < 0
? -1 | 0 | 5 | -0.5

sign_word(x)
Return the string "positive" if x is larger than zero, "negative" if it is smaller than zero, and
"zero" otherwise.
    if x > 0:
        return "positive"
    return "negative" if x < 0 else "zero"
? 4 | -3 | 0 | 0.5

opposite_signs(a, b)
Return True if one of the numbers a and b is larger than zero and the other one is smaller than
zero, otherwise False.
    return a * b < 0
? 1, -3 | -1, -2 | 4, 0 | -7, 7

: print_sign
Read one integer. Print "plus" if it is larger than zero, "minus" if it is smaller than zero, and
"zero" otherwise.
    n = int(input())
    print("plus" if n > 0 else "minus" if n < 0 else "zero")
? "4\n" | "-3\n" | "0\n" | "100\n"

## limits
is_in_range(x, low, high)
Return True if x is at least low and at most high, otherwise False.
    return low <= x <= high
? 5, 0, 10 | -1, 0, 10 | 10, 0, 10 | 11, 0, 10

clamp_value(x, low, high)
Return low if x is smaller than low, high if x is larger than high, and x otherwise.
    return max(low, min(x, high))
? 5, 0, 10 | -1, 0, 10 | 99, 0, 10 | 3, 3, 3

at_least_zero(x)
Return x if it is larger than zero, otherwise return 0.
    return max(0, x)
? 5 | -1 | 0 | 2.5

distance_to_ten(n)
Return the absolute difference between the integer n and 10.
    return abs(n - 10)
? 5 | 10 | 12 | -1

## grades
passed(score)
Return the string "pass" if the score is at least 50, otherwise the string "fail".
    return "pass" if score >= 50 else "fail"
? 50 | 49 | 100 | 0

letter_grade(score)
Return "A" if the score is at least 90, "B" if it is at least 75, "C" if it is at least 50, and
"D" otherwise.
    if score >= 90:
        return "A"
    if score >= 75:
        return "B"
    return "C" if score >= 50 else "D"
? 95 | 90 | 75 | 60 | 10

ticket_price(age)
Return 0 if the age is smaller than 6, 5 if it is smaller than 18, and 10 otherwise.
    if age < 6:
        return 0
    return 5 if age < 18 else 10
? 3 | 6 | 17 | 18 | 40

: print_pass_or_fail
Read one integer, a score. Print "pass" if it is at least 60, otherwise print "fail".
    print("pass" if int(input()) >= 60 else "fail")
? "60\n" | "59\n" | "100\n" | "0\n"

## fizz
fizz(n)
Return the string "Fizz" if n is divisible by 3, otherwise return the integer n as a string.
    return "Fizz" if n % 3 == 0 else str(n)
? 3 | 4 | 9 | 10

fizz_buzz(n)
Return "FizzBuzz" if n is divisible by both 3 and 5, "Fizz" if only by 3, "Buzz" if only by 5, and
the integer n as a string otherwise.
    if n % 15 == 0:
        return "FizzBuzz"
    if n % 3 == 0:
        return "Fizz"
    return "Buzz" if n % 5 == 0 else str(n)
? 15 | 9 | 10 | 7 | 30

count_fizz(n)
Return how many integers from 1 to n, including n, are divisible by 3 but not by 5.
    return sum(i % 3 == 0 and i % 5 != 0 for i in range(1, n + 1))
? 3 | 2 | 15 | 20

## logic
exactly_one(a, b)
Return True if exactly one of the booleans a and b is True, otherwise False.
    return a != b
? True, False | True, True | False, False | False, True

majority(a, b, c)
Return True if at least two of the three booleans are True, otherwise False.
    return a + b + c >= 2
? True, True, False | True, False, False | False, True, True | False, False, False

neither(a, b)
Return True if both booleans a and b are False, otherwise False.
    return not a and not b
? True, False | True, True | False, False | False, True

count_true(flags)
Return how many of the booleans in the list are True.
    return flags.count(True)
? [True, False, True] | [] | [False] | [True, True, True]

## comparisons
which_is_larger(a, b)
Return "first" if a is larger than b, "second" if b is larger than a, and "equal" otherwise.
    if a > b:
        return "first"
    return "second" if b > a else "equal"
? 2, 1 | 1, 2 | 3, 3 | -1, -5

all_equal(a, b, c)
Return True if the three values a, b and c are equal, otherwise False.
    return a == b == c
? 1, 1, 1 | 1, 2, 1 | 1, 1, 2 | "x", "x", "x"

in_order(a, b, c)
Return True if a is smaller than b and b is smaller than c, otherwise False.
    return a < b < c
? 1, 2, 3 | 1, 3, 2 | 1, 1, 2 | -5, 0, 5

: print_in_order
Read one line with two different integers. Print the smaller one, a space, and the larger one.
    a, b = map(int, input().split())
    print(min(a, b), max(a, b))
? "1 2\n" | "9 -3\n" | "-5 -1\n" | "10 9\n"

## names_of_things
day_name(number)
Return the name of the weekday with the given number from 1 to 7, where 1 is "Monday" and 7 is
"Sunday".
    names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    return names[number - 1]
? 1 | 3 | 7 | 5

digit_word(n)
Return the English word for the digit n in lower case, from "zero" for 0 to "nine" for 9.
    words = "zero one two three four five six seven eight nine".split()
    return words[n]
? 0 | 1 | 5 | 9

traffic_light(color)
Return "stop" for the color "red", "wait" for "yellow" and "go" for "green".
    return {"red": "stop", "yellow": "wait", "green": "go"}[color]
? "red" | "yellow" | "green" | "red"

plural(word, count)
Return the word unchanged if count is 1. Otherwise return the word with an "s" added at the end.
    return word if count == 1 else word + "s"
? "cat", 1 | "dog", 2 | "car", 0 | "tree", 10

## simple_calculator
calculate(a, operator, b)
The operator is one of the strings "+", "-" and "*". Return the result of applying it to the
numbers a and b.
    if operator == "+":
        return a + b
    return a - b if operator == "-" else a * b
? 2, "+", 3 | 2, "-", 3 | 2, "*", 3 | 0, "+", 7

safe_divide(a, b)
Return a divided by b, or None if b is zero.
    return None if b == 0 else a / b
? 6, 3 | 1, 0 | 0, 5 | 7, 2

add_or_subtract(a, b, add)
Return a plus b if add is True, and a minus b if add is False.
    return a + b if add else a - b
? 2, 3, True | 2, 3, False | 0, 5, False | -1, 1, True

## game
rock_beats(first, second)
Both arguments are "rock", "paper" or "scissors". Return True if first beats second, otherwise
False. Rock beats scissors, scissors beats paper, and paper beats rock.
    return [first, second] in [["rock", "scissors"], ["scissors", "paper"], ["paper", "rock"]]
? "rock", "scissors" | "rock", "paper" | "paper", "rock" | "paper", "paper"

dice_sum(rolls)
Return the sum of the dice rolls in the list, but return 0 if any of the rolls is a 1.
    return 0 if 1 in rolls else sum(rolls)
? [2, 3] | [6, 1, 6] | [] | [4, 4, 4]

winner(names, scores)
The lists names and scores have the same length and are not empty. Return the name at the index of
the highest score. No two scores are equal.
    return names[scores.index(max(scores))]
? ["Ann", "Bob"], [3, 5] | ["Cy"], [0] | ["D", "E", "F"], [9, 1, 8] | ["G", "H"], [-5, -1]
"""
