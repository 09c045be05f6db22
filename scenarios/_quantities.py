"""Questions with changing quantities: each kind draws its numbers, its right answer and likely wrong ones.

A kind is a function that takes Dice and gives (question, right choice, wrong choices, the likeliest first).
The wrong ones are what comes of a usual mistake; those that happen to be right or stand twice are passed
over, so each list is a little longer than needed. The order of the kinds decides their draws: add new ones
at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import comb, factorial, gcd

Drawn = tuple[str, str, list[str]]


class Dice:
    """Whole numbers and names out of one stream of uniform draws."""

    def __init__(self, draws: Iterator[float]) -> None:
        self._draws = draws

    def whole(self, lowest: int, highest: int, step: int = 1) -> int:
        """A multiple of `step` above `lowest`, up to `highest`."""
        return lowest + step * int(next(self._draws) * ((highest - lowest) // step + 1))

    def one(self, names: Sequence[str]) -> str:
        """One of the names."""
        return names[self.whole(0, len(names) - 1)]


KINDS: list[tuple[str, Callable[[Dice], Drawn]]] = []
"""Subject and function of every kind."""


def _kind(subject: str) -> Callable[[Callable[[Dice], Drawn]], Callable[[Dice], Drawn]]:
    def keep(function: Callable[[Dice], Drawn]) -> Callable[[Dice], Drawn]:
        KINDS.append((subject, function))
        return function

    return keep


def each(unit: str, right: float, *wrong: float) -> tuple[str, list[str]]:
    """The right and the wrong numbers as texts with their unit."""
    right_text, *others = (f"{value:,.10g}{unit}" for value in (right, *wrong))
    return right_text, others


@_kind("mechanics")
def speed(dice: Dice) -> Drawn:
    hours, speed = dice.whole(2, 6), dice.whole(40, 120, 5)
    question = f"A train covers {hours * speed} km in {hours} hours. What is its average speed?"
    return question, *each(" km/h", speed, speed + 10, speed - 5, speed * 2, speed + 25)


@_kind("mechanics")
def distance(dice: Dice) -> Drawn:
    minutes, speed = dice.whole(10, 50, 10), dice.whole(12, 30, 6)
    question = f"A cyclist rides at a steady {speed} km/h for {minutes} minutes. How far does she get?"
    far = speed * minutes / 60
    return question, *each(" km", far, far * 2, far + 2, speed * minutes / 100, far + 5)


@_kind("mechanics")
def force(dice: Dice) -> Drawn:
    mass, push = dice.whole(2, 12), dice.whole(2, 9)
    question = f"A net force of {mass * push} N acts on a body of {mass} kg. What is its acceleration?"
    return question, *each(" m/s²", push, mass * mass * push, push + mass, mass, push + 1, push + 3)


@_kind("mechanics")
def kinetic(dice: Dice) -> Drawn:
    mass, speed = dice.whole(2, 20, 2), dice.whole(3, 12)
    question = f"What is the kinetic energy of a body of {mass} kg that moves at {speed} m/s?"
    joule = mass * speed**2 // 2
    return question, *each(" J", joule, 2 * joule, mass * speed, mass * speed / 2, joule + 10)


@_kind("electricity")
def ohm(dice: Dice) -> Drawn:
    ohm, ampere = dice.whole(3, 24), dice.whole(2, 9)
    question = (
        f"A current of {ampere} A flows through a resistor of {ohm} ohms. What is the voltage across it?"
    )
    volt = ohm * ampere
    return question, *each(" V", volt, ohm + ampere, volt * ampere, volt + 5, volt * 2)


@_kind("electricity")
def series(dice: Dice) -> Drawn:
    one, other, third = dice.whole(2, 9), dice.whole(10, 19), dice.whole(20, 40)
    question = f"Resistors of {one}, {other} and {third} ohms are connected in series. What is their total?"
    total = one + other + third
    return question, *each(" ohms", total, third, one + other, third - one, total + 10)


@_kind("electricity")
def energy_bill(dice: Dice) -> Drawn:
    watt, hours = dice.whole(400, 2000, 200), dice.whole(2, 9)
    question = f"How much energy does a heater of {watt} W use in {hours} hours?"
    kwh = watt * hours / 1000
    return question, *each(" kWh", kwh, kwh * 10, kwh / 2, watt / hours, kwh + 1, kwh + 3)


@_kind("nuclear physics")
def half_life(dice: Dice) -> Drawn:
    days, lives = dice.whole(3, 20), dice.whole(2, 5)
    question = f"A sample's half-life is {days} days. How much of it is left after {days * lives} days?"
    wrong = [f"1/{value}" for value in (2 * lives, 2 ** (lives - 1), lives, 2 ** (lives + 1), lives + 5)]
    return question, f"1/{2**lives}", wrong


@_kind("waves")
def wavelength(dice: Dice) -> Drawn:
    length, frequency = dice.whole(2, 9), dice.whole(50, 400, 50)
    question = f"A wave of {frequency} Hz travels at {length * frequency} m/s. What is its wavelength?"
    return question, *each(" m", length, length + 1, length * 10, 2 * length, frequency)


@_kind("physics")
def density(dice: Dice) -> Drawn:
    volume, density = dice.whole(5, 40, 5), dice.whole(2, 11)
    question = f"A stone of {volume * density} g takes up {volume} cm³. What is its density?"
    return question, *each(" g/cm³", density, density + 2, volume, density * volume, density / 2, 12)


@_kind("measurement")
def celsius(dice: Dice) -> Drawn:
    celsius = dice.whole(5, 95, 5)
    question = f"What is {celsius} °C on the Fahrenheit scale?"
    degrees = celsius * 9 // 5 + 32
    return question, *each(" °F", degrees, degrees - 32, celsius + 32, degrees + 18, 2 * degrees)


@_kind("chemistry")
def molar(dice: Dice) -> Drawn:
    name, mass = dice.one(["water:18", "carbon dioxide:44", "methane:16", "ammonia:17"]).split(":")
    moles = dice.whole(2, 12)
    question = f"The molar mass of {name} is about {mass} g/mol. How much do {moles} moles of it weigh?"
    gram = int(mass) * moles
    return question, *each(" g", gram, int(mass) + moles, gram / 2, gram + int(mass), gram * 10)


@_kind("chemistry")
def neutrons(dice: Dice) -> Drawn:
    protons, extra = dice.whole(6, 40), dice.whole(1, 9)
    mass = 2 * protons + extra
    question = f"An atom has {protons} protons and a mass number of {mass}. How many neutrons has it?"
    return question, *each("", mass - protons, protons, mass, mass + protons, extra)


@_kind("chemistry")
def dilution(dice: Dice) -> Drawn:
    factor, share = dice.whole(2, 5), dice.whole(2, 10)
    question = (
        f"100 ml of a salt solution of {factor * share} % are filled up with water to {100 * factor} ml. "
        "What is the new concentration?"
    )
    return question, *each(" %", share, factor * share, share / 2, share + factor, share + 1)


@_kind("arithmetic")
def percent(dice: Dice) -> Drawn:
    share, whole = dice.whole(5, 95, 5), dice.whole(40, 600, 20)
    question = f"What is {share} % of {whole}?"
    part = share * whole / 100
    return question, *each("", part, whole - part, part * 10, part / 2, part + 5, share)


@_kind("arithmetic")
def discount(dice: Dice) -> Drawn:
    price, cut = dice.whole(40, 400, 20), dice.whole(10, 45, 5)
    question = f"A coat costs {price} euros and is sold at {cut} % off. What does one pay?"
    paid = price * (100 - cut) / 100
    wrong = (price - paid, price - cut, paid + 10, price + price - paid, paid - 5)
    return question, *each(" euros", paid, *wrong)


@_kind("arithmetic")
def divisor(dice: Dice) -> Drawn:
    common, one, other = dice.whole(3, 15), dice.whole(2, 9), dice.whole(2, 9)
    right = gcd(common * one, common * other)
    question = f"What is the largest common divisor of {common * one} and {common * other}?"
    return question, *each("", right, right * 2, 1, right + 1, right * 3, right + 2)


@_kind("arithmetic")
def remainder(dice: Dice) -> Drawn:
    divisor, dividend = dice.whole(6, 12), dice.whole(100, 400)
    question = f"What remains when {dividend} is divided by {divisor}?"
    left = dividend % divisor
    return question, *each("", left, dividend // divisor, divisor - left, left + 1, left + 2, left + 4)


@_kind("algebra")
def linear(dice: Dice) -> Drawn:
    factor, root, shift = dice.whole(2, 9), dice.whole(2, 15), dice.whole(1, 20)
    question = f"For which x is {factor}x + {shift} equal to {factor * root + shift}?"
    return question, *each("", root, factor * root, root + shift, root + 1, -root, root + 2)


@_kind("algebra")
def roots(dice: Dice) -> Drawn:
    low, high = dice.whole(1, 6), dice.whole(7, 12)
    question = f"For which values of x is x² - {low + high}x + {low * high} equal to zero?"
    wrong = [f"-{low} and -{high}", f"{low} and {high + 1}", f"{low + high} only", f"1 and {low * high}"]
    return question, f"{low} and {high}", [*wrong, f"{low + 1} and {high + 2}"]


@_kind("algebra")
def power(dice: Dice) -> Drawn:
    base, one, other = dice.whole(2, 9), dice.whole(2, 6), dice.whole(7, 9)
    question = f"Which power equals {base}^{one} times {base}^{other}?"
    pairs = [(base, one * other), (base * base, one + other), (base, other - one), (2 * base, one + other)]
    return question, f"{base}^{one + other}", [f"{a}^{b}" for a, b in pairs]


@_kind("geometry")
def rectangle(dice: Dice) -> Drawn:
    width, extra = dice.whole(3, 15), dice.whole(1, 9)
    length = width + extra
    question = f"A rectangle is {length} cm long and {width} cm wide. What is its perimeter?"
    wrong = (length * width, length + width, 2 * length + width, 4 * length)
    return question, *each(" cm", 2 * (length + width), *wrong)


@_kind("geometry")
def hypotenuse(dice: Dice) -> Drawn:
    shape, times = dice.whole(0, 3), dice.whole(1, 9)
    a, b, c = (times * side for side in ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25))[shape])
    question = f"The short sides of a right triangle are {a} and {b}. How long is the third side?"
    return question, *each("", c, a + b, b, c + times, b - a, c + 2 * times)


@_kind("geometry")
def volume(dice: Dice) -> Drawn:
    side = dice.whole(3, 15)
    question = f"What is the volume of a cube with sides of {side} cm?"
    return question, *each(" cm³", side**3, 6 * side**2, side**2, 3 * side, side**3 + side)


@_kind("geometry")
def angle(dice: Dice) -> Drawn:
    one, other = dice.whole(20, 80, 5), dice.whole(25, 85, 5)
    question = f"Two angles of a plane triangle are {one}° and {other}°. How large is the third?"
    right = 180 - one - other
    return question, *each("°", right, one + other, 180 - one, 180 - other, right + 10, right + 5)


@_kind("calculus")
def derivative(dice: Dice) -> Drawn:
    factor, power = dice.whole(2, 9), dice.whole(3, 8)
    question = f"What is the derivative of {factor}x^{power} with respect to x?"
    pairs = [(factor, power - 1), (factor * power, power), (factor + power, power - 1), (power, power - 1)]
    wrong = [f"{a}x^{b}" for a, b in [*pairs, (factor * (power - 1), power - 1)]]
    return question, f"{factor * power}x^{power - 1}", wrong


@_kind("statistics")
def mean(dice: Dice) -> Drawn:
    middle, low, high = dice.whole(20, 40), dice.whole(1, 9), dice.whole(3, 12)
    values = [middle - low, middle + high, middle, middle + low - high]
    question = f"What is the mean of {values[0]}, {values[1]}, {values[2]} and {values[3]}?"
    return question, *each("", middle, 4 * middle, max(values), min(values), middle + 1, middle + 2)


@_kind("statistics")
def median(dice: Dice) -> Drawn:
    start = dice.whole(2, 30)
    steps = [dice.whole(1, 6) for _ in range(4)]
    values = [start + sum(steps[:i]) for i in range(5)]
    question = f"What is the median of {values[3]}, {values[0]}, {values[4]}, {values[2]} and {values[1]}?"
    return question, *each("", values[2], values[4], values[1], values[3], values[0])


@_kind("probability")
def marbles(dice: Dice) -> Drawn:
    red, blue = dice.whole(2, 9), dice.whole(2, 9)
    question = f"A bag holds {red} red and {blue} blue marbles. What is the chance of drawing a red one?"
    total = red + blue
    pairs = [(blue, total), (red, total + 1), (red, 2 * total), (red, 3 * total)]
    return question, f"{red} in {total}", [f"{a} in {b}" for a, b in pairs]


@_kind("combinatorics")
def pairs(dice: Dice) -> Drawn:
    people = dice.whole(4, 20)
    question = (
        f"{people} people shake hands, each with each of the others once. How many handshakes are there?"
    )
    wrong = (people * (people - 1), people**2, people, comb(people + 1, 2), 2 * people)
    return question, *each("", comb(people, 2), *wrong)


@_kind("combinatorics")
def orders(dice: Dice) -> Drawn:
    books = dice.whole(3, 11)
    question = f"In how many orders can {books} different books stand on a shelf?"
    wrong = (books**2, 2**books, factorial(books - 1), books, factorial(books) * 2)
    return question, *each("", factorial(books), *wrong)


@_kind("computer arithmetic")
def binary(dice: Dice) -> Drawn:
    value = dice.whole(17, 63)
    question = f"What is the decimal value of the binary number {value:b}?"
    return question, *each("", value, value + 1, value - 2, value * 2, value + 4)


@_kind("networking")
def transfer(dice: Dice) -> Drawn:
    rate, seconds = dice.whole(10, 100, 10), dice.whole(5, 40, 5)
    question = (
        f"A line carries {rate} megabytes a second. How long does a file of {rate * seconds} megabytes take?"
    )
    wrong = (seconds * 8, seconds / 8, seconds + rate, seconds * 2, seconds + 5)
    return question, *each(" s", seconds, *wrong)


@_kind("algorithms")
def search(dice: Dice) -> Drawn:
    power = dice.whole(6, 20)
    question = f"At most how many halvings does it take to bring a list of {2**power:,} names down to one?"
    return question, *each("", power, 2 ** (power - 1), power + 4, power * 2, power - 3)


@_kind("finance")
def interest(dice: Dice) -> Drawn:
    money, rate, years = dice.whole(200, 2000, 100), dice.whole(2, 9), dice.whole(2, 8)
    question = f"What do {money} euros earn in {years} years at a simple interest of {rate} % a year?"
    earned = money * rate * years // 100
    wrong = (money * rate // 100, money + earned, earned * 2, rate * years, earned + 10)
    return question, *each(" euros", earned, *wrong)


@_kind("business")
def profit(dice: Dice) -> Drawn:
    count, price, cost = dice.whole(20, 90, 10), dice.whole(12, 30), dice.whole(3, 11)
    question = f"What is earned on {count} lamps that cost {cost} euros each and sell at {price} euros each?"
    wrong = (count * price, count * cost, price - cost, count * (price + cost), count * (price - cost) + 50)
    return question, *each(" euros", count * (price - cost), *wrong)


@_kind("accounting")
def equity(dice: Dice) -> Drawn:
    equity, debts = dice.whole(100, 900, 50), dice.whole(120, 820, 50)
    question = f"A firm owns assets of {equity + debts} and owes debts of {debts}. What is its equity?"
    wrong = (equity + 2 * debts, debts, equity + debts, equity + 20, equity * 2)
    return question, *each("", equity, *wrong)


@_kind("geography")
def map_scale(dice: Dice) -> Drawn:
    scale, length = dice.whole(20, 100, 10), dice.whole(2, 12)
    question = f"Two villages are {length} cm apart on a map of 1:{scale * 1000:,}. How far apart are they?"
    far = scale * length / 100
    return question, *each(" km", far, far * 10, far / 10, far * 2, scale)


@_kind("calendar")
def weekday(dice: Dice) -> Drawn:
    today, later = dice.whole(0, 6), dice.whole(16, 100)
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    question = f"Today is {names[today]}. Which day of the week is it in {later} days?"
    right = (today + later) % 7
    return question, names[right], [names[(right + step) % 7] for step in (1, 6, 3)]


@_kind("cooking")
def recipe(dice: Dice) -> Drawn:
    few, times, gram = dice.whole(2, 5), dice.whole(2, 5), dice.whole(50, 90, 10)
    question = (
        f"A recipe for {few} people takes {few * gram} g of rice. How much do {few * times} people need?"
    )
    right = few * times * gram
    return question, *each(" g", right, few * gram + times, right + gram, few * gram, right * 2)


@_kind("genetics")
def cross(dice: Dice) -> Drawn:
    children = dice.whole(8, 80, 4)
    question = (
        f"Two carriers of a recessive trait are crossed. How many of {children} offspring should show it?"
    )
    wrong = (children // 2, 3 * children // 4, children, children // 8, 0)
    return question, *each("", children // 4, *wrong)
