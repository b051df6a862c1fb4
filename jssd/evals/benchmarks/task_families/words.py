"""Families about words, lines and text formats. The format is told in `tasks.py`."""

TEXT = r"""
## counting_words
count_words_in_text(text)
Return the number of words in the text. Words are separated by spaces.
    return len(text.split())
? "a b c" | "" | "hello" | "one  two"

count_word(text, word)
Return how many of the words in the text are equal to word. Words are separated by single spaces.
    return text.split().count(word)
? "a b a", "a" | "hello", "x" | "the cat the dog", "the" | "at bat", "at"

count_long_words(words, length)
Return how many words in the list have more than length characters.
    return sum(len(word) > length for word in words)
? ["a", "bbb", "cc"], 1 | [], 2 | ["hello"], 5 | ["abc", "abcd"], 2

: print_word_count
Read one line of text with words separated by single spaces. Print the number of words.
    print(len(input().split()))
? "a b c\n" | "hello\n" | "the quick brown fox\n" | "one two\n"

## splitting_text
split_into_words(text)
Return a list of the words in the text. Words are separated by spaces.
    return text.split()
? "a b c" | "" | "hello" | "one two"

split_by_comma(text)
Return a list of the parts of the text that are separated by commas. The text is never empty.
    return text.split(",")
? "a,b,c" | "hello" | "1,2" | "x y,z"

numbers_in_text(text)
The text holds integers separated by single spaces. Return them as a list of integers. For the
empty text return an empty list.
    return [int(word) for word in text.split()]
? "1 2 3" | "" | "-5" | "10 0"

count_number_of_lines(text)
Return the number of lines in the non-empty text. Lines are separated by the newline character,
and the text does not end with one.
    return len(text.split("\n"))
? "a\nb\nc" | "hello" | "one\ntwo" | "x\n\ny"

## joining_words
join_words_with_spaces(words)
Return one string with the words of the list joined by single spaces.
    return " ".join(words)
? ["a", "b"] | [] | ["hello"] | ["one", "two", "three"]

join_words_with_dashes(words)
Return one string with the words of the list joined by dashes "-".
    return "-".join(words)
? ["a", "b"] | [] | ["hello"] | ["one", "two", "three"]

concatenate_words(words)
Return one string with all words of the list written one after another, with nothing between
them.
    return "".join(words)
? ["a", "b"] | [] | ["hello"] | ["one", "two", "three"]

numbers_to_text(numbers)
Return one string with the integers of the list separated by commas, without spaces.
    return ",".join(str(number) for number in numbers)
? [1, 2, 3] | [] | [10] | [-1, 0]

## word_places
first_word(text)
Return the first word of the text. The text holds at least one word, and words are separated by
spaces.
    return text.split()[0]
? "a b c" | "hello" | "one two" | "Good morning all"

last_word(text)
Return the last word of the text. The text holds at least one word, and words are separated by
spaces.
    return text.split()[-1]
? "a b c" | "hello" | "one two" | "Good morning all"

initials(text)
Return a string with the first letter of every word in the text. Words are separated by single
spaces.
    return "".join(word[0] for word in text.split())
? "big red car" | "" | "hello" | "Ada Lovelace"

: print_last_word
Read one line of text with words separated by single spaces. Print the last word.
    print(input().split()[-1])
? "a b c\n" | "hello\n" | "the quick brown fox\n" | "one two\n"

## changing_words
reverse_word_order(text)
Return a string with the words of the text in reverse order, separated by single spaces. In the
text they are also separated by single spaces.
    return " ".join(text.split()[::-1])
? "a b c" | "" | "hello" | "one two"

reverse_each_word(text)
Return a string in which the letters of every word of the text are reversed and the order of the
words is kept. Words are separated by single spaces.
    return " ".join(word[::-1] for word in text.split())
? "abc de" | "" | "hello" | "one two"

capitalize_words(text)
Return the text with the first letter of every word in upper case. The text holds lower case
words separated by single spaces.
    return " ".join(word.capitalize() for word in text.split())
? "big red car" | "" | "hello" | "a b"

: print_upper_words
Read one line of text. Print it in upper case.
    print(input().upper())
? "a b c\n" | "Hello\n" | "the quick brown fox\n" | "one Two\n"

## word_lengths
get_word_lengths(words)
Return a list with the length of every word in the list.
    return [len(word) for word in words]
? ["a", "bbb"] | [] | ["hello"] | ["", "xy"]

total_length(words)
Return the sum of the lengths of all words in the list.
    return sum(len(word) for word in words)
? ["a", "bbb"] | [] | ["hello"] | ["", "xy"]

find_longest_word(words)
Return the longest word in the non-empty list. No two words have the same length.
    return max(words, key=len)
? ["a", "bbb", "cc"] | ["x"] | ["hello", "hi"] | ["", "xy"]

: print_longest_word
Read one line of text with words separated by single spaces. Print the longest word. No two words
have the same length.
    print(max(input().split(), key=len))
? "a bbb cc\n" | "hello\n" | "the quick ox\n" | "no yes\n"

## choosing_words
words_with_letter(words, letter)
Return a list of the words that hold the given letter, in the same order.
    return [word for word in words if letter in word]
? ["cat", "dog", "cow"], "c" | [], "a" | ["hello"], "z" | ["aa", "ba"], "a"

words_starting_with(words, letter)
Return a list of the words that start with the given letter, in the same order. No word is empty.
    return [word for word in words if word[0] == letter]
? ["cat", "dog", "cow"], "c" | [], "a" | ["hello"], "o" | ["aa", "ba"], "a"

short_words(words, length)
Return a list of the words that have at most length characters, in the same order.
    return [word for word in words if len(word) <= length]
? ["cat", "horse", "cow"], 3 | [], 2 | ["hello"], 4 | ["a", "bb"], 1

uppercase_words(words)
Return a list with all words of the list in upper case.
    return [word.upper() for word in words]
? ["a", "bB"] | [] | ["hello"] | ["One", "TWO"]

## padding
pad_left(s, width)
Return the string s with spaces added on its left side until it has width characters. If s is
already that long, return it unchanged.
    return s.rjust(width)
? "ab", 4 | "", 2 | "hello", 3 | "x", 1

pad_with_zeros(n, width)
Return the decimal digits of the non-negative integer n as a string, with zeros added on the left
until it has width characters. If it is already that long, add nothing.
    return str(n).zfill(width)
? 7, 3 | 0, 1 | 12345, 3 | 42, 4

shorten(s, length)
If the string s has more than length characters, return its first length characters followed by
"...". Otherwise return s unchanged.
    return s if len(s) <= length else s[:length] + "..."
? "hello world", 5 | "abc", 3 | "", 2 | "abcd", 3

strip_whitespace(s)
Return the string s without spaces at its start and its end.
    return s.strip()
? "  a b " | "" | "hello" | "x  " | "  "

## numbers_as_text
string_to_integer(s)
Return the integer that the decimal string s represents.
    return int(s)
? "12" | "-7" | "0" | "1000"

integer_to_string(n)
Return the decimal representation of the integer n as a string.
    return str(n)
? 12 | -7 | 0 | 1000

add_as_text(a, b)
The strings a and b hold decimal integers. Return their sum as a string.
    return str(int(a) + int(b))
? "1", "2" | "-5", "5" | "99", "1" | "0", "7"

percent_text(part, whole)
Return which percentage part is of whole, rounded down to an integer, as a string such as "25%".
Both are positive integers.
    return f"{part * 100 // whole}%"
? 1, 4 | 5, 5 | 1, 3 | 3, 2

## number_bases
to_binary(n)
Return the binary digits of the non-negative integer n as a string, without a prefix. For 0
return "0".
    return bin(n)[2:]
? 5 | 0 | 1 | 16

from_binary(s)
Return the integer whose binary digits are the string s.
    return int(s, 2)
? "101" | "0" | "1" | "10000"

count_binary_ones(n)
Return how many ones there are among the binary digits of the non-negative integer n.
    return bin(n).count("1")
? 5 | 0 | 255 | 16

to_hex(n)
Return the hexadecimal digits of the non-negative integer n as a lower case string, without a
prefix.
    return hex(n)[2:]
? 10 | 0 | 255 | 16

## addresses
get_username(address)
Return the part of an e-mail address before the "@" sign. There is exactly one "@" in it.
    return address.split("@")[0]
? "ann@site.org" | "b@c.d" | "first.last@mail.com" | "x1@y"

get_domain(address)
Return the part of an e-mail address after the "@" sign. There is exactly one "@" in it.
    return address.split("@")[1]
? "ann@site.org" | "b@c.d" | "first.last@mail.com" | "x1@y"

get_file_extension(filename)
Return the part of the file name after its last dot. The file name holds at least one dot.
    return filename.split(".")[-1]
? "main.py" | "a.b.txt" | "photo.jpeg" | ".git"

is_valid_email(s)
Return True if the string s holds exactly one "@" character, otherwise False.
    return s.count("@") == 1
? "a@b" | "ab" | "a@b@c" | "" | "@"
"""
