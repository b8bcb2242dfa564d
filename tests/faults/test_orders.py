"""Whatever is done after whatever, searchers see one publication and no source is lost silently."""

from collections import Counter
from itertools import product

from catalogue import in_memory
from orders import OPERATIONS, Model, every_order_of
from plain import plain_flows


def test_the_walks_hold_every_order():
    for length in (2, 3):
        walk = every_order_of(length)
        found = Counter(zip(*(walk[i:] for i in range(length)), strict=False))
        assert found == dict.fromkeys(product(OPERATIONS, repeat=length), 1)


def test_after_every_three_operations_searchers_see_one_publication():
    with in_memory() as root, plain_flows():
        model = Model(root)
        for operation in every_order_of(3):
            model.run(operation)
