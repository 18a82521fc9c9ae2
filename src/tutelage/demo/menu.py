"""The values that fill the orders' slots: products, amounts, names, notes, times, ways of service.

Everything is a tuple or a dict in a fixed order, so that a seed means the same rows everywhere. What is held
out occurs in test rows only: names and notes have to be copied, not remembered.
"""

from __future__ import annotations

DRINKS = {
    "oat latte": "oat lattes",
    "cappuccino": "cappuccinos",
    "flat white": "flat whites",
    "espresso": "espressos",
    "hot chocolate": "hot chocolates",
    "iced tea": "iced teas",
    "mocha": "mochas",
}
BAKED = {
    "butter croissant": "butter croissants",
    "almond croissant": "almond croissants",
    "cinnamon roll": "cinnamon rolls",
    "blueberry muffin": "blueberry muffins",
    "scone": "scones",
    "bagel": "bagels",
    "baguette": "baguettes",
    "sourdough loaf": "sourdough loaves",
    "brownie": "brownies",
    "lemon tart": "lemon tarts",
    "apple pie": "apple pies",
    "carrot cake": "carrot cakes",
    "cheesecake": "cheesecakes",
    "macaron": "macarons",
    "doughnut": "doughnuts",
    "pretzel": "pretzels",
    "berry danish": "berry danishes",
}
MENU = DRINKS | BAKED

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
AMOUNTS = {2: "a couple of", 12: "a dozen"}

NAMES = (
    *("Priya", "Owen", "Elena", "Marcus", "Yuki", "Fatima", "Oliver", "Ingrid", "Carlos", "Amara"),
    *("Sophie", "Dmitri", "Leila", "Henry", "Noor", "Bruno", "Chloe", "Sanjay", "Greta", "Tariq"),
    *("Hannah", "Kofi", "Maya", "Pedro", "Lucy", "Anton", "Zoe", "Ravi", "Nina", "Felix"),
)
HELDOUT_NAMES = ("Aisha", "Gloria", "Camila", "Darius", "Freya", "Giorgio", "Hiroko", "Wanda")

WISHES = ("extra napkins", "no plastic", "card payment", "cash payment", "receipt included")
DRINK_WISHES = ("no sugar", "little sugar")
BAKED_WISHES = ("gift wrapped", "boxed up")
HELDOUT_WISHES = ("no cutlery", "extra plates")
ALLERGIES = ("nut allergy", "milk allergy", "gluten allergy", "egg allergy")
HELDOUT_ALLERGIES = ("fish allergy",)

SERVICES = {
    "pickup": ("for pickup", "to take away"),
    "delivery": ("for delivery", "to be delivered"),
    "table": ("to eat in", "to eat at a table"),
}

TIMES = tuple(f"{hour:02}:00" for hour in range(8, 18))
"""Opening hours: 08:00 to 17:00."""
AFTERNOON = TIMES[5:]
"""Drawn more often: "3 pm" has to become 15:00."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
