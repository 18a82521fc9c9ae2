"""Draws what fills a skeleton's slots: the meaning, for the JSON, and one way to say it.

Each draw is made from `Random.random()` alone: its numbers stay the same from one Python version to the next,
which is not promised of `choice` and `shuffle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from random import Random
from typing import TypeVar

from tutelage.demo.menu import (
    ALLERGIES,
    AMOUNTS,
    BAKED,
    BAKED_WISHES,
    DRINK_WISHES,
    DRINKS,
    HELDOUT_ALLERGIES,
    HELDOUT_NAMES,
    HELDOUT_WISHES,
    MENU,
    MONTHS,
    NAMES,
    NUMBERS,
    SERVICES,
    TIMES,
    WEEKDAYS,
    WISHES,
)
from tutelage.demo.patterns import Split

FIRST_DAY, DAYS = date(2025, 1, 1), 3 * 365
QUANTITIES = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12)
"""Small ones are drawn more often."""

T = TypeVar("T")


def pick(options: Sequence[T], rng: Random) -> T:
    """One of the options."""
    return options[int(rng.random() * len(options))]


def shuffle(options: Sequence[T], rng: Random) -> list[T]:
    """The options in another order."""
    keys = [rng.random() for _ in options]
    return [options[i] for i in sorted(range(len(options)), key=keys.__getitem__)]


def draw_today(split: Split, rng: Random) -> date:
    """A day; every fourth one belongs to the test split, so that no sentence can be in both."""
    while True:
        number = int(rng.random() * DAYS)
        if (number % 4 == 0) == (split == "test"):
            return FIRST_DAY + timedelta(days=number)


def say_today(today: date, calendar: bool) -> str:
    """The opening of every order; with the calendar, also the six days that follow."""
    said = f"Today is {WEEKDAYS[today.weekday()]} {today.isoformat()}"
    if not calendar:
        return said + "."
    coming = (today + timedelta(days=days) for days in range(1, 7))
    return f"{said}; {' '.join(f'{WEEKDAYS[day.weekday()]} {_tail(day, today)}' for day in coming)}."


def _tail(day: date, today: date) -> str:
    """The day's ISO date from the first field that differs from today's: "13", "04-01", "2027-01-01"."""
    if day.year != today.year:
        return day.isoformat()
    return day.isoformat()[5:] if day.month != today.month else day.isoformat()[8:]


def draw_items(service: str, rng: Random) -> list[tuple[str, int]]:
    """One to three different products, each with a quantity of 1 to 12, or to 4 at a table."""
    count = pick((1, 1, 1, 1, 1, 1, 1, 2, 2, 3), rng)
    quantities = QUANTITIES[:10] if service == "table" else QUANTITIES
    return [(product, pick(quantities, rng)) for product in shuffle(tuple(MENU), rng)[:count]]


def say_items(items: Sequence[tuple[str, int]], rng: Random) -> str:
    """The items as one phrase, in the same order."""
    *first, last = [_say_item(product, quantity, rng) for product, quantity in items]
    if not first:
        return last
    link = pick(("and", "and", "plus"), rng) if len(first) == 1 else "and"
    return f"{', '.join(first)} {link} {last}"


def _say_item(product: str, quantity: int, rng: Random) -> str:
    if quantity == 1:
        article = "an" if product[0] in "aeiou" else "a"
        return f"{pick((article, article, 'one'), rng)} {product}"
    number = pick((NUMBERS[quantity], AMOUNTS.get(quantity, NUMBERS[quantity]), str(quantity)), rng)
    return f"{number} {MENU[product]}"


def draw_day(today: date, rng: Random) -> tuple[date, str, str]:
    """A day, how it is said after "for", and how it is said as an adverb."""
    kind = pick(("near", "near", "near", "weekday", "weekday", "date"), rng)
    if kind == "near":
        days = pick((0, 1, 1, 2), rng)
        said = ("today", "tomorrow", "the day after tomorrow")[days]
        return today + timedelta(days=days), said, said
    if kind == "weekday":
        day = today + timedelta(days=1 + int(rng.random() * 6))
        said = WEEKDAYS[day.weekday()]
        # "this Friday" is plain only while Friday's week is running
        if day.weekday() > today.weekday() and rng.random() < 0.3:
            return day, f"this {said}", f"this {said}"
        return day, said, f"on {said}"
    bare = rng.random() < 0.3
    day = today + timedelta(days=1 + int(rng.random() * (6 if bare else 13)))
    month = MONTHS[day.month - 1]
    said = f"the {_ordinal(day.day)}" if bare else pick((f"{day.day} {month}", f"{month} {day.day}"), rng)
    return day, said, f"on {said}"


def _ordinal(number: int) -> str:
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def draw_time(rng: Random) -> tuple[str, str]:
    """A time as HH:MM, and one way to say it."""
    time = pick(TIMES, rng)
    hour, half = int(time[:2]), time.endswith("30")
    if time == "12:00":
        return time, pick(("noon", time), rng)
    hour12 = hour - 12 * (hour > 12)
    part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    spoken = f"{'half past ' * half}{NUMBERS[hour12]} in the {part}"
    digits = f"{hour12}{':30' * half} {'am' if hour < 12 else 'pm'}"
    return time, pick((time, digits, digits, spoken), rng)


def draw_service(asked: str, rng: Random) -> tuple[str, str]:
    """The service, and how the slot asks for it."""
    service = pick(tuple(SERVICES), rng) if asked == "said" else asked
    return service, pick(SERVICES[service], rng)


def draw_name(split: Split, rng: Random) -> str:
    """A name; in the test split, every other one is held out from training."""
    heldout = split == "test" and rng.random() < 0.5
    return pick(HELDOUT_NAMES if heldout else NAMES, rng)


def draw_notes(split: Split, products: Sequence[str], rng: Random) -> tuple[str, str]:
    """A wish that suits all the products, and an allergy."""
    wishes: tuple[str, ...] = WISHES
    allergies: tuple[str, ...] = ALLERGIES
    if split == "test":
        wishes, allergies = wishes + HELDOUT_WISHES, allergies + HELDOUT_ALLERGIES
    if all(product in DRINKS for product in products):
        wishes += DRINK_WISHES
    if all(product in BAKED for product in products):
        wishes += BAKED_WISHES
    return pick(wishes, rng), pick(allergies, rng)
