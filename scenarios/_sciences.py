"""Questions on nature with changing quantities (see _dice)."""

from __future__ import annotations

from collections.abc import Callable

from scenarios._dice import Dice, Drawn, each


def _speed(dice: Dice) -> Drawn:
    hours, speed = dice.whole(2, 6), dice.whole(40, 120, 5)
    question = f"A train covers {hours * speed} km in {hours} hours. What is its average speed?"
    return "mechanics", question, *each(" km/h", speed, speed + 10, speed - 5, speed * 2, speed + 25)


def _distance(dice: Dice) -> Drawn:
    minutes, speed = dice.whole(10, 50, 10), dice.whole(12, 30, 6)
    question = f"A cyclist rides at a steady {speed} km/h for {minutes} minutes. How far does she get?"
    far = speed * minutes / 60
    return "mechanics", question, *each(" km", far, far * 2, far + 2, speed * minutes / 100, far + 5)


def _force(dice: Dice) -> Drawn:
    mass, push = dice.whole(2, 12), dice.whole(2, 9)
    question = f"A net force of {mass * push} N acts on a body of {mass} kg. What is its acceleration?"
    return (
        "mechanics",
        question,
        *each(" m/s²", push, mass * mass * push, push + mass, mass, push + 1, push + 3),
    )


def _kinetic(dice: Dice) -> Drawn:
    mass, speed = dice.whole(2, 20, 2), dice.whole(3, 12)
    question = f"What is the kinetic energy of a body of {mass} kg that moves at {speed} m/s?"
    joule = mass * speed**2 // 2
    return "mechanics", question, *each(" J", joule, 2 * joule, mass * speed, mass * speed / 2, joule + 10)


def _ohm(dice: Dice) -> Drawn:
    ohm, ampere = dice.whole(3, 24), dice.whole(2, 9)
    question = (
        f"A current of {ampere} A flows through a resistor of {ohm} ohms. What is the voltage across it?"
    )
    volt = ohm * ampere
    return "electricity", question, *each(" V", volt, ohm + ampere, volt * ampere, volt + 5, volt * 2)


def _series(dice: Dice) -> Drawn:
    one, other, third = dice.whole(2, 9), dice.whole(10, 19), dice.whole(20, 40)
    question = f"Resistors of {one}, {other} and {third} ohms are connected in series. What is their total?"
    total = one + other + third
    return "electricity", question, *each(" ohms", total, third, one + other, third - one, total + 10)


def _energy_bill(dice: Dice) -> Drawn:
    watt, hours = dice.whole(400, 2000, 200), dice.whole(2, 9)
    question = f"How much energy does a heater of {watt} W use in {hours} hours?"
    kwh = watt * hours / 1000
    return "electricity", question, *each(" kWh", kwh, kwh * 10, kwh / 2, watt / hours, kwh + 1, kwh + 3)


def _half_life(dice: Dice) -> Drawn:
    days, lives = dice.whole(3, 20), dice.whole(2, 5)
    question = f"A sample's half-life is {days} days. How much of it is left after {days * lives} days?"
    wrong = [f"1/{value}" for value in (2 * lives, 2 ** (lives - 1), lives, 2 ** (lives + 1), lives + 5)]
    return "nuclear physics", question, f"1/{2**lives}", wrong


def _wavelength(dice: Dice) -> Drawn:
    length, frequency = dice.whole(2, 9), dice.whole(50, 400, 50)
    question = f"A wave of {frequency} Hz travels at {length * frequency} m/s. What is its wavelength?"
    return "waves", question, *each(" m", length, length + 1, length * 10, 2 * length, frequency)


def _density(dice: Dice) -> Drawn:
    volume, density = dice.whole(5, 40, 5), dice.whole(2, 11)
    question = f"A stone of {volume * density} g takes up {volume} cm³. What is its density?"
    return (
        "physics",
        question,
        *each(" g/cm³", density, density + 2, volume, density * volume, density / 2, 12),
    )


def _celsius(dice: Dice) -> Drawn:
    celsius = dice.whole(5, 95, 5)
    question = f"What is {celsius} °C on the Fahrenheit scale?"
    degrees = celsius * 9 // 5 + 32
    return (
        "measurement",
        question,
        *each(" °F", degrees, degrees - 32, celsius + 32, degrees + 18, 2 * degrees),
    )


def _molar(dice: Dice) -> Drawn:
    name, mass = dice.one(["water:18", "carbon dioxide:44", "methane:16", "ammonia:17"]).split(":")
    moles = dice.whole(2, 12)
    question = f"The molar mass of {name} is about {mass} g/mol. How much do {moles} moles of it weigh?"
    gram = int(mass) * moles
    return "chemistry", question, *each(" g", gram, int(mass) + moles, gram / 2, gram + int(mass), gram * 10)


def _neutrons(dice: Dice) -> Drawn:
    protons, extra = dice.whole(6, 40), dice.whole(1, 9)
    mass = 2 * protons + extra
    question = f"An atom has {protons} protons and a mass number of {mass}. How many neutrons has it?"
    return "chemistry", question, *each("", mass - protons, protons, mass, mass + protons, extra)


def _dilution(dice: Dice) -> Drawn:
    factor, share = dice.whole(2, 5), dice.whole(2, 10)
    question = (
        f"100 ml of a salt solution of {factor * share} % are filled up with water to {100 * factor} ml. "
        "What is the new concentration?"
    )
    return "chemistry", question, *each(" %", share, factor * share, share / 2, share + factor, share + 1)


KINDS: tuple[Callable[[Dice], Drawn], ...] = (
    _speed,
    _distance,
    _force,
    _kinetic,
    _ohm,
    _series,
    _energy_bill,
    _half_life,
    _wavelength,
    _density,
    _celsius,
    _molar,
    _neutrons,
    _dilution,
)
