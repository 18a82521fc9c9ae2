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
    AFTERNOON,
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

CALENDAR_DAYS = 6
DAYS_AHEAD = (0, 1, 1, 2, 3, 4, 5)

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


def say_today(today: date) -> str:
    """The opening of every order: today and the next five days, as on the calendar in the shop."""
    return f"Calendar: {', '.join(write_day(days, today) for days in range(CALENDAR_DAYS))}."


def write_day(days: int, today: date) -> str:
    """The day so many days ahead, as the calendar and the order write it: "tomorrow 29 July", "Friday 1 August"."""
    day = today + timedelta(days=days)
    return f"{name_day(days, today)} {day.day} {MONTHS[day.month - 1]}"


def name_day(days: int, today: date) -> str:
    """Today, tomorrow, or the weekday."""
    return ("today", "tomorrow")[days] if days < 2 else WEEKDAYS[(today.weekday() + days) % 7]


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


def draw_day(today: date, rng: Random) -> tuple[str, str, str]:
    """A day of the calendar as the order writes it, how it is said after "for", and how as an adverb."""
    days = pick(DAYS_AHEAD, rng)
    said = name_day(days, today)
    return write_day(days, today), said, said if days < 2 else f"on {said}"


def draw_time(rng: Random) -> tuple[str, str]:
    """A time as HH:MM, and one way to say it."""
    time = pick((*TIMES, *AFTERNOON), rng)
    hour = int(time[:2])
    spoken = "noon" if hour == 12 else f"{hour - 12 * (hour > 12)} {'am' if hour < 12 else 'pm'}"
    return time, pick((time, spoken, spoken, spoken), rng)


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
