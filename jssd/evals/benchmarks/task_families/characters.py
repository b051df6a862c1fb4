"""Families about characters, and about two strings. The format is told in `tasks.py`."""

TEXT = r"""
## characters_and_positions
alphabet_position(letter)
Return the position of a lower case letter in the alphabet, where "a" has position 1 and "z" has
position 26.
    return ord(letter) - ord("a") + 1
? "a" | "c" | "z" | "m"

next_letter(letter)
Return the lower case letter that follows the given lower case letter in the alphabet. The letter
is never "z".
    return chr(ord(letter) + 1)
? "a" | "c" | "y" | "m"

find_character(s, letter)
Return the index of the first occurrence of letter in the string s, or -1 if it does not occur.
    return s.find(letter)
? "banana", "n" | "", "x" | "hello", "z" | "abc", "a"

string_to_list(s)
Return a list of the characters of the string s, in order.
    return list(s)
? "abc" | "" | "x y" | "hello"

## distinct_characters
number_of_distinct_letters(s)
Return how many different characters the string s holds.
    return len(set(s))
? "hello" | "" | "aaa" | "abc"

all_letters_differ(s)
Return True if no character occurs more than once in the string s, otherwise False.
    return len(set(s)) == len(s)
? "abc" | "hello" | "" | "aa"

drop_repeated_letters(s)
Return the string s in which every character is kept only at its first occurrence.
    return "".join(dict.fromkeys(s))
? "hello" | "" | "banana" | "abc"

sorted_letters(s)
Return a string with the characters of s in alphabetical order. The string holds lower case
letters only.
    return "".join(sorted(s))
? "hello" | "" | "banana" | "cba"

## two_strings
join_with_comma(a, b)
Return the string a, then a comma, then the string b, without any spaces.
    return a + "," + b
? "x", "y" | "", "b" | "hello", "world" | "1", "2"

interleave(a, b)
The strings a and b have the same length. Return a string that alternates between their
characters, starting with the first of a. For "abc" and "xyz" return "axbycz".
    return "".join(x + y for x, y in zip(a, b))
? "abc", "xyz" | "", "" | "a", "b" | "12", "34"

number_of_differences(a, b)
The strings a and b have the same length. Return at how many positions their characters differ.
    return sum(x != y for x, y in zip(a, b))
? "abc", "abd" | "", "" | "a", "a" | "hello", "world"

are_anagrams(a, b)
Return True if the strings a and b consist of the same characters, each equally often, in any
order. Otherwise return False.
    return sorted(a) == sorted(b)
? "listen", "silent" | "abc", "abd" | "", "" | "aab", "abb"
"""
