"""The difference between two configurations as a value."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.config.model import Configuration
from seamless.node.change import Change, changes
from seamless.test.node.network import node

BLOCKS = (
    "overlay test { }",
    *(node(name, f"10.0.0.{number}:7400") for number, name in enumerate(("a", "b", "c"), 1)),
    "link a b { rate 100 mbit; }",
    "link b c { }",
)


def file(*changed: tuple[str, str], more: tuple[str, ...] = ()) -> Configuration:
    """Return the configuration of ``BLOCKS`` with these texts replaced, and with more blocks."""
    text = "\n".join((*BLOCKS, *more))
    for old, new in changed:
        assert old in text, old
        text = text.replace(old, new)
    return load_text(text, "test.conf")


def lines(change: Change) -> list[str]:
    return str(change).splitlines()


class ChangeTests(SynchronousTestCase):
    def change(self, new: Configuration, name: str = "a") -> Change:
        return changes(file(), new, name)

    def test_nothing(self) -> None:
        change = self.change(file())
        self.assertEqual(change, Change())
        self.assertEqual(str(change), "nothing differs")

    def test_a_link_has_another_rate(self) -> None:
        new = file(("100 mbit", "20 mbit"))
        change = self.change(new)
        self.assertEqual(lines(change), ["rate of link a b: 100 mbit -> 20 mbit"])
        ((old_plan, new_plan),) = change.adjusted
        self.assertEqual((old_plan.rate_bps, new_plan.rate_bps), (100_000_000, 20_000_000))
        self.assertEqual(old_plan.settings, new_plan.settings)
        self.assertFalse(change.opened or change.closed or change.changes_topology)
        elsewhere = self.change(new, "c")
        self.assertEqual(lines(elsewhere), lines(change))
        self.assertFalse(elsewhere.adjusted, "no link of this node")

    def test_an_added_node_with_a_link(self) -> None:
        new = file(more=(node("d", "10.0.0.4:7400"), "link a d { cost 7; }"))
        change = self.change(new)
        self.assertEqual(lines(change), ["node d is added", "link a d is added"])
        self.assertEqual([added.name for added in change.added_nodes], ["d"])
        (plan,) = change.opened
        self.assertEqual((plan.settings.neighbor, plan.settings.cost), ("d", 7))
        self.assertTrue(change.changes_topology)
        back = changes(new, file(), "a")
        self.assertEqual(lines(back), ["node d is removed", "link a d is removed"])
        self.assertEqual(([removed.name for removed in back.removed_nodes], back.closed), (["d"], (plan,)))

    def test_a_node_with_another_key_is_another_node(self) -> None:
        key = BLOCKS[2].split('"')[1]
        other = node("elsewhere", "10.0.0.9").split('"')[1]
        change = self.change(file((key, other)))
        self.assertEqual(lines(change), [f"key of node b: {key} -> {other}"])
        self.assertEqual([old.name for old in change.removed_nodes], ["b"])
        self.assertEqual([new.name for new in change.added_nodes], ["b"])
        self.assertEqual((len(change.closed), len(change.opened), change.adjusted), (1, 1, ()))

    def test_hello_and_dead_concern_every_link(self) -> None:
        change = self.change(file(("overlay test { }", "overlay test { hello 50 ms; dead 200 ms; }")), "b")
        self.assertEqual(
            lines(change), ["hello of the overlay: 100 ms -> 50 ms", "dead of the overlay: 300 ms -> 200 ms"]
        )
        self.assertEqual(len(change.adjusted), 2)

    def test_what_the_core_does_not_act_on(self) -> None:
        change = self.change(
            file(("10.0.0.2:7400;", "10.0.0.2:7400; serves 10.9.0.0/16;"), more=("intercept payload { tcp port 80; }",))
        )
        self.assertEqual(lines(change), ["serves of node b: not set -> 10.9.0.0/16", "intercept block 1 is added"])
        self.assertEqual(change, Change(change.differences))

    def test_what_needs_a_restart(self) -> None:
        key = BLOCKS[1].split('"')[1]
        other = node("elsewhere", "10.0.0.9").split('"')[1]
        for new, reason in (
            (file((key, other)), "node a, which is this one, has another key: restart the daemon with that key"),
            (file(("10.0.0.1", "10.0.0.11")), "node a, which is this one, has other addresses: restart the daemon"),
            (file(("node a ", "node z "), ("link a b", "link z b")), "it has no node a, which is this one: stop the"),
        ):
            (said,) = self.change(new).needs_restart
            self.assertIn(reason, said)
            self.assertEqual(self.change(new, "b").needs_restart, (), "it concerns node a only")
