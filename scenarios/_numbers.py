"""Questions on numbers and daily sums with changing quantities (see _dice)."""

from __future__ import annotations

from collections.abc import Callable
from math import comb, factorial, gcd

from scenarios._dice import Dice, Drawn, each

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _percent(dice: Dice) -> Drawn:
    share, whole = dice.whole(5, 95, 5), dice.whole(40, 600, 20)
    question = f"What is {share} % of {whole}?"
    part = share * whole / 100
    return "arithmetic", question, *each("", part, whole - part, part * 10, part / 2, part + 5, share)


def _discount(dice: Dice) -> Drawn:
    price, cut = dice.whole(40, 400, 20), dice.whole(10, 45, 5)
    question = f"A coat costs {price} euros and is sold at {cut} % off. What does one pay?"
    paid = price * (100 - cut) / 100
    wrong = (price - paid, price - cut, paid + 10, price + price - paid, paid - 5)
    return "arithmetic", question, *each(" euros", paid, *wrong)


def _divisor(dice: Dice) -> Drawn:
    common, one, other = dice.whole(3, 15), dice.whole(2, 9), dice.whole(2, 9)
    right = gcd(common * one, common * other)
    question = f"What is the largest common divisor of {common * one} and {common * other}?"
    return "arithmetic", question, *each("", right, right * 2, 1, right + 1, right * 3, right + 2)


def _remainder(dice: Dice) -> Drawn:
    divisor, dividend = dice.whole(6, 12), dice.whole(100, 400)
    question = f"What remains when {dividend} is divided by {divisor}?"
    left = dividend % divisor
    return (
        "arithmetic",
        question,
        *each("", left, dividend // divisor, divisor - left, left + 1, left + 2, left + 4),
    )


def _linear(dice: Dice) -> Drawn:
    factor, root, shift = dice.whole(2, 9), dice.whole(2, 15), dice.whole(1, 20)
    question = f"For which x is {factor}x + {shift} equal to {factor * root + shift}?"
    return "algebra", question, *each("", root, factor * root, root + shift, root + 1, -root, root + 2)


def _roots(dice: Dice) -> Drawn:
    low, high = dice.whole(1, 6), dice.whole(7, 12)
    question = f"For which values of x is x² - {low + high}x + {low * high} equal to zero?"
    wrong = [f"-{low} and -{high}", f"{low} and {high + 1}", f"{low + high} only", f"1 and {low * high}"]
    return "algebra", question, f"{low} and {high}", [*wrong, f"{low + 1} and {high + 2}"]


def _power(dice: Dice) -> Drawn:
    base, one, other = dice.whole(2, 9), dice.whole(2, 6), dice.whole(7, 9)
    question = f"Which power equals {base}^{one} times {base}^{other}?"
    pairs = [(base, one * other), (base * base, one + other), (base, other - one), (2 * base, one + other)]
    return "algebra", question, f"{base}^{one + other}", [f"{a}^{b}" for a, b in pairs]


def _rectangle(dice: Dice) -> Drawn:
    width, extra = dice.whole(3, 15), dice.whole(1, 9)
    length = width + extra
    question = f"A rectangle is {length} cm long and {width} cm wide. What is its perimeter?"
    wrong = (length * width, length + width, 2 * length + width, 4 * length)
    return "geometry", question, *each(" cm", 2 * (length + width), *wrong)


def _hypotenuse(dice: Dice) -> Drawn:
    shape, times = dice.whole(0, 3), dice.whole(1, 9)
    a, b, c = (times * side for side in ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25))[shape])
    question = f"The short sides of a right triangle are {a} and {b}. How long is the third side?"
    return "geometry", question, *each("", c, a + b, b, c + times, b - a, c + 2 * times)


def _volume(dice: Dice) -> Drawn:
    side = dice.whole(3, 15)
    question = f"What is the volume of a cube with sides of {side} cm?"
    return "geometry", question, *each(" cm³", side**3, 6 * side**2, side**2, 3 * side, side**3 + side)


def _angle(dice: Dice) -> Drawn:
    one, other = dice.whole(20, 80, 5), dice.whole(25, 85, 5)
    question = f"Two angles of a plane triangle are {one}° and {other}°. How large is the third?"
    right = 180 - one - other
    return (
        "geometry",
        question,
        *each("°", right, one + other, 180 - one, 180 - other, right + 10, right + 5),
    )


def _derivative(dice: Dice) -> Drawn:
    factor, power = dice.whole(2, 9), dice.whole(3, 8)
    question = f"What is the derivative of {factor}x^{power} with respect to x?"
    pairs = [(factor, power - 1), (factor * power, power), (factor + power, power - 1), (power, power - 1)]
    wrong = [f"{a}x^{b}" for a, b in [*pairs, (factor * (power - 1), power - 1)]]
    return "calculus", question, f"{factor * power}x^{power - 1}", wrong


def _mean(dice: Dice) -> Drawn:
    middle, low, high = dice.whole(20, 40), dice.whole(1, 9), dice.whole(3, 12)
    values = [middle - low, middle + high, middle, middle + low - high]
    question = f"What is the mean of {values[0]}, {values[1]}, {values[2]} and {values[3]}?"
    return (
        "statistics",
        question,
        *each("", middle, 4 * middle, max(values), min(values), middle + 1, middle + 2),
    )


def _median(dice: Dice) -> Drawn:
    start = dice.whole(2, 30)
    steps = [dice.whole(1, 6) for _ in range(4)]
    values = [start + sum(steps[:i]) for i in range(5)]
    question = f"What is the median of {values[3]}, {values[0]}, {values[4]}, {values[2]} and {values[1]}?"
    return "statistics", question, *each("", values[2], values[4], values[1], values[3], values[0])


