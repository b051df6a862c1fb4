"""Families about the characters of one string. The format is told in `tasks.py`."""

TEXT = r"""
## letter_counts
count_vowels(s)
Return the number of vowels (a, e, i, o, u) in the string s. All letters of s are lower case.
    return sum(char in "aeiou" for char in s)
? "hello" | "" | "xyz" | "audio"

count_letter_a(s)
Return how many times the lower case letter "a" occurs in the string s.
    return s.count("a")
? "banana" | "" | "xyz" | "Aa"

count_consonants(s)
Return how many characters of s are not one of the vowels a, e, i, o, u. The string s holds lower
case letters only.
    return sum(char not in "aeiou" for char in s)
? "hello" | "" | "xyz" | "aei"

: print_vowel_count
Read one line of lower case letters. Print how many of them are vowels (a, e, i, o, u).
    print(sum(char in "aeiou" for char in input()))
? "hello\n" | "xyz\n" | "audio\n" | "a\n"

## kinds_of_characters
count_digits_in(s)
Return how many characters of the string s are digits.
    return sum(char.isdigit() for char in s)
? "a1b22" | "" | "xyz" | "2024"

count_upper(s)
Return how many characters of the string s are upper case letters.
    return sum(char.isupper() for char in s)
? "Hello World" | "" | "xyz" | "ABC"

count_spaces(s)
Return how many spaces the string s holds.
    return s.count(" ")
? "a b c" | "" | "xyz" | "   a"

count_not_spaces(s)
Return how many characters of the string s are not spaces.
    return len(s.replace(" ", ""))
? "a b c" | "" | "xyz" | "   "

## change_case
uppercase_string(s)
Return the string s with all letters in upper case.
    return s.upper()
? "hello" | "" | "Stop now" | "OK"

lowercase_string(s)
Return the string s with all letters in lower case.
    return s.lower()
? "HELLO" | "" | "aBc" | "Python 3"

capitalize_first_letter(s)
Return the string s with its first character in upper case and all others unchanged. For the
empty string return the empty string.
    return s[:1].upper() + s[1:]
? "hello" | "" | "aBC" | "x"

swap_letter_case(s)
Return the string s with upper case letters turned to lower case and lower case letters turned to
upper case.
    return s.swapcase()
? "Hello" | "" | "aBC" | "xyz 1"

## ends_of_strings
first_letter(s)
Return the first character of the string s. For the empty string return the empty string.
    return s[:1]
? "hello" | "" | "xy" | "Python"

final_letter(s)
Return the last character of the string s. The string is never empty.
    return s[-1]
? "hello" | "a" | "xy" | "Python"

first_and_last(s)
Return a string with the first character of s followed by the last character of s. The string s
is never empty.
    return s[0] + s[-1]
? "hello" | "a" | "xyz" | "Python"

middle_letter(s)
Return the character in the middle of the string s. The length of s is odd.
    return s[len(s) // 2]
? "hello" | "ab1" | "Pythons" | "abcde"

## pieces_of_strings
without_first(s)
Return the string s without its first character. For the empty string return the empty string.
    return s[1:]
? "hello" | "" | "a" | "xyz"

without_ends(s)
Return the string s without its first and its last character. The string has at least two
characters.
    return s[1:-1]
? "hello" | "ab" | "xyz" | "(text)"

first_n_letters(s, n)
Return the first n characters of the string s, or the whole string if it is shorter.
    return s[:n]
? "hello", 2 | "", 3 | "abc", 10 | "xyz", 0

every_other_letter(s)
Return a string with every second character of s, starting with the first character.
    return s[::2]
? "abcdef" | "" | "xyz" | "banana"

## reversing_strings
reverse_text(s)
Return the string s in reverse order.
    return s[::-1]
? "abc" | "" | "xy" | "hello world"

mirror(s)
Return the string s followed by the string s in reverse order.
    return s + s[::-1]
? "abc" | "" | "x" | "hello"

is_palindrome_text(s)
Return True if the string s reads the same forwards and backwards, otherwise False.
    return s == s[::-1]
? "aba" | "ab" | "" | "noon" | "hello"

: print_reversed
Read one line of text and print it in reverse order.
    print(input()[::-1])
? "abc\n" | "hello world\n" | "xy\n" | "12345\n"

## repeating_strings
repeat_text(s, times)
Return the string s repeated the given number of times.
    return s * times
? "ab", 3 | "x", 0 | "hi", 2 | "", 4

double_letters(s)
Return a string in which every character of s is written twice. For "abc" return "aabbcc".
    return "".join(char * 2 for char in s)
? "abc" | "" | "x" | "hello"

echo_with_dash(s)
Return the string s, then a dash "-", then the string s again.
    return s + "-" + s
? "ab" | "" | "x" | "hello"

repeat_star(n)
Return a string of n star characters "*".
    return "*" * n
? 3 | 0 | 1 | 7

## adding_to_strings
greeting(name)
Return a greeting such as "Hello, Ann!" for the given name. Only the name in it changes.
    return f"Hello, {name}!"
? "Ann" | "Bob" | "" | "World"

add_brackets(s)
Return the string s with "[" before it and "]" after it.
    return f"[{s}]"
? "a" | "" | "text" | "1, 2"

full_name(first, last)
Return the first name, then one space, then the last name.
    return first + " " + last
? "Ada", "Lovelace" | "A", "B" | "Mary Ann", "Lee" | "x", "y"

: print_greeting
Read a name from the input and print "Hi " followed by the name.
    print("Hi " + input())
? "Ann\n" | "Bob\n" | "World\n" | "Mary Ann\n"

## comparing_strings
same_ignoring_case(a, b)
Return True if the strings a and b are equal when upper and lower case are not distinguished,
otherwise False.
    return a.lower() == b.lower()
? "Hello", "hELLO" | "a", "b" | "", "" | "abc", "ab"

have_same_length(a, b)
Return True if the strings a and b have the same length, otherwise False.
    return len(a) == len(b)
? "abc", "xyz" | "a", "bb" | "", "" | "hello", "hell"

longer_string(a, b)
Return the longer of the strings a and b. If they have the same length, return a.
    return a if len(a) >= len(b) else b
? "abc", "xy" | "a", "bb" | "", "" | "same", "four"

same_first_letter(a, b)
Return True if the strings a and b start with the same character, otherwise False. Neither is
empty.
    return a[0] == b[0]
? "abc", "axy" | "a", "b" | "Hat", "hat" | "x", "xyz"

## starts_and_ends
string_starts_with(s, prefix)
Return True if the string s begins with prefix, otherwise False.
    return s.startswith(prefix)
? "abc", "ab" | "abc", "b" | "a", "" | "ab", "abc"

is_python_file(filename)
Return True if the file name ends with ".py", otherwise False.
    return filename.endswith(".py")
? "main.py" | "notes.txt" | "py" | "a.b.py" | "main.pyc"

is_question(s)
Return True if the last character of the string s is a question mark, otherwise False. For the
empty string return False.
    return s.endswith("?")
? "Why?" | "No." | "" | "? yes" | "?"

remove_prefix(s, prefix)
If the string s begins with prefix, return s without that prefix. Otherwise return s unchanged.
    return s.removeprefix(prefix)
? "unhappy", "un" | "abc", "b" | "aab", "a" | "same", "same"

## removing_characters
remove_all_spaces(s)
Return the string s without its spaces.
    return s.replace(" ", "")
? "a b c" | "" | "  x" | "hello"

remove_all_vowels(s)
Return the lower case string s without the vowels a, e, i, o, u.
    return "".join(char for char in s if char not in "aeiou")
? "hello" | "" | "aeiou" | "xyz"

extract_digits(s)
Return a string with only the digits of the string s, in the same order.
    return "".join(char for char in s if char.isdigit())
? "a1b22" | "" | "xyz" | "2024"

remove_character(s, letter)
Return the string s without any occurrence of the character letter.
    return s.replace(letter, "")
? "banana", "a" | "", "x" | "hello", "z" | "aaa", "a"

## replacing_characters
spaces_to_underscores(s)
Return the string s with every space replaced by an underscore "_".
    return s.replace(" ", "_")
? "a b c" | "" | "  x" | "hello"

replace_character(s, old, new)
Return the string s with every occurrence of the character old replaced by the character new.
    return s.replace(old, new)
? "banana", "a", "o" | "", "x", "y" | "hello", "z", "q" | "aaa", "a", "b"

hide_digits(s)
Return the string s with every digit replaced by the character "#".
    return "".join("#" if char.isdigit() else char for char in s)
? "a1b22" | "" | "xyz" | "2024"

: print_with_dashes
Read one line of text. Print it with every space replaced by a dash "-".
    print(input().replace(" ", "-"))
? "a b c\n" | "hello\n" | "one two\n" | "1 2 3 4\n"

## kinds_of_strings
is_all_digits(s)
Return True if the non-empty string s consists of digits only, otherwise False.
    return s.isdigit()
? "123" | "12a" | "0" | "-5" | "abc"

contains_digit(s)
Return True if the string s holds at least one digit, otherwise False.
    return any(char.isdigit() for char in s)
? "abc1" | "abc" | "" | "123"

is_all_upper(s)
The string s holds letters only and is not empty. Return True if all of them are upper case,
otherwise False.
    return s.isupper()
? "ABC" | "ABc" | "x" | "Z"

starts_with_capital(s)
Return True if the first character of the string s is an upper case letter, otherwise False. For
the empty string return False.
    return s[:1].isupper()
? "Abc" | "abc" | "" | "aBC" | "Z"
"""
