"""The story on a two-node mesh of this machine."""

from __future__ import annotations

from cli.demo.ledger import Ledger
from cli.demo.shell import Shell
from cli.demo.story import Place, Story
from deploy.local.paths import Instance


class LocalStory(Story):
    def __init__(self, shell: Shell, ledger: Ledger) -> None:
        super().__init__(shell, ledger, Place(("ambit", "local"), Instance.current().underlay))

    def tell(self) -> None:
        self.bring_up()
        self.talk_in_plain_text()
        before = self.containers()
        talker = self.begin_to_talk()
        self.say(talker, "before", "a connection stands before the label comes")
        self.label()
        self.talk_over_mutual_tls()
        self.prove_nothing_restarted(before)
        self.say(talker, "labelled", "the connection that stood before the label goes on")
        self.prove_identities()
        self.reach_from_outside()
        meshed = self.begin_to_talk()
        self.say(meshed, "meshed", "a new connection takes the new path")
        self.unlabel()
        self.talk_in_plain_text_again()
        self.say(meshed, "unlabelled", "the connection made in the mesh goes on without the label")
        self.say(talker, "unlabelled", "and so does the oldest one")
        self.prove_nothing_restarted(before)

    def bring_up(self) -> None:
        self.ledger.begin("A mesh of two nodes, and a small shop on it")
        self.shell.run("ambit", "local", "up", "--nodes", "2")
        self.shell.run("ambit", "local", "apply", "-f", "examples/shop", "--wait")
        self.prove_both_nodes()
