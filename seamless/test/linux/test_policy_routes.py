"""Routes by mark: commands as values, and in a kernel beside foreign rules."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from seamless.linux import installation, policy_routes
from seamless.linux.policy_routes import LocalRoute, missing, removal, table_number
from seamless.test.linux.namespaces import NamespaceTestCase

MARK = 0x2000
WANTED = (LocalRoute("test", 4, MARK), LocalRoute("test", 6, MARK))


class KernelTests(NamespaceTestCase):
    """In a namespace of our own."""

    def foreign(self) -> str:
        shown = [self.namespace.run("ip", version, "rule", "show") for version in ("-4", "-6")]
        return "\n".join(line for text in shown for line in text.splitlines() if str(table_number("test")) not in line)

    def test_they_come_and_go(self) -> None:
        for words in (
            ("rule", "add", "pref", "7400", "fwmark", "0x2000", "lookup", "main"),
            ("rule", "add", "pref", "7400", "fwmark", "0x1", "lookup", str(table_number("another"))),
        ):
            self.namespace.run("ip", *words)
        before = self.foreign()
        self.assertFalse(installation.sweep("test"))
        for _ in range(3):
            installation.apply(WANTED)
            self.assertTrue(installation.is_installed(WANTED))
        self.assertEqual(self.namespace.run("ip", "rule", "show").count(str(table_number("test"))), 1)
        self.assertIn("dev lo", self.namespace.run("ip", "-6", "route", "show", "table", str(table_number("test"))))
        self.assertEqual(self.foreign(), before)
        self.assertTrue(installation.sweep("test"))
        self.assertEqual(len(installation.lost(WANTED)), 4)
        self.assertFalse(installation.sweep("test"))
        self.assertEqual(self.foreign(), before)

    def test_what_another_program_removed(self) -> None:
        policy_routes.apply(WANTED)
        self.namespace.run("ip", "rule", "del", "fwmark", "0x2000")
        self.namespace.run("ip", "-6", "route", "flush", "table", str(table_number("test")))
        self.assertEqual([words.split()[1:4:2] for words in policy_routes.lost(WANTED)], [["-4", "add"], ["-6", "add"]])
        policy_routes.apply(WANTED)
        self.assertEqual(policy_routes.lost(WANTED), ())


class ValueTests(SynchronousTestCase):
    """From what ``ip -json`` prints to what is to be done."""

    def test_commands(self) -> None:
        table = table_number("test")
        self.assertEqual(
            [" ".join(command) for command in WANTED[0].commands()],
            [
                f"ip -4 rule add pref 7400 fwmark 0x2000 lookup {table} protocol 83",
                f"ip -4 route add local default dev lo table {table} proto 83",
            ],
        )

    def test_rules_of_others_are_none_of_ours(self) -> None:
        table = str(table_number("test"))
        ours = {"priority": 7400, "fwmark": "0x2000", "table": table, "protocol": "83"}
        others = [{**ours, "table": "99"}, {**ours, "protocol": "2"}, {**ours, "fwmark": "0x1"}]
        route = {"dst": "default", "dev": "lo"}
        self.assertEqual(missing(WANTED[0], [*others, ours], [route]), ())
        self.assertEqual(len(missing(WANTED[0], others, [])), 2)
        self.assertEqual(removal("test", 4, others[:2], []), ())
        self.assertEqual(len(removal("test", 4, [ours], [route])), 2)

    def test_each_owner_has_a_table(self) -> None:
        tables = {table_number(f"node{number}") for number in range(100)}
        self.assertEqual(len(tables), 100)
