"""Forking, rewinding and replacing a log: what the registry tries, alone and with lying witnesses.

The records service's log is accepted by the same rules; what can be tried with its events is in `events`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from shared.crypto.signing import SigningKey
from shared.encoding import b64url
from shared.transparency.checkpoints import Checkpoint, sign_checkpoint, with_cosignatures
from shared.transparency.merkle import leaf_hash
from shared.transparency.notes import SignedNote, sign_text
from tests.attacks.lying import Asked, Json, Refusal
from tests.attacks.operators import DAY, FalseLog, Tree
from tests.attacks.stage import Stage, codes_of
from tests.attacks.table import LOGS, PATIENT, PROXY, RECIPIENT, REGISTRY, attack

INCLUSION = "POST /v1/log/inclusion"
OTHER = b"somebody else's key".ljust(64)
ALL = REGISTRY + " and all proxies"
ONE = f"{REGISTRY} and one {PROXY}"


async def look(stage: Stage, *, memory: bool = True) -> list[str]:
    """The owner looks up keys that it has not seen yet, which have to be proven to be in the log."""
    owner = stage.cast.owner
    actor = await (stage.machine(owner) if memory else stage.new_machine(owner))
    await actor.session.party(stage.cast.stranger.did)
    return []


def tell(stage: Stage, tree: Tree, checkpoint: str | None = None) -> None:
    stage.lie.answer("registry", INCLUSION, stage.operators.tells("registry", tree, checkpoint=checkpoint))


async def shown(stage: Stage, make: Callable[[Tree], str], *, memory: bool = True) -> list[str]:
    """The true tree under a checkpoint that `make` makes of it."""
    tree = await stage.operators.registry_tree()
    tell(stage, tree, make(tree))
    return await look(stage, memory=memory)


# --- forks ----------------------------------------------------------------------------------------------------------


@attack(LOGS, ALL, "show one client another history than before, which all proxies vouch for", "log_forked", by=PATIENT)
async def forked_over_time(stage: Stage) -> list[str]:
    tree = await stage.operators.registry_tree()
    tell(stage, Tree([*tree.with_leaf(0, OTHER).leaves, leaf_hash(OTHER)]))
    return await look(stage)


@attack(LOGS, ALL, "show a tree of the size seen last with another root", "log_forked", by=PATIENT)
async def same_size_other_root(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    known = owner.session.state.logs.log("registry")
    assert known is not None
    tree = (await stage.operators.registry_tree()).first(known.size)
    tell(stage, tree.with_leaf(0, OTHER))
    await owner.session.party(stage.cast.stranger.did)
    return []


@attack(LOGS, REGISTRY, "shows a fork that no proxy vouches for to a new client", "not_enough_cosignatures", by=PATIENT)
async def fork_without_witnesses(stage: Stage) -> list[str]:
    tree = (await stage.operators.registry_tree()).with_leaf(0, OTHER)
    tell(stage, tree, stage.operators.checkpoint("registry", tree, by=[]))
    return await look(stage, memory=False)


@attack(
    LOGS,
    ONE,
    "show a fork that only the lying proxy vouches for to a new client",
    "not_enough_cosignatures",
    by=PATIENT,
)
async def fork_with_one_witness(stage: Stage) -> list[str]:
    tree = (await stage.operators.registry_tree()).with_leaf(0, OTHER)
    tell(stage, tree, stage.operators.checkpoint("registry", tree, by=["proxy-1"]))
    return await look(stage, memory=False)


@attack(
    LOGS,
    ONE,
    "show two clients two histories: the second cannot get enough cosignatures, since two quorums have an"
    " honest proxy in common",
    "not_enough_cosignatures",
    by=RECIPIENT,
)
async def two_clients_two_histories(stage: Stage) -> list[str]:
    first = await stage.new_machine(stage.cast.owner)
    second = await stage.new_machine(stage.cast.doctor)
    await first.session.party(stage.cast.stranger.did)
    tree = await stage.operators.registry_tree()
    fork = tree.with_leaf(0, OTHER)
    # The honest proxies' cosignatures of the true history do not fit the other one, and the registry leaves them out.
    tell(stage, fork, stage.operators.checkpoint("registry", fork, by=["proxy-2"]))
    await second.session.party(stage.cast.stranger.did)
    return []


@attack(
    LOGS,
    REGISTRY,
    "puts the proxies' cosignatures of the true history under a fork",
    "bad_checkpoint_signature",
    by=PATIENT,
)
async def cosignatures_of_another_history(stage: Stage) -> list[str]:
    tree = await stage.operators.registry_tree()
    fork = tree.with_leaf(0, OTHER)
    true = SignedNote.parse(stage.operators.checkpoint("registry", tree))
    false = stage.operators.checkpoint("registry", fork, by=[])
    tell(stage, fork, with_cosignatures(false, [one.format() for one in true.signatures[1:]]))
    return await look(stage, memory=False)


# --- going back ------------------------------------------------------------------------------------------------------


@attack(LOGS, ALL, "go back to a smaller tree, vouched for anew", "log_rolled_back", by=PATIENT)
async def rolled_back(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    known = owner.session.state.logs.log("registry")
    assert known is not None
    tell(stage, (await stage.operators.registry_tree()).first(known.size - 1))
    await owner.session.party(stage.cast.stranger.did)
    return []


@attack(LOGS, REGISTRY, "replays an old checkpoint with the cosignatures it had then", "checkpoint_stale", by=PATIENT)
async def stale(stage: Stage) -> list[str]:
    then = int(time.time()) - 2 * DAY
    return await shown(stage, lambda tree: stage.operators.checkpoint("registry", tree, at=then), memory=False)


@attack(LOGS, ONE, "freshen up an old checkpoint with one new cosignature", "checkpoint_stale", by=PATIENT)
async def partly_stale(stage: Stage) -> list[str]:
    operators = stage.operators

    def mixed(tree: Tree) -> str:
        text = operators.checkpoint("registry", tree, at=int(time.time()) - 2 * DAY, by=["proxy-2", "proxy-3"])
        return operators.cosigned(text, [(operators.proxies["proxy-1"], operators.identity_key("proxy-1"))])

    return await shown(stage, mixed, memory=False)


@attack(LOGS, ALL, "stock up on cosignatures dated an hour ahead", "checkpoint_stale", by=PATIENT)
async def from_the_future(stage: Stage) -> list[str]:
    ahead = int(time.time()) + 3600
    return await shown(stage, lambda tree: stage.operators.checkpoint("registry", tree, at=ahead), memory=False)


# --- who has signed --------------------------------------------------------------------------------------------------


@attack(LOGS, REGISTRY, "has strangers cosign in place of the proxies", "not_enough_cosignatures", by=PATIENT)
async def strangers(stage: Stage) -> list[str]:
    def cosigned(tree: Tree) -> str:
        parties = [stage.cast.stranger, stage.cast.neighbour, stage.cast.clinic]
        text = stage.operators.checkpoint("registry", tree, by=[])
        return stage.operators.cosigned(text, [(one.did, one.keyring.identity(0)) for one in parties])

    return await shown(stage, cosigned, memory=False)


@attack(
    LOGS, REGISTRY, "cosigns itself in the proxies' names with keys of its own", "not_enough_cosignatures", by=PATIENT
)
async def cosigned_in_their_names(stage: Stage) -> list[str]:
    def cosigned(tree: Tree) -> str:
        text = stage.operators.checkpoint("registry", tree, by=[])
        return stage.operators.cosigned(
            text, [(did, SigningKey.generate()) for did in stage.operators.proxies.values()]
        )

    return await shown(stage, cosigned, memory=False)


@attack(
    LOGS,
    REGISTRY,
    "shows a checkpoint with a log key of its own making, under the log's name",
    "bad_checkpoint_signature",
    by=PATIENT,
)
async def another_key_under_the_name(stage: Stage) -> list[str]:
    def signed(tree: Tree) -> str:
        origin = stage.operators.origin("registry")
        text = Checkpoint(origin, tree.size, tree.root).text()
        return SignedNote(text, (sign_text(text, origin, SigningKey.generate()),)).format()

    return await shown(stage, signed)


@attack(
    LOGS,
    REGISTRY,
    "begins a new log with another key and names it in its discovery document",
    "log_replaced",
    by=PATIENT,
)
async def replaced_in_discovery(stage: Stage) -> list[str]:
    key = SigningKey.generate()
    tree = await stage.operators.registry_tree()
    checkpoint = stage.operators.checkpoint("registry", tree, key=key)
    origin = checkpoint.partition("\n")[0]
    stage.lie.change("registry", "GET /.well-known/pcehr", lambda found: {**found, "registry_log": origin})
    tell(stage, tree, checkpoint)
    return await look(stage)


@attack(
    LOGS, REGISTRY, "answers with the checkpoint of another log that has a key of its own", "log_replaced", by=PATIENT
)
async def replaced_in_an_answer(stage: Stage) -> list[str]:
    key = SigningKey.generate()
    return await shown(stage, lambda tree: stage.operators.checkpoint("registry", tree, key=key))


@attack(
    LOGS,
    f"{REGISTRY} and records service",
    "pass the records service's log off as the registry's",
    "log_replaced",
    by=PATIENT,
)
async def another_services_log(stage: Stage) -> list[str]:
    def signed(tree: Tree) -> str:
        return sign_checkpoint(stage.operators.log_key("records"), "records", tree.size, tree.root)

    return await shown(stage, signed)


@attack(
    LOGS,
    ONE,
    "tell a client that fewer proxies may lie than it was told before, to get by with fewer cosignatures",
    "not_enough_cosignatures",
    by=PATIENT,
)
async def fewer_faults(stage: Stage) -> list[str]:
    owner = await stage.new_machine(stage.cast.owner)
    # This client was told at first that one proxy may lie, which takes all three.
    owner.session.state.logs.witness_faults(1)
    for _ in range(100):
        # All three are there by then, a moment after it was published with the first two.
        if (await stage.operators.registry_checkpoint()).count("\N{EM DASH} did:key:") == 3:
            break
        await asyncio.sleep(0.1)
    tree = await stage.operators.registry_tree()
    tell(stage, tree, stage.operators.checkpoint("registry", tree, by=["proxy-1", "proxy-2"]))
    await owner.session.party(stage.cast.stranger.did)
    return []


# --- proofs ----------------------------------------------------------------------------------------------------------


def change_item(stage: Stage, change: Callable[[Json], Json]) -> None:
    stage.lie.change("registry", INCLUSION, lambda said: {**said, "items": [change(item) for item in said["items"]]})


@attack(LOGS, REGISTRY, "proves another leaf in place of the one asked for", "not_in_log", by=PATIENT)
async def another_leaf(stage: Stage) -> list[str]:
    tree = await stage.operators.registry_tree()
    false = FalseLog(tree, stage.operators.checkpoint("registry", tree))

    def another(asked: Asked) -> Json:
        return false(asked) | {"items": [tree.inclusion(tree.leaves[0]) for _ in asked.json["leaves"]]}

    stage.lie.answer("registry", INCLUSION, another)
    return await look(stage)


@attack(LOGS, REGISTRY, "names another place than the one that it proves", "not_in_log", by=PATIENT)
async def another_place(stage: Stage) -> list[str]:
    change_item(stage, lambda item: {**item, "index": item["index"] ^ 1})
    return await look(stage)


@attack(LOGS, REGISTRY, "leaves a step out of a proof of inclusion", "not_in_log", by=PATIENT)
async def short_path(stage: Stage) -> list[str]:
    change_item(stage, lambda item: {**item, "path": item["path"][:-1]})
    return await look(stage)


@attack(LOGS, REGISTRY, "proves nothing and says that it did", "not_in_log", by=PATIENT)
async def no_items(stage: Stage) -> list[str]:
    stage.lie.change("registry", INCLUSION, lambda said: {**said, "items": []})
    return await look(stage)


@attack(LOGS, REGISTRY, "shows a key and says that its log does not have it", "not_in_log", by=PATIENT)
async def not_found(stage: Stage) -> list[str]:
    def refuse(asked: Asked) -> Json:
        raise Refusal(404, "not_found")

    stage.lie.answer("registry", INCLUSION, refuse)
    return await look(stage)


@attack(LOGS, REGISTRY, "sends the proof of consistency between two other sizes", "log_forked", by=PATIENT)
async def consistency_of_other_sizes(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    known = owner.session.state.logs.log("registry")
    assert known is not None
    # So that the tree has grown since this client looked.
    await stage.newcomer()
    tree = await stage.operators.registry_tree()
    while tree.size <= known.size:
        tree = await stage.operators.registry_tree()
    false = tree.consistency(known.size - 1)
    stage.lie.change("registry", INCLUSION, lambda said: {**said, "consistency": false})
    await owner.session.party(stage.cast.stranger.did)
    return []


@attack(LOGS, REGISTRY, "sends no proof that the log only grew", "log_forked", by=PATIENT)
async def no_consistency(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    await stage.newcomer()
    stage.lie.change("registry", INCLUSION, lambda said: {**said, "consistency": []})
    await owner.session.party(stage.cast.stranger.did)
    return []


@attack(LOGS, REGISTRY, "sends a proof of consistency with one hash of its own", "log_forked", by=PATIENT)
async def false_consistency(stage: Stage) -> list[str]:
    owner = await stage.machine(stage.cast.owner)
    await stage.newcomer()

    def false(said: Json) -> Json:
        return {**said, "consistency": [*said["consistency"][:-1], b64url(bytes(32))]}

    stage.lie.change("registry", INCLUSION, false)
    await owner.session.party(stage.cast.stranger.did)
    return []


@attack(
    LOGS,
    REGISTRY,
    "keeps the newest tree, which the proxies have cosigned, from one client",
    "checkpoint_withheld",
    by=f"{PATIENT}, by watching",
)
async def newest_tree_withheld(stage: Stage) -> list[str]:
    owner = await stage.new_machine(stage.cast.owner)
    await stage.newcomer()
    tree = await stage.operators.registry_tree()
    old = tree.first(tree.size - 1)
    checkpoint = stage.operators.checkpoint("registry", old)
    tell(stage, old, checkpoint)
    stage.lie.answer("registry", "GET /v1/log/checkpoint", lambda asked: checkpoint.encode())
    stage.lie.change(
        "registry", "GET /v1/log/entries", lambda said: {"size": old.size, "items": said["items"][: old.size]}
    )
    return codes_of((await owner.session.watch()).findings)
