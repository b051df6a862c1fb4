"""Families of whole programs, from the input to the output. The format is told in `tasks.py`."""

TEXT = r"""
## one_number_in
: print_next_number
Read one integer and print the integer that follows it.
    print(int(input()) + 1)
? "1\n" | "0\n" | "-1\n" | "99\n"

: print_double
Read one integer and print two times this integer.
    print(2 * int(input()))
? "1\n" | "0\n" | "-4\n" | "50\n"

: print_square
Read one integer and print its square.
    print(int(input()) ** 2)
? "1\n" | "0\n" | "-4\n" | "50\n"

: print_last_digit
Read one non-negative integer and print its last decimal digit.
    print(int(input()) % 10)
? "123\n" | "7\n" | "40\n" | "99\n"

## two_numbers_on_one_line
: print_sum_of_two
Read one line with two integers separated by a space and print their sum.
    a, b = map(int, input().split())
    print(a + b)
? "1 2\n" | "-5 5\n" | "100 23\n" | "0 7\n"

: print_product_of_two
Read one line with two integers separated by a space and print their product.
    a, b = map(int, input().split())
    print(a * b)
? "1 2\n" | "-5 5\n" | "100 23\n" | "0 7\n"

: print_double_plus
Read one line with two integers a and b separated by a space. Print two times a plus b.
    a, b = map(int, input().split())
    print(2 * a + b)
? "7 2\n" | "6 3\n" | "1 5\n" | "100 7\n"

: print_difference
Read one line with two integers separated by a space. Print the first one minus the second one.
    a, b = map(int, input().split())
    print(a - b)
? "1 2\n" | "5 -5\n" | "100 23\n" | "7 7\n"

## numbers_on_several_lines
: sum_of_three_lines
Read three integers, each on its own line, and print their sum.
    print(int(input()) + int(input()) + int(input()))
? "1\n2\n3\n" | "0\n0\n5\n" | "-1\n-2\n10\n" | "100\n20\n3\n"

: largest_of_three_lines
Read three integers, each on its own line, and print the largest of them.
    print(max(int(input()), int(input()), int(input())))
? "1\n2\n3\n" | "9\n0\n5\n" | "-1\n-2\n-10\n" | "9\n10\n8\n"

: same_or_different
Read two words, each on its own line. Print "same" if they are equal, otherwise print "different".
    print("same" if input() == input() else "different")
? "cat\ncat\n" | "cat\ndog\n" | "a\nA\n" | "one\none\n"

: join_two_lines
Read two words, each on its own line. Print the first word followed directly by the second word.
    print(input() + input())
? "sun\nflower\n" | "a\nb\n" | "no\nno\n" | "foot\nball\n"

## counted_numbers
: sum_of_n_lines
The first line holds a positive integer n. Each of the next n lines holds one integer. Print the
sum of these n integers.
    n = int(input())
    print(sum(int(input()) for _ in range(n)))
? "3\n1\n2\n3\n" | "1\n7\n" | "2\n-5\n5\n" | "4\n10\n10\n10\n1\n"

: largest_of_n
The first line holds a positive integer n. The second line holds n integers separated by spaces.
Print the largest of these n integers.
    input()
    print(max(map(int, input().split())))
? "3\n1 2 3\n" | "1\n7\n" | "2\n-5 -6\n" | "4\n10 9 8 7\n"

: count_positive_of_n
The first line holds a positive integer n. The second line holds n integers separated by spaces.
Print how many of these n integers are larger than zero.
    input()
    print(len([number for number in input().split() if int(number) > 0]))
? "3\n1 2 3\n" | "1\n0\n" | "2\n-5 6\n" | "4\n0 9 8 -7\n"

: average_of_n
The first line holds a positive integer n. The second line holds n integers separated by spaces.
Print their average with exactly two digits after the decimal point.
    n = int(input())
    print(f"{sum(map(int, input().split())) / n:.2f}")
? "3\n1 2 3\n" | "1\n7\n" | "2\n5 6\n" | "4\n1 0 0 0\n"

## until_the_end
: sum_all_lines
Every line of the input holds one integer. Print the sum of all of them.
    import sys

    print(sum(int(line) for line in sys.stdin))
? "1\n2\n3\n" | "7\n" | "-5\n5\n" | "10\n20\n"

: count_lines
Read all lines of the input and print how many there are.
    import sys

    print(len(sys.stdin.readlines()))
? "a\nb\nc\n" | "hello\n" | "1\n2\n" | "x y\nz\nx\ny\n"

: number_the_lines
Print every line of the input with its line number, a colon and a space before it. The first line
has number 1.
    import sys

    for i, line in enumerate(sys.stdin.read().splitlines(), start=1):
        print(f"{i}: {line}")
? "a\nb\n" | "hello\n" | "x y\nz\n" | "c\nb\na\n"

: sum_until_zero
Every line of the input holds one integer. Read them until you meet a 0, and print the sum of the
integers before it. There is always a 0.
    total = 0
    while (number := int(input())) != 0:
        total += number
    print(total)
? "1\n2\n0\n" | "0\n5\n" | "-5\n7\n0\n9\n" | "10\n0\n0\n"

## text_in
: print_length
Read one line of text and print how many characters it has.
    print(len(input()))
? "abc\n" | "hello world\n" | "x\n" | "12345\n"

: print_first_letter
Read one non-empty line of text and print its first character.
    print(input()[0])
? "abc\n" | "hello world\n" | "xy\n" | "12345\n"

: print_twice
Read one line of text and print it two times, each time on its own line.
    line = input()
    print(line)
    print(line)
? "abc\n" | "hello world\n" | "x\n" | "12345\n"

: print_exclaimed
Read one line of text and print it with an exclamation mark added at the end.
    print(input() + "!")
? "abc\n" | "hello world\n" | "x\n" | "wow!\n"

## letters_in
: count_letter_e
Read one line of text and print how many times the lower case letter "e" occurs in it.
    print(input().count("e"))
? "hello\n" | "eel\n" | "xyz\n" | "E e e\n"

: letters_on_lines
Read one word and print each of its characters on its own line.
    for char in input():
        print(char)
? "abc\n" | "xy\n" | "hello\n" | "no\n"

: is_palindrome_input
Read one word. Print "yes" if it reads the same forwards and backwards, otherwise print "no".
    word = input()
    print("yes" if word == word[::-1] else "no")
? "noon\n" | "abc\n" | "x\n" | "hello\n"

: without_vowels
Read one line of lower case text. Print it without the vowels a, e, i, o, u. At least one other
character remains.
    print("".join(char for char in input() if char not in "aeiou"))
? "hello\n" | "abc\n" | "xyz\n" | "banana split\n"

## words_in
: words_on_lines
Read one line of words separated by single spaces. Print each word on its own line.
    for word in input().split():
        print(word)
? "a b c\n" | "hello\n" | "one two\n" | "x x\n"

: sorted_words
Read one line of lower case words separated by single spaces. Print the words in alphabetical
order, separated by spaces.
    print(*sorted(input().split()))
? "b a c\n" | "hello\n" | "two one\n" | "pear fig apple\n"

: swap_two_words
Read one line with two words separated by a space. Print the second word, a space, and the first
word.
    first, second = input().split()
    print(second, first)
? "a b\n" | "hello world\n" | "one two\n" | "x y\n"

: word_lengths_line
Read one line of words separated by single spaces. Print the length of every word, separated by
spaces.
    print(*(len(word) for word in input().split()))
? "a bb c\n" | "hello\n" | "one three\n" | "to be or not\n"

## drawing
: row_of_stars
Read one positive integer n and print one line with n stars "*".
    print("*" * int(input()))
? "3\n" | "1\n" | "5\n" | "10\n"

: square_of_hashes
Read one positive integer n. Print n lines with n "#" characters each.
    n = int(input())
    for _ in range(n):
        print("#" * n)
? "3\n" | "1\n" | "2\n" | "4\n"

: staircase
Read one positive integer n. Print n lines: one "x" on the first line, two on the second line, and
so on, until there are n on the last line.
    for i in range(1, int(input()) + 1):
        print("x" * i)
? "3\n" | "1\n" | "2\n" | "4\n"

: framed_word
Read one word. Print a line of "-" characters as long as the word, then the word, then the same
line again.
    word = input()
    print("-" * len(word))
    print(word)
    print("-" * len(word))
? "abc\n" | "x\n" | "hello\n" | "to\n"

## number_rows
: one_to_n_on_lines
Read one positive integer n. Print the integers from 1 to n, each on its own line.
    for i in range(1, int(input()) + 1):
        print(i)
? "3\n" | "1\n" | "2\n" | "6\n"

: evens_on_one_line
Read one integer n that is at least 2. Print the even integers from 2 to n on one line, separated
by spaces.
    print(*range(2, int(input()) + 1, 2))
? "2\n" | "7\n" | "10\n" | "4\n"

: print_factorial
Read one positive integer n. Print the product of all integers from 1 to n.
    result = 1
    for i in range(1, int(input()) + 1):
        result *= i
    print(result)
? "1\n" | "3\n" | "5\n" | "10\n"

: print_divisors
Read one positive integer n. Print all positive divisors of n in increasing order, separated by
spaces.
    n = int(input())
    print(*[d for d in range(1, n + 1) if n % d == 0])
? "1\n" | "6\n" | "7\n" | "12\n"

## decisions_in
: can_vote
Read one integer, an age. Print "yes" if it is at least 18, otherwise print "no".
    print("yes" if int(input()) >= 18 else "no")
? "18\n" | "17\n" | "40\n" | "3\n"

: divisible_or_not
Read one line with two positive integers a and b. Print "yes" if a is divisible by b, otherwise
print "no".
    a, b = map(int, input().split())
    print("yes" if a % b == 0 else "no")
? "6 3\n" | "7 2\n" | "5 5\n" | "3 6\n"

: fizz_line
Read one positive integer. Print "Fizz" if it is divisible by 3, otherwise print the integer
itself.
    n = int(input())
    print("Fizz" if n % 3 == 0 else n)
? "3\n" | "4\n" | "9\n" | "10\n"

: compare_two
Read one line with two integers a and b. Print "<" if a is smaller than b, ">" if a is larger than
b, and "=" if they are equal.
    a, b = map(int, input().split())
    print("<" if a < b else ">" if a > b else "=")
? "1 2\n" | "2 1\n" | "3 3\n" | "-5 -7\n"

## everyday_programs
: change_from_hundred
Read one integer, a price of at most 100. Print how much change is given when it is paid with 100.
    print(100 - int(input()))
? "30\n" | "100\n" | "1\n" | "55\n"

: minutes_from_hours
Read one line with two integers, hours and minutes. Print the total number of minutes.
    hours, minutes = map(int, input().split())
    print(hours * 60 + minutes)
? "1 30\n" | "0 45\n" | "2 0\n" | "10 5\n"

: trip_cost
Read two integers, each on its own line: the number of people and the price of one ticket. Print
the total price of the tickets.
    people = int(input())
    print(people * int(input()))
? "2\n10\n" | "1\n7\n" | "5\n5\n" | "30\n12\n"

: share_candies
Read one line with two positive integers: the number of candies and the number of children. Print
how many candies each child gets and how many are left over, separated by a space.
    candies, children = map(int, input().split())
    print(candies // children, candies % children)
? "7 3\n" | "6 2\n" | "1 5\n" | "100 9\n"
"""
