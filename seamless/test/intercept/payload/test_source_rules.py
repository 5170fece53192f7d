"""``source client``: whose address an egress may use, and the rules that bring the answers back, as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from seamless.config.load import load_text
from seamless.intercept.node_rules import routes, rulesets
from seamless.intercept.payload.flow import Flow
from seamless.intercept.payload.source_rules import (
    BACK_MARK,
    DIAL_MARK,
    ClientAddresses,
    authorisation,
    decode_request,
    encode_request,
    uses_clients,
)
from seamless.intercept.rule_changes import changes_rules, has_rules
from seamless.intercept.rule_matches import OWN_MARK
from seamless.linux.policy_routes import LocalRoute
from seamless.linux.ruleset import ANSWER_PREFIX, BACK_PREFIX
from seamless.linux.transparent import Endpoints
from seamless.test.intercept.test_node_rules import NODES, configuration

CLIENT = "intercept payload { tcp to 10.1.9.2 port 22; on src; source client; }"
SERVER = ("10.1.9.2", 22)


class AddressTests(SynchronousTestCase):
    """What the ingress's node serves, and its own addresses; no more."""

    def setUp(self) -> None:
        self.configuration = configuration(CLIENT)
        self.clients = ClientAddresses(self.configuration, "dst")

    def refusal(self, client: str, peer: str = "src", server: tuple[str, int] = SERVER) -> str | None:
        return self.clients.refusal(peer, Flow(server, (client, 40_000)))

    def test_what_may_be_used(self) -> None:
        for client in ("10.1.9.1", "10.1.1.1"):
            self.assertIsNone(self.refusal(client), client)
        self.assertIsNone(self.refusal("2001:db8:1::77", server=("2001:db8:2::1", 22)))

    def test_what_may_not(self) -> None:
        for client, words in (
            ("10.1.9.2", "does not serve the client's address 10.1.9.2"),
            ("10.66.66.66", "add it to the `serves` of src, or say source egress"),
            ("127.0.0.1", "no address of a client"),
            ("0.0.0.0", "no address of a client"),
            ("224.0.0.1", "no address of a client"),
            ("169.254.1.1", "no address of a client"),
            ("10.1.1.2", "this node's own address"),
            ("2001:db8:1::77", "differ in IP version"),
        ):
            reason = self.refusal(client)
            assert reason is not None, client
            self.assertIn(words, reason)

    def test_addresses_of_another_site(self) -> None:
        """One node cannot claim the clients of another."""
        third = (
            'node other { address 10.1.1.3; serves 10.1.9.3; key "7QEzXKA80eEaimxwwo3ikbFUJ4nNqsKfQ9shXCsLCOGGhw=="; }'
            "link other dst { } intercept payload { tcp to 10.1.9.2 port 80; on other; source client; }"
        )
        self.clients = ClientAddresses(configuration(CLIENT + third), "dst")
        self.assertIsNone(self.refusal("10.1.9.3", "other"))
        self.assertIsNotNone(self.refusal("10.1.9.1", "other"))
        self.assertIsNotNone(self.refusal("10.1.9.3", "src"))

    def test_only_where_the_interceptor_says_so(self) -> None:
        for peer, server, wanted in (
            ("src", SERVER, True),
            ("src", ("10.1.9.2", 23), False),
            ("src", ("10.1.9.9", 22), False),
            ("dst", SERVER, False),
            ("nobody", SERVER, False),
        ):
            self.assertEqual(self.clients.uses_client(peer, Flow(server, ("10.1.9.1", 1))), wanted, (peer, server))
        plain = configuration(CLIENT.replace("source client", "source egress"))
        self.assertFalse(uses_clients(plain, "dst"))
        self.assertFalse(ClientAddresses(plain, "dst").uses_client("src", Flow(SERVER, ("10.1.9.1", 1))))


