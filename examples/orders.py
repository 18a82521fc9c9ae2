"""Makes the demo's data: a customer's sentence in, an order as JSON out.

    python examples/orders.py FOLDER [--train 900] [--test 200] [--seed 0]

It writes FOLDER/train.jsonl and FOLDER/test.jsonl, and prints the lines of a recipe that trains on the one and
scores on the other. The rows are made by `tutelage.demo.orders`, which the installed `tutelage demo` uses too.
"""

from __future__ import annotations

from tutelage.demo.orders import main

if __name__ == "__main__":
    main()
