"""Families about units, money, geometry and time. The format is told in `tasks.py`."""

TEXT = r"""
## units.time | big small factor
| hours seconds 3600
| days hours 24
| weeks days 7
| years months 12
<big>_to_<small>(<big>)
Convert a number of <big> to <small> and return the result.
    return <big> * <factor>
? 1 | 0 | 5 | 10

## units.length | big one small factor
| feet foot inches 12
| yards yard feet 3
| meters meter centimeters 100
| kilograms kilogram grams 1000
<big>_to_<small>(<big>)
Convert <big> to <small>. One <one> is <factor> <small>.
    return <big> * <factor>
? 1 | 0 | 2.5 | 8

## units.small_to_big | small big one factor
| millimeters meters meter 1000
| cents dollars dollar 100
| minutes hours hour 60
<small>_to_<big>(<small>)
Return how many <big> the given number of <small> is, as a float. There are <factor> <small> in
one <one>.
    return <small> / <factor>
? <factor> | 0 | 750 | 3000

## money
price_with_tax(price, percent)
Return the price increased by the given percent of the price.
    return price + price * percent / 100
? 100, 20 | 50, 10 | 80, 0 | 200, 25

discounted_price(price, percent)
Return the price reduced by the given percent of the price.
    return price - price * percent / 100
? 100, 20 | 50, 10 | 80, 0 | 200, 25

total_cost(price, quantity, shipping)
Return the price multiplied by the quantity, plus the cost of shipping.
    return price * quantity + shipping
? 10, 3, 5 | 7, 0, 4 | 2.5, 4, 0 | 1, 1, 1

: print_change
Read two integers, each on its own line: the price of an item and the money paid. Print the
money paid minus the price.
    price = int(input())
    print(int(input()) - price)
? "7\n10\n" | "5\n5\n" | "1\n100\n" | "45\n50\n"

## coins
coins_value(nickels, dimes)
Return the total value in cents of the given numbers of nickels (5 cents each) and dimes (10
cents each).
    return nickels * 5 + dimes * 10
? 1, 1 | 0, 3 | 4, 0 | 2, 5

minimum_bills(amount)
We pay an amount of whole dollars with 10-dollar bills and 1-dollar bills. Return the smallest
possible number of bills.
    return amount // 10 + amount % 10
? 23 | 9 | 10 | 0 | 99

can_afford(money, price, count)
Return True if money is enough to buy count items that cost price each, otherwise False.
    return money >= price * count
? 10, 3, 3 | 10, 5, 2 | 10, 4, 3 | 0, 1, 1

split_bill(total, people, tip)
Return how much each person pays when the total plus the tip is shared equally among the
people.
    return (total + tip) / people
? 90, 3, 9 | 10, 4, 0 | 50, 1, 5 | 30, 2, 3

## clock
time_to_minutes(hours, minutes)
Return the total number of minutes in the given hours and minutes.
    return hours * 60 + minutes
? 1, 30 | 0, 45 | 2, 0 | 10, 5

total_seconds(hours, minutes, seconds)
Return the total number of seconds in the given hours, minutes and seconds.
    return hours * 3600 + minutes * 60 + seconds
? 1, 0, 0 | 0, 1, 1 | 2, 30, 15 | 0, 0, 9

split_minutes(total)
Return a list of two integers: the whole hours in total minutes, and the minutes that remain.
    return [total // 60, total % 60]
? 90 | 45 | 120 | 0 | 601

clock_text(hour, minute)
Return the time as a string such as "09:05", with two digits for the hour and two digits for
the minute.
    return f"{hour:02d}:{minute:02d}"
? 9, 5 | 12, 30 | 0, 0 | 23, 59

## calendar
days_in_month(month)
Return the number of days of the month with the given number (1 is January) in a year that is
not a leap year.
    return [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
? 1 | 2 | 4 | 12 | 9

is_weekend(day)
Return True if day is "Saturday" or "Sunday", otherwise False. The first letter of day is
always upper case.
    return day in ("Saturday", "Sunday")
? "Saturday" | "Sunday" | "Monday" | "Friday"

age_in_year(birth_year, year)
Return how old a person born in birth_year turns in the given year. If year is before
birth_year, return 0.
    return max(0, year - birth_year)
? 1990, 2020 | 2000, 2000 | 2010, 2005 | 1985, 2001

century_of(year)
Return the century of the positive year. The years 1 to 100 are century 1, the years 101 to 200
are century 2, and so on.
    return (year - 1) // 100 + 1
? 1905 | 1700 | 100 | 101 | 2001

## temperature
to_fahrenheit(celsius)
Convert a temperature from degrees Celsius to degrees Fahrenheit: multiply by 9, divide by 5
and add 32.
    return celsius * 9 / 5 + 32
? 0 | 100 | -40 | 25

to_celsius(fahrenheit)
Convert a temperature from degrees Fahrenheit to degrees Celsius: subtract 32, multiply by 5
and divide by 9.
    return (fahrenheit - 32) * 5 / 9
? 32 | 212 | -40 | 50

water_state(celsius)
Return "ice" if the temperature is below 0, "steam" if it is above 100, and "water" otherwise.
    if celsius < 0:
        return "ice"
    return "steam" if celsius > 100 else "water"
? -5 | 0 | 50 | 100 | 101

: print_water_state
Read one integer, a temperature. Print "cold" if it is below 10, "warm" if it is above 25, and
"mild" otherwise.
    t = int(input())
    print("cold" if t < 10 else "warm" if t > 25 else "mild")
? "5\n" | "10\n" | "26\n" | "25\n" | "-3\n"

## rectangles
area_of_rectangle(width, height)
Return the area of a rectangle with the given width and height.
    return width * height
? 2, 3 | 0, 5 | 4, 4 | 1.5, 2

perimeter_of_rectangle(width, height)
Return the perimeter of a rectangle with the given width and height.
    return 2 * width + 2 * height
? 2, 3 | 0, 5 | 4, 4 | 1.5, 2

is_square(width, height)
Return True if a rectangle with the given width and height is a square, otherwise False.
    return width == height
? 2, 3 | 4, 4 | 3, 2 | 1, 1

: print_perimeter
Read one line with two integers, the width and the height of a rectangle. Print its perimeter.
    width, height = map(int, input().split())
    print(2 * (width + height))
? "2 3\n" | "4 4\n" | "1 10\n" | "7 6\n"

## squares_and_cubes
square_perimeter(side)
Return the perimeter of a square with the given side.
    return 4 * side
? 1 | 2 | 0 | 2.5

cube_volume(side)
Return the volume of a cube with the given side.
    return side * side * side
? 1 | 2 | 0 | 3

cube_surface(side)
Return the surface area of a cube, which has six square faces with the given side.
    return 6 * side * side
? 1 | 2 | 0 | 3

## triangles
area_of_triangle(base, height)
Return the area of a triangle with the given base and height.
    return base * height / 2
? 2, 3 | 0, 5 | 4, 4 | 10, 1

triangle_perimeter_is(a, b, c, length)
Return True if the sides a, b and c of a triangle add up to length, otherwise False.
    return a + b + c == length
? 3, 4, 5, 12 | 1, 1, 1, 4 | 2, 2, 3, 7 | 5, 5, 5, 5

third_angle(a, b)
Two angles of a triangle are a and b degrees. Return the third angle in degrees. All three
angles add up to 180.
    return 180 - a - b
? 60, 60 | 90, 45 | 30, 20 | 100, 40

is_valid_triangle(a, b, c)
Return True if three positive lengths can be the sides of a triangle, which means that each one
is smaller than the sum of the other two. Otherwise return False.
    return a < b + c and b < a + c and c < a + b
? 3, 4, 5 | 1, 1, 3 | 1, 2, 3 | 5, 5, 5 | 9, 2, 3

## points
squared_distance(x, y)
Return the square of the distance from the point (x, y) to the point (0, 0).
    return x**2 + y**2
? 3, 4 | 0, 0 | -2, 1 | 5, 5

grid_distance(x1, y1, x2, y2)
Return the absolute difference of x1 and x2 plus the absolute difference of y1 and y2.
    return abs(x1 - x2) + abs(y1 - y2)
? 0, 0, 3, 4 | 1, 1, 1, 1 | -2, 5, 2, 1 | 4, 0, 1, 0

move_point(point, dx, dy)
A point is a list of two numbers. Return a new list with dx added to the first number and dy
added to the second.
    return [point[0] + dx, point[1] + dy]
? [0, 0], 1, 2 | [3, 4], 0, -4 | [-1, 5], 1, 1 | [2, 2], -2, -2

## speed
average_speed(distance, hours)
Return the average speed, which is the distance divided by the hours.
    return distance / hours
? 100, 2 | 90, 1.5 | 0, 3 | 7, 2

distance_travelled(speed, minutes)
The speed is given in kilometers per hour. Return how many kilometers are travelled in the
given number of minutes.
    return speed * (minutes / 60)
? 60, 30 | 90, 20 | 0, 15 | 120, 60

fuel_needed(distance, per_hundred)
A car needs per_hundred liters of fuel for 100 kilometers. Return how many liters it needs for
the given distance in kilometers.
    return distance / 100 * per_hundred
? 200, 6 | 50, 8 | 0, 5 | 100, 7
"""
