"""Families about dictionaries and records. The format is told in `tasks.py`."""

TEXT = r"""
## looking_up
get_value_or_zero(d, key)
Return the value of the key in the dictionary d, or 0 if the key is missing.
    return d.get(key, 0)
? {"a": 1, "b": 2}, "a" | {}, "x" | {"a": 5}, "b" | {"k": 7}, "k"

has_key(d, key)
Return True if the dictionary d has the given key, otherwise False.
    return key in d
? {"a": 1, "b": 2}, "a" | {}, "x" | {"a": 5}, "b" | {"k": None}, "k"

lookup_all(d, keys)
Return a list with the value of every key of the list keys. All keys are in the dictionary d.
    return [d[key] for key in keys]
? {"a": 1, "b": 2}, ["b", "a"] | {}, [] | {"a": 5}, ["a", "a"] | {"k": "v"}, ["k"]

has_value(d, value)
Return True if some key of the dictionary d has the given value, otherwise False.
    return value in d.values()
? {"a": 1, "b": 2}, 2 | {}, 0 | {"a": 5}, 4 | {"k": "v"}, "v"

## dict_views
get_sorted_keys(d)
Return a sorted list of the keys of the dictionary d.
    return sorted(d.keys())
? {"b": 1, "a": 2} | {} | {"z": 0} | {"c": 1, "a": 1, "b": 1}

get_values(d)
Return a list of the values of the dictionary d, in their order in the dictionary.
    return list(d.values())
? {"b": 1, "a": 2} | {} | {"z": 0} | {"c": "x", "a": "y"}

count_keys(d)
Return how many keys the dictionary d has.
    return len(d)
? {"b": 1, "a": 2} | {} | {"z": 0} | {"c": 1, "a": 1, "b": 1}

get_pairs(d)
Return a list that holds one list [key, value] for every key of the dictionary d, in their order
in the dictionary.
    return [[key, value] for key, value in d.items()]
? {"b": 1, "a": 2} | {} | {"z": 0} | {"c": "x", "a": "y"}

## dict_numbers
sum_of_values(d)
Return the sum of the values of the dictionary d. All values are numbers.
    return sum(d.values())
? {"a": 1, "b": 2} | {} | {"z": 10} | {"p": -1, "q": 1, "r": 5}

max_value_in_dict(d)
Return the largest value of the non-empty dictionary d. All values are numbers.
    return max(d.values())
? {"a": 1, "b": 2} | {"z": 10} | {"p": -1, "q": -5} | {"x": 3, "y": 3}

key_with_max_value(d)
Return the key that has the largest value in the non-empty dictionary d. No two values are equal.
    return max(d, key=d.get)
? {"a": 1, "b": 2} | {"z": 10} | {"p": -1, "q": -5} | {"x": 3, "y": 9, "w": 5}

average_value(d)
Return the average of the values of the non-empty dictionary d. All values are numbers.
    return sum(d.values()) / len(d)
? {"a": 1, "b": 2} | {"z": 10} | {"p": -1, "q": -5} | {"x": 3, "y": 9, "w": 6}

## making_dicts
dict_from_lists(keys, values)
The lists keys and values have the same length. Return a dictionary that gives each key the value
at the same index.
    return dict(zip(keys, values))
? ["a", "b"], [1, 2] | [], [] | ["x"], ["y"] | ["p", "q", "r"], [0, 0, 1]

word_length_dict(words)
Return a dictionary that gives each word of the list its length.
    return {word: len(word) for word in words}
? ["a", "bbb"] | [] | ["hello"] | ["xy", "xy", "z"]

same_value_for_all(keys, value)
Return a dictionary in which every key of the list keys has the given value.
    return {key: value for key in keys}
? ["a", "b"], 0 | [], 1 | ["x"], "y" | ["p", "q"], []

single_entry(key, value)
Return a dictionary with exactly one key, which has the given value.
    return {key: value}
? "a", 1 | "x", "y" | "name", "Ann" | "n", 0

## counting_into_dicts
count_items(items)
Return a dictionary that tells for every item of the list how often it occurs.
    counts = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts
? ["a", "b", "a"] | [] | ["x"] | ["p", "p", "p", "q"]

count_characters(s)
Return a dictionary that tells for every character of the string s how often it occurs.
    return {char: s.count(char) for char in s}
? "hello" | "" | "aaa" | "a b"

group_by_first_letter(words)
Return a dictionary that gives each first letter the list of the words that start with it, in
their order in the list. No word is empty.
    groups = {}
    for word in words:
        groups.setdefault(word[0], []).append(word)
    return groups
? ["ant", "bee", "ape"] | [] | ["x"] | ["cat", "cow", "cat"]

## changing_dicts
with_entry(d, key, value)
Return a new dictionary with all entries of d, in which the given key has the given value.
    return {**d, key: value}
? {"a": 1}, "b", 2 | {}, "x", 0 | {"a": 1}, "a", 5 | {"p": "q"}, "r", "s"

without_key(d, key)
Return a new dictionary with all entries of d except the given key. If d does not have the key,
the result has the same entries as d.
    return {k: v for k, v in d.items() if k != key}
? {"a": 1, "b": 2}, "a" | {}, "x" | {"a": 1}, "b" | {"p": "q"}, "p"

merge_dicts(a, b)
Return a new dictionary with the entries of a and b. If both have a key, the value of b is used.
    return {**a, **b}
? {"a": 1}, {"b": 2} | {}, {} | {"a": 1}, {"a": 5} | {"p": 1, "q": 2}, {"q": 3}

swap_keys_and_values(d)
Return a new dictionary in which every value of d is a key, and its key is the value. All values
are different strings.
    return {value: key for key, value in d.items()}
? {"a": "x", "b": "y"} | {} | {"k": "v"} | {"one": "eins"}

## filtering_dicts
keys_above(d, limit)
Return a sorted list of the keys of d whose value is larger than limit.
    return sorted(key for key, value in d.items() if value > limit)
? {"a": 1, "b": 5}, 2 | {}, 0 | {"z": 3}, 3 | {"y": 8, "x": 9, "w": 1}, 4

only_positive_values(d)
Return a new dictionary with only those entries of d whose value is larger than zero.
    return {key: value for key, value in d.items() if value > 0}
? {"a": 1, "b": -5} | {} | {"z": 0} | {"y": 8, "x": 9}

count_value(d, value)
Return how many keys of the dictionary d have the given value.
    return list(d.values()).count(value)
? {"a": 1, "b": 1}, 1 | {}, 0 | {"z": 3}, 4 | {"y": "x", "w": "x", "v": "z"}, "x"

doubled_values(d)
Return a new dictionary with the same keys as d in which every value is multiplied by 2.
    return {key: value * 2 for key, value in d.items()}
? {"a": 1, "b": -5} | {} | {"z": 0} | {"y": 8, "x": 9}

## records
get_names(people)
Every person is a dictionary with the keys "name" and "age". Return a list of the names, in the
same order.
    return [person["name"] for person in people]
? [{"name": "Ann", "age": 5}, {"name": "Bob", "age": 7}] | [] | [{"name": "Cy", "age": 1}]
? [{"name": "Z", "age": 2}, {"name": "Y", "age": 2}]

get_adults(people)
Every person is a dictionary with the keys "name" and "age". Return a list of the names of those
who are at least 18 years old, in the same order.
    return [person["name"] for person in people if person["age"] >= 18]
? [{"name": "Ann", "age": 5}, {"name": "Bob", "age": 18}] | [] | [{"name": "Cy", "age": 17}]
? [{"name": "Z", "age": 20}, {"name": "Y", "age": 40}]

total_age(people)
Every person is a dictionary with the keys "name" and "age". Return the sum of the ages.
    return sum(person["age"] for person in people)
? [{"name": "Ann", "age": 5}, {"name": "Bob", "age": 18}] | [] | [{"name": "Cy", "age": 17}]
? [{"name": "Z", "age": 20}, {"name": "Y", "age": 40}]

oldest_person(people)
Every person is a dictionary with the keys "name" and "age". Return the name of the oldest
person. The list is not empty, and no two ages are equal.
    return max(people, key=lambda person: person["age"])["name"]
? [{"name": "Ann", "age": 5}, {"name": "Bob", "age": 18}] | [{"name": "Cy", "age": 17}]
? [{"name": "Z", "age": 20}, {"name": "Y", "age": 4}] | [{"name": "P", "age": 9}]

## shopping
order_total(prices, order)
The dictionary prices gives the price of every item. Return the sum of the prices of the items in
the list order.
    return sum(prices[item] for item in order)
? {"tea": 2, "pie": 5}, ["tea", "pie"] | {"tea": 2}, [] | {"a": 1, "b": 3}, ["b", "b"]
? {"x": 10}, ["x"]

stock_value(prices, amounts)
The dictionaries prices and amounts have the same keys. Return the sum of price times amount over
all keys.
    return sum(prices[key] * amounts[key] for key in prices)
? {"tea": 2, "pie": 5}, {"tea": 3, "pie": 1} | {}, {} | {"a": 4}, {"a": 0} | {"x": 7}, {"x": 7}

missing_items(needed, have)
Both arguments are lists of strings. Return a list of the items of needed that are not in have, in
the same order.
    return [item for item in needed if item not in have]
? ["tea", "pie"], ["tea"] | [], ["x"] | ["a"], ["a"] | ["p", "q"], []
"""
