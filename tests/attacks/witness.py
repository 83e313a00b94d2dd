"""What a log, or somebody in its name, asks of a witness: every attempt meets one of its refusals."""

from __future__ import annotations

import httpx

from shared.crypto.signing import SigningKey
from shared.transparency.checkpoints import Checkpoint, parse_checkpoint
from shared.transparency.merkle import prove_consistency
from shared.transparency.notes import SignedNote, sign_text
from shared.transparency.witnessing import AddCheckpoint
from tests.attacks.operators import Tree
from tests.attacks.registry_log import OTHER
from tests.attacks.stage import Stage
from tests.attacks.table import PROXY, RECORDS, REGISTRY, WITNESS, WITNESSES, attack

ADD = "/v1/witness/add-checkpoint"


async def known_to(stage: Stage, service: str = "registry") -> str:
    """The newest checkpoint that a witness has cosigned of a log."""
    async with httpx.AsyncClient(base_url=stage.operators.urls["proxy-1"], trust_env=False, verify=False) as http:
        items = (await http.get("/v1/witness/checkpoints")).json()["items"]
    return next(str(item["checkpoint"]) for item in items if item["origin"] == stage.operators.origin(service))


async def ask(stage: Stage, forged: AddCheckpoint, service: str = "registry") -> list[str]:
    """Ask for a cosignature of what is forged; of what the witness has cosigned before in a control run."""
    newest = await known_to(stage, service)
    honest = AddCheckpoint(parse_checkpoint(newest).size, (), newest)
    body = stage.lie.instead(honest, forged).format()
    async with httpx.AsyncClient(base_url=stage.operators.urls["proxy-1"], trust_env=False, verify=False) as http:
        answer = await http.post(ADD, content=body.encode(), headers={"content-type": "text/plain; charset=utf-8"})
    if answer.status_code == 200:
        assert stage.operators.proxies["proxy-1"] in answer.text
        return []
    if answer.status_code == 409:
        assert answer.headers["content-type"].startswith("text/x.tlog.size")
        assert int(answer.text) == parse_checkpoint(newest).size
        return ["stale_size"]
    return [str(answer.json()["code"])]


async def state(stage: Stage) -> tuple[Tree, int]:
    """The registry's tree, and the size of it that the witness knows."""
    known = parse_checkpoint(await known_to(stage)).size
    tree = await stage.operators.registry_tree()
    return tree, known


def signed(stage: Stage, tree: Tree, key: SigningKey | None = None) -> str:
    return stage.operators.checkpoint("registry", tree, by=[], key=key)


@attack(
    WITNESSES,
    REGISTRY,
    "asks for a cosignature of a history that does not continue the one cosigned",
    "log_forked",
    by=WITNESS,
)
async def fork(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    forked = Tree([*tree.first(known).with_leaf(0, OTHER).leaves, *tree.leaves[:2]])
    proof = AddCheckpoint(known, _path(forked, known), signed(stage, forked))
    return await ask(stage, proof)


@attack(WITNESSES, REGISTRY, "asks for a cosignature of another root of the size cosigned", "stale_size", by=WITNESS)
async def other_root(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    return await ask(stage, AddCheckpoint(known, (), signed(stage, tree.first(known).with_leaf(0, OTHER))))


@attack(WITNESSES, REGISTRY, "asks for a cosignature of a tree smaller than the one cosigned", "stale_size", by=WITNESS)
async def rollback(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    return await ask(stage, AddCheckpoint(known - 1, (), signed(stage, tree.first(known - 1))))


@attack(WITNESSES, REGISTRY, "proves from the size cosigned to a smaller one", "malformed", by=WITNESS)
async def backwards(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    return await ask(stage, AddCheckpoint(known, (), signed(stage, tree.first(known - 1))))


@attack(WITNESSES, REGISTRY, "begins anew, as if the witness had not cosigned anything yet", "stale_size", by=WITNESS)
async def from_nothing(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    forked = Tree([*tree.first(known).with_leaf(0, OTHER).leaves, *tree.leaves[:2]])
    return await ask(stage, AddCheckpoint(0, (), signed(stage, forked)))


@attack(WITNESSES, REGISTRY, "continues its log without the proof that it only grew", "log_forked", by=WITNESS)
async def without_proof(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    grown = Tree([*tree.first(known).leaves, *tree.leaves[:3]])
    return await ask(stage, AddCheckpoint(known, (), signed(stage, grown)))


@attack(
    WITNESSES,
    "somebody",
    "asks for a cosignature of a log that the witness was never told of",
    "unknown_log",
    by=WITNESS,
)
async def another_origin(stage: Stage) -> list[str]:
    tree, _ = await state(stage)
    return await ask(stage, AddCheckpoint(0, (), signed(stage, tree, SigningKey.generate())))


@attack(WITNESSES, PROXY, "asks for a cosignature of its own log", "unknown_log", by=WITNESS)
async def a_proxys_log(stage: Stage) -> list[str]:
    tree, _ = await state(stage)
    return await ask(stage, AddCheckpoint(0, (), stage.operators.checkpoint("proxy-2", tree, by=[])))


@attack(
    WITNESSES,
    "somebody",
    "asks for a cosignature in the registry's name with a key of its own",
    "not_signed_by_log",
    by=WITNESS,
)
async def another_key(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    return await ask(stage, AddCheckpoint(known, (), _in_the_name(stage, tree.first(known), SigningKey.generate())))


@attack(
    WITNESSES,
    RECORDS,
    "asks for a cosignature in the registry's name with its own log's key",
    "not_signed_by_log",
    by=WITNESS,
)
async def another_services_key(stage: Stage) -> list[str]:
    tree, known = await state(stage)
    key = stage.operators.log_key("records")
    return await ask(stage, AddCheckpoint(known, (), _in_the_name(stage, tree.first(known), key)))


def _in_the_name(stage: Stage, tree: Tree, key: SigningKey) -> str:
    origin = stage.operators.origin("registry")
    text = Checkpoint(origin, tree.size, tree.root).text()
    return SignedNote(text, (sign_text(text, origin, key),)).format()


def _path(tree: Tree, known: int) -> tuple[bytes, ...]:
    return tuple(prove_consistency(known, tree.size, tree.node))