def _marbles(dice: Dice) -> Drawn:
    red, blue = dice.whole(2, 9), dice.whole(2, 9)
    question = f"A bag holds {red} red and {blue} blue marbles. What is the chance of drawing a red one?"
    total = red + blue
    pairs = [(blue, total), (red, total + 1), (red, 2 * total), (red, 3 * total)]
    return "probability", question, f"{red} in {total}", [f"{a} in {b}" for a, b in pairs]


def _pairs(dice: Dice) -> Drawn:
    people = dice.whole(4, 20)
    question = (
        f"{people} people shake hands, each with each of the others once. How many handshakes are there?"
    )
    wrong = (people * (people - 1), people**2, people, comb(people + 1, 2), 2 * people)
    return "combinatorics", question, *each("", comb(people, 2), *wrong)


def _orders(dice: Dice) -> Drawn:
    books = dice.whole(3, 11)
    question = f"In how many orders can {books} different books stand on a shelf?"
    wrong = (books**2, 2**books, factorial(books - 1), books, factorial(books) * 2)
    return "combinatorics", question, *each("", factorial(books), *wrong)


def _binary(dice: Dice) -> Drawn:
    value = dice.whole(17, 63)
    question = f"What is the decimal value of the binary number {value:b}?"
    return "computer arithmetic", question, *each("", value, value + 1, value - 2, value * 2, value + 4)


def _transfer(dice: Dice) -> Drawn:
    rate, seconds = dice.whole(10, 100, 10), dice.whole(5, 40, 5)
    question = (
        f"A line carries {rate} megabytes a second. How long does a file of {rate * seconds} megabytes take?"
    )
    wrong = (seconds * 8, seconds / 8, seconds + rate, seconds * 2, seconds + 5)
    return "networking", question, *each(" s", seconds, *wrong)


def _search(dice: Dice) -> Drawn:
    power = dice.whole(6, 20)
    question = f"At most how many halvings does it take to bring a list of {2**power:,} names down to one?"
    return "algorithms", question, *each("", power, 2 ** (power - 1), power + 4, power * 2, power - 3)


def _interest(dice: Dice) -> Drawn:
    money, rate, years = dice.whole(200, 2000, 100), dice.whole(2, 9), dice.whole(2, 8)
    question = f"What do {money} euros earn in {years} years at a simple interest of {rate} % a year?"
    earned = money * rate * years // 100
    wrong = (money * rate // 100, money + earned, earned * 2, rate * years, earned + 10)
    return "finance", question, *each(" euros", earned, *wrong)


def _profit(dice: Dice) -> Drawn:
    count, price, cost = dice.whole(20, 90, 10), dice.whole(12, 30), dice.whole(3, 11)
    question = f"What is earned on {count} lamps that cost {cost} euros each and sell at {price} euros each?"
    wrong = (count * price, count * cost, price - cost, count * (price + cost), count * (price - cost) + 50)
    return "business", question, *each(" euros", count * (price - cost), *wrong)


def _equity(dice: Dice) -> Drawn:
    equity, debts = dice.whole(100, 900, 50), dice.whole(120, 820, 50)
    question = f"A firm owns assets of {equity + debts} and owes debts of {debts}. What is its equity?"
    wrong = (equity + 2 * debts, debts, equity + debts, equity + 20, equity * 2)
    return "accounting", question, *each("", equity, *wrong)


def _map(dice: Dice) -> Drawn:
    scale, length = dice.whole(20, 100, 10), dice.whole(2, 12)
    question = f"Two villages are {length} cm apart on a map of 1:{scale * 1000:,}. How far apart are they?"
    far = scale * length / 100
    return "geography", question, *each(" km", far, far * 10, far / 10, far * 2, scale)


def _weekday(dice: Dice) -> Drawn:
    today, later = dice.whole(0, 6), dice.whole(16, 100)
    names = _WEEKDAYS
    question = f"Today is {names[today]}. Which day of the week is it in {later} days?"
    right = (today + later) % 7
    return "calendar", question, names[right], [names[(right + step) % 7] for step in (1, 6, 3)]


def _recipe(dice: Dice) -> Drawn:
    few, times, gram = dice.whole(2, 5), dice.whole(2, 5), dice.whole(50, 90, 10)
    question = (
        f"A recipe for {few} people takes {few * gram} g of rice. How much do {few * times} people need?"
    )
    right = few * times * gram
    return "cooking", question, *each(" g", right, few * gram + times, right + gram, few * gram, right * 2)


def _cross(dice: Dice) -> Drawn:
    children = dice.whole(8, 80, 4)
    question = (
        f"Two carriers of a recessive trait are crossed. How many of {children} offspring should show it?"
    )
    wrong = (children // 2, 3 * children // 4, children, children // 8, 0)
    return "genetics", question, *each("", children // 4, *wrong)


KINDS: tuple[Callable[[Dice], Drawn], ...] = (
    _percent,
    _discount,
    _divisor,
    _remainder,
    _linear,
    _roots,
    _power,
    _rectangle,
    _hypotenuse,
    _volume,
    _angle,
    _derivative,
    _mean,
    _median,
    _marbles,
    _pairs,
    _orders,
    _binary,
    _transfer,
    _search,
    _interest,
    _profit,
    _equity,
    _map,
    _weekday,
    _recipe,
    _cross,
)
