"""The sentences' skeletons: what customers say around the things they order.

A skeleton holds slots and, in square brackets, parts that a row may leave out. Slots: `{items}`; `{date}`
after "for", `{on}` where an adverb stands; `{time}`; `{name}`; one of `{wish}` ("no sugar"), `{allergy}`
("nut allergy") and `{note}` (either); `{service}`. A capital first letter capitalises the filler.

Test skeletons are worded and ordered differently from train skeletons, so a score on them measures whether
the task was learnt, not the sentences. Each stands under the service that its words ask for; under "said" the
slot asks, and "pickup" is meant where the slot is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]

SKELETONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "pickup": (
            "Could I get {items} for {date}[ at {time}]?[ Name's {name}.][ Note: {note}.]",
            "Hi, can I order {items} for {date}[ at {time}]?[ It's for {name}.]",
            "{Items} for {date}[, {time}], please.[ - {name}]",
            "I'd like {items}, please. I'll come by {on}[ at {time}].[ Name: {name}.]",
            "Hello![ {name} here.] May I have {items} {on}[ at {time}]?",
            "Please put aside {items} for {date}.[ I'll be there at {time}.][ Thanks, {name}]",
            "We need {items} by {time} {on}[, {wish} please].[ The name is {name}.]",
            "{On}[ at {time}] I'd love {items}[, {wish} if possible].[ {name} is the name.]",
            "Order for {name}: {items}, {date}[, {time}][ ({note})].",
            "Can you have {items} ready {on}[ by {time}]?[ There's a {allergy} to keep in mind.]",
            "Good morning, {items} for {date} please[, pickup at {time}].[ I'm {name}.]",
            "[This is {name}. ]I want to order {items} for {date}[ at {time}].[ And {wish}, please.]",
            "Save me {items} {on}, would you?[ I'll drop in at {time}.][ Cheers, {name}]",
            "Hey, it's {name}. {Items} {on}[ at {time}][, {wish} please]!",
            "Need {items}. {Date}[, {time}].[ Name {name}.][ Also: {note}.]",
            "My mum would love {items}, so could I collect that {on}[ at {time}]?[ Put it under {name}.]",
            "I'll be with you {on} at {time} for {items}.[ Look out for {name}.]",
            "Is it possible to get {items} {on}[ at {time}]?[ We have a {allergy}.][ Thank you, {name}]",
            "For me {on}[ at {time}]: {items}.[ {name}.]",
            "Let me have {items} for {date}[ at {time}].[ I have a {allergy}.][ {name}]",
            "Put me down for {items} {on}[, say {time}].[ My name's {name}.]",
            "One order please: {items}. Pickup {on}[ at {time}].[ Under {name}.][ Note: {note}.]",
            "I'm stopping by {on}[ at {time}] and hoping for {items}.[ It's {name}, by the way.]",
            "[{name} again! ]Same idea as last week, but {items} this time, {on}[ at {time}].",
            "Office treat {on}[, {time}]: {items}[, {wish} please].[ Ask for {name}.]",
            "Any chance of {items} for {date}[ at {time}]?[ Someone has a {allergy}.]",
            "Could you set {items} aside? I can fetch everything {on}[ at {time}].[ {name}]",
            "For {date}[, {time}]: {items}.[ Customer: {name}.][ Remark: {note}.]",
            "I would like to place an order for {items}, to be collected {on}[ at {time}].[ Regards, {name}]",
            "Can I grab {items} {on}[ at {time}]?[ - {name}][ PS: {note}]",
            "[It's {name}. ]Please make {items} for me for {date}[, I'll come at {time}].",
            "We're having guests {on}, so {items} please[, ready at {time}].[ Also {wish}, please.]",
            "So, I was thinking {items} for {date}[, let's aim for {time}].[ Name is {name}.]",
            "Is it OK to order {items} for {date}[ at {time}]?[ Just remember the {allergy}.][ Best, {name}]",
            "{Items} please. {On}[ at {time}]. Takeaway.[ {name}.]",
            "Reserve {items} under {name} for {date}[ at {time}], please.",
            "It's my birthday {on}, so {items} for the team, please.[ Best, {name}]",
            "My colleagues asked me for {items}; is {on}[ at {time}] possible?[ {name}]",
            "A question: do you open {on}? If so, {items}, please[, ready at {time}].[ I'm {name}.]",
            "Are you there {on}[ at {time}]? Then one order from me: {items}.[ {name}]",
        ),
        "delivery": (
            "Can you deliver {items} {on}[ at {time}]?[ Ring for {name}.][ And {wish} please.]",
            "Please send {items} to our office {on}[, {time}].[ Attention {name}.]",
            "I'd like {items} delivered {on}[ at {time}].[ My name is {name}.][ Note: {note}.]",
            "Delivery for {date}[ at {time}], please: {items}.[ For {name}.]",
            "[{name} speaking. ]Could you bring {items} to our door {on}[ by {time}]?",
            "We're stuck at home, please deliver {items} {on}[ at {time}].[ Beware, {allergy}!][ - {name}]",
            "{Items} to be delivered {on}[ at {time}].[ Name: {name}.]",
            "Do you deliver? If so, {items} for {date}[ at {time}], please.[ I'm {name}, {wish}, thanks.]",
            "{On}[ at {time}] we'd need {items} brought to our office.[ Contact is {name}.]",
            "Home delivery {on}[, {time}]. {Items}.[ {name}.][ ({note})]",
            "Hi there, {items} with delivery {on}[ at {time}] please.[ Thanks! {name}]",
            "Could someone drop {items} off at our place {on}[ at {time}]?[ We've got a {allergy} here.]",
        ),
        "table": (
            "A table for us {on}[ at {time}], please, with {items}.[ {name}]",
            "We want to sit down {on}[ at {time}] at a table, with {items}.[ Please mind the {allergy}.]",
            "{On}[ at {time}] we come to eat in: a table and {items}, please.[ For {name}.]",
            "Table for {date}[ at {time}], please, with {items}.[ Name's {name}.]",
            "We'd like to eat in {on}[ at {time}] and have {items}.[ There is a {allergy} in our group.]",
            "Can we get a table {on}[ at {time}]? We'll have {items}.[ Booking under {name}.]",
            "[{name} here. ]A table {on}, please[, {time}]. {Items} to start with.",
            "I'll sit down with a friend {on}[ at {time}]: {items} at our table, please[, {wish}].[ {name}]",
            "Please book us a table for {date}[ at {time}] and bring {items}.[ For {name}.][ Note: {note}.]",
            "Eating in {on}[, {time}]: {items}.[ Name {name}.]",
            "Hi, may we sit inside {on}[ at {time}]? {Items} for us, please.[ I'm {name}.]",
            "{Items}, served at a table {on}[ at {time}].[ It's for {name}.][ Preferably {wish}.]",
            "We'll dine in {on}[ at {time}]. Could you prepare {items}?[ Thanks, {name}]",
        ),
        "said": (
            "{Items}[ {service}] {on}[ at {time}].[ {name} is my name.]",
            "Can I have {items}[ {service}], {on}[ at {time}]?[ Name's {name}.]",
            "I need {items}[ {service}] {on}[ at {time}].[ Thanks from {name}.][ Please: {wish}.]",
            "Hello, {items}[ {service}] please, {on}[, {time}].[ - {name}]",
            "[Name: {name}. ]{Items}. {On}[, {time}][, {service}].[ Note: {note}.]",
            "We'd love {items}[ {service}] {on}[ at {time}].[ One of us has a {allergy}.]",
            "{On}, please, {items}[ {service}][, at {time}].[ Signed, {name}]",
            "[Hi, I'm {name}. ]I'd take {items}[ {service}] {on}[ at {time}].",
        ),
    },
    "test": {
        "pickup": (
            "Morning! I was hoping to pick up {items} {on}[ at {time}].[ The order's for {name}.]",
            "Do you think you could do {items} for {date}[, let's say {time}]?[ {name} is asking.]",
            "[My name is {name} and ]I want {items} {on}[ at {time}].",
            "Keep {items} back for me, I'm coming {on}[ at {time}].[ Note: {note}.][ {name}]",
            "It's my turn to feed the office {on}[ at {time}], so {items}, please.[ Bye, {name}]",
            "Two questions in one: are you open {on}, and can I get {items}[ at {time}]?[ Name: {name}.]",
            "{name} would like {items} for {date}[ at {time}][, {wish} if that's OK].",
            "How about {items} {on}[ at {time}]?[ I'm {name}, hello.]",
            "Add {items} to your list for {date}[, {time}].[ It's under {name}.]",
            "Ordering {items}. Collecting {on}[ at {time}].[ Mind the {allergy}.][ Yours, {name}]",
            "I promised my team {items}. Could that be ready {on}[ by {time}]?[ Name's {name}.]",
            "Pickup, {date}[, {time}]: {items}.[ {name}.][ Important: {note}.]",
            "Hey there, {items} would be great {on}[ at {time}][, {wish} please].[ Love, {name}]",
            "If you have {items} {on}, I'll take that[ at {time}].[ For {name}, please.]",
            "Dear team, kindly prepare {items} for {date}[ at {time}].[ Kind regards, {name}]",
        ),
        "delivery": (
            "Would you deliver to us {on}[ at {time}]? It would be {items}.[ I'm called {name}.]",
            "Deliver {items} {on} please[, {time}].[ We have a {allergy} at home.][ {name}]",
            "I can't leave the house, could {items} be delivered {on}[ at {time}]?[ Thanks, it's {name}.]",
            "For delivery: {items}. {On}[ at {time}].[ Recipient: {name}.][ Heads-up: {note}.]",
            "Please bring {items} over to our office for {date}[, {time}].[ Ask for {name} there.]",
            "Our office wants {items}, delivery {on}[ by {time}].[ Note: {note}.]",
        ),
        "table": (
            "Is a table free {on}[ at {time}]? We'd go for {items}.[ My name's {name}.]",
            "[Good day, {name} here. ]We will eat in {on}[ at {time}], {items} please.",
            "Book a table {on}[ at {time}]. On it, please: {items}.[ Name {name}.][ Ideally {wish}.]",
            "{Items} for us to eat in, {on}[, {time}].[ I'm {name}.]",
            "Sitting in {on}[ at {time}], a table please and {items}.[ One guest has a {allergy}.]",
        ),
        "said": (
            "What I need: {items}[, {service}], {on}[ at {time}].[ Call me {name}.]",
            "Please note down {items}[ {service}] {on}[ at {time}].[ {name} is ordering.]",
            "{name}: {items}[ {service}], {on}[ at {time}][, {wish} please]. Thank you.",
            "{On}[ at {time}], if you can, {items}[ {service}].[ Name would be {name}.]",
        ),
    },
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One skeleton. `key` names it across both splits; `service` is what its words ask for, or "said"."""

    key: str
    split: Split
    service: str
    skeleton: str


PATTERNS = tuple(
    Pattern(f"p{number:03}", split, service, skeleton)
    for number, (split, service, skeleton) in enumerate(
        (
            (split, service, skeleton)
            for split, services in SKELETONS.items()
            for service, skeletons in services.items()
            for skeleton in skeletons
        ),
        start=1,
    )
)
