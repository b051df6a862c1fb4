"""Families about counting, number sequences and primes. The format is told in `tasks.py`."""

TEXT = r"""
## ranges
list_of_numbers(n)
Return a list of the integers from 1 to n, including n. For n equal to 0 return an empty list.
    return list(range(1, n + 1))
? 3 | 1 | 0 | 6

numbers_between(a, b)
Return a list of the integers from a to b, including both. The integer a is not larger than b.
    return list(range(a, b + 1))
? 2, 5 | 3, 3 | -1, 1 | 0, 4

count_down(n)
Return a list of the integers from n down to 0, where n is not negative.
    return list(range(n, -1, -1))
? 3 | 0 | 1 | 5

: print_count_down
Read one positive integer n and print the integers from n down to 1, each on its own line.
    for i in range(int(input()), 0, -1):
        print(i)
? "3\n" | "1\n" | "5\n" | "2\n"

## stepped_ranges
even_numbers_up_to(n)
Return a list of the even integers from 2 to n, including n when n is even.
    return list(range(2, n + 1, 2))
? 6 | 7 | 1 | 2

odds_below(n)
Return a list of the positive odd integers that are smaller than n.
    return list(range(1, n, 2))
? 6 | 7 | 1 | 2

first_multiples(k, count)
Return a list of the first count positive multiples of k, starting with k itself.
    return [k * i for i in range(1, count + 1)]
? 3, 4 | 5, 1 | 7, 0 | 10, 3

multiples_of_five_below(n)
Return a list of the non-negative multiples of 5 that are smaller than n, starting with 0.
    return list(range(0, n, 5))
? 11 | 10 | 1 | 0

## times_tables
multiplication_table(n)
Return a list of the products of n with 1, 2, 3 and so on up to 10.
    return [n * i for i in range(1, 11)]
? 1 | 3 | 0 | 12

: print_times_table
Read one integer n. Print n times 1, n times 2 and so on up to n times 5, each product on its
own line.
    n = int(input())
    for i in range(1, 6):
        print(n * i)
? "3\n" | "1\n" | "0\n" | "12\n"

## power_lists
list_of_squares(n)
Return a list of the squares of the integers from 1 to n. For n equal to 0 return an empty
list.
    return [i * i for i in range(1, n + 1)]
? 3 | 1 | 0 | 5

list_of_cubes(n)
Return a list of the cubes of the integers from 0 to n - 1.
    return [i**3 for i in range(n)]
? 3 | 1 | 0 | 4

: print_squares
Read one positive integer n. Print the squares of the integers from 1 to n, each on its own
line.
    for i in range(1, int(input()) + 1):
        print(i * i)
? "3\n" | "1\n" | "5\n" | "2\n"

## fibonacci
fibonacci_number(n)
Return the Fibonacci number with index n, where index 0 gives 0, index 1 gives 1, and every later
number is the sum of the two before it.
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
? 0 | 1 | 2 | 7 | 12

fibonacci_sequence(n)
Return a list of the first n Fibonacci numbers, starting with 0 and 1. For n equal to 0 return
an empty list.
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]
? 5 | 1 | 0 | 2 | 8

: print_fibonacci
Read one integer n that is at least 2 and print the first n Fibonacci numbers on one line,
separated by spaces. The sequence starts with 0 1.
    n = int(input())
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    print(*numbers)
? "2\n" | "5\n" | "3\n" | "8\n"

## collatz
collatz_step(n)
Return n divided by 2 as an integer if n is even, and 3 times n plus 1 if n is odd.
    return n // 2 if n % 2 == 0 else 3 * n + 1
? 6 | 7 | 1 | 16

halvings(n)
Return how many times the positive integer n can be divided by 2 until the result is odd.
    count = 0
    while n % 2 == 0:
        n //= 2
        count += 1
    return count
? 1 | 8 | 12 | 7 | 64

## counting_in_ranges
count_multiples(n, k)
Return how many integers from 1 to n, including n, are divisible by k.
    return n // k
? 10, 3 | 9, 3 | 2, 5 | 100, 10

multiples_sum(n)
Return the sum of all positive integers smaller than n that are divisible by 3 or by 5.
    return sum(i for i in range(1, n) if i % 3 == 0 or i % 5 == 0)
? 10 | 3 | 4 | 16

count_squares_up_to(n)
Return how many perfect squares there are among the integers from 1 to n, including n.
    return sum(1 for i in range(1, n + 1) if i * i <= n)
? 10 | 1 | 3 | 16 | 25

## saving_and_growth
savings_after(start, monthly, months)
Return how much money there is after the given number of months when we begin with start and
add the amount monthly each month.
    return start + monthly * months
? 100, 10, 5 | 0, 20, 3 | 50, 0, 7 | 10, 5, 0

after_doubling(start, times)
Return the value of start after it has been doubled the given number of times.
    return start * 2**times
? 1, 3 | 5, 1 | 7, 0 | 3, 4

steps_to_target(start, step, target)
Beginning at start, we add step again and again. Return after how many additions the value is
at least target for the first time. The integer step is positive.
    count = 0
    while start < target:
        start += step
        count += 1
    return count
? 0, 3, 10 | 5, 1, 5 | 0, 5, 20 | 9, 2, 3

: print_doubling
Read one line with two integers, start and times. Double start the given number of times and
print the result.
    start, times = map(int, input().split())
    print(start * 2**times)
? "1 3\n" | "5 1\n" | "7 0\n" | "3 4\n"

## arithmetic_sequences
nth_odd(n)
Return the n-th positive odd number, where the first one is 1.
    return 2 * n - 1
? 1 | 2 | 5 | 50

nth_term(first, step, n)
Return the n-th number of the sequence first, first + step, first + 2 * step and so on. The
first number has n equal to 1.
    return first + (n - 1) * step
? 3, 2, 1 | 3, 2, 4 | 10, -5, 3 | 0, 7, 10

sequence(first, step, count)
Return a list of count numbers that starts with first and in which every number is step larger
than the one before it.
    return [first + i * step for i in range(count)]
? 3, 2, 4 | 10, -5, 3 | 1, 1, 0 | 7, 0, 2

triangular_number(n)
Return the n-th triangular number, which is n times n + 1 divided by 2, as an integer.
    return n * (n + 1) // 2
? 1 | 2 | 4 | 10

## common_factors
greatest_common_divisor(a, b)
Return the largest integer that divides both positive integers a and b without remainder.
    import math

    return math.gcd(a, b)
? 12, 8 | 7, 3 | 5, 5 | 100, 75

least_common_multiple(a, b)
Return the smallest positive integer that is divisible by a and also by b. Both are positive
integers.
    import math

    return a * b // math.gcd(a, b)
? 4, 6 | 7, 3 | 5, 5 | 10, 4

are_coprime(a, b)
Return True if the positive integers a and b have no common divisor larger than 1, otherwise
False.
    import math

    return math.gcd(a, b) == 1
? 8, 9 | 6, 4 | 7, 7 | 1, 5

## primes
is_prime_number(n)
Return True if the positive integer n is a prime number, otherwise False. Note that 1 is not
prime.
    return n > 1 and all(n % d != 0 for d in range(2, n))
? 1 | 2 | 9 | 13 | 25 | 31

primes_below(n)
Return a sorted list of all prime numbers that are smaller than n.
    return [p for p in range(2, n) if all(p % d != 0 for d in range(2, p))]
? 10 | 2 | 3 | 20

: is_it_prime
Read one integer that is at least 2. Print "prime" if it is a prime number, otherwise print
"not prime".
    n = int(input())
    print("prime" if all(n % d != 0 for d in range(2, n)) else "not prime")
? "2\n" | "9\n" | "13\n" | "15\n"
"""