class AuthorisationTests(SynchronousTestCase):
    """What the privileged part does not take the daemon's word for."""

    def setUp(self) -> None:
        self.authorise = authorisation(configuration(CLIENT), "dst")

    def ask(self, client: str, server: tuple[str, int] = SERVER, peer: str = "src") -> Endpoints | str:
        return self.authorise(encode_request(peer, Flow(server, (client, 40_000))))

    def test_a_request(self) -> None:
        self.assertEqual(self.ask("10.1.9.1"), Endpoints(("10.1.9.1", 40_000), SERVER))
        flow = Flow(("2001:db8:2::1", 1), ("2001:db8:1::1", 0))
        self.assertEqual(decode_request(encode_request("src", flow)), ("src", flow))

    def test_what_is_refused(self) -> None:
        for client, server, peer in (
            ("10.66.66.66", SERVER, "src"),
            ("10.1.9.1", ("10.1.9.2", 23), "src"),
            ("10.1.9.1", ("10.66.66.66", 22), "src"),
            ("10.1.9.1", SERVER, "nobody"),
            ("10.1.9.1", SERVER, "dst"),
        ):
            self.assertIsInstance(self.ask(client, server, peer), str)

    @given(st.binary(max_size=80))
    def test_whatever_is_asked(self, message: bytes) -> None:
        self.assertIsInstance(authorisation(configuration(CLIENT), "dst")(message), str)


class RuleTests(SynchronousTestCase):
    def test_rules(self) -> None:
        found = [one for one in rulesets(configuration(CLIENT), "dst") if one.rules]
        self.assertEqual([(one.version, one.prefix) for one in found], [(4, BACK_PREFIX), (4, ANSWER_PREFIX)])
        comment = "-m comment --comment seamless:dst"
        answers = (
            "-m connmark --mark 0x2000 -m conntrack --ctdir REPLY "
            "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"
        )
        self.assertEqual(
            [(rule.table, str(rule)) for one in found for rule in one.rules],
            [
                ("mangle", f"PREROUTING -p tcp {comment} -j SEAMBACK-dst"),
                ("mangle", f"PREROUTING -p icmp {comment} -j SEAMBACK-dst"),
                (
                    "mangle",
                    "SEAMBACK-dst -s 10.1.9.2/32 ! -i lo -p tcp -m socket --transparent "
                    "-j MARK --set-xmark 0x2000/0xffffffff",
                ),
                ("mangle", f"SEAMBACK-dst ! -i lo -p icmp {answers}"),
                ("mangle", "SEAMBACK-dst ! -i lo -m mark --mark 0x2000 -j ACCEPT"),
                ("mangle", f"OUTPUT -p tcp {comment} -j SEAMANSWER-dst"),
                ("mangle", f"OUTPUT -p icmp {comment} -j SEAMANSWER-dst"),
                ("mangle", "SEAMANSWER-dst -p tcp -m mark --mark 0x3000 -j CONNMARK --set-xmark 0x2000/0xffffffff"),
                ("mangle", f"SEAMANSWER-dst {answers}"),
            ],
        )
        self.assertEqual(routes(configuration(CLIENT), "dst"), (LocalRoute("dst", 4, BACK_MARK),))

    def test_none_where_no_address_is_used(self) -> None:
        self.assertEqual(routes(configuration(CLIENT), "src"), ())
        plain = configuration(CLIENT.replace("source client", "source egress"))
        self.assertEqual([one for one in rulesets(plain, "dst") if one.rules], [])
        self.assertEqual(routes(plain, "dst"), ())

    def test_both_ip_versions(self) -> None:
        every = configuration("intercept payload { tcp; on src; source client; }")
        self.assertEqual([one.version for one in routes(every, "dst")], [4, 6])

    def test_marks(self) -> None:
        """What the egress dials is its own, and not captured; what comes back is not."""
        self.assertTrue(DIAL_MARK & OWN_MARK)
        self.assertFalse(BACK_MARK & OWN_MARK)


class ReloadTests(SynchronousTestCase):
    """What another configuration means for the egress's privileged part."""

    def test_other_clients_are_authorised(self) -> None:
        """The rules stay the same; what decides about addresses does not."""
        old = configuration(CLIENT)
        new = load_text(NODES.replace("serves 10.1.9.1", "serves 10.1.9.1, 10.1.9.77") + CLIENT, "test.conf")
        self.assertEqual((rulesets(old, "dst"), routes(old, "dst")), (rulesets(new, "dst"), routes(new, "dst")))
        self.assertTrue(changes_rules(old, new, "dst"))
        self.assertFalse(changes_rules(old, old, "dst"))

    def test_a_node_that_captures_nothing_needs_privilege(self) -> None:
        self.assertTrue(has_rules(configuration(CLIENT), "dst"))
        self.assertFalse(has_rules(configuration(CLIENT.replace("source client", "source egress")), "dst"))
