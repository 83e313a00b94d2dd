"""What the platform is compared with: records as they are, for whoever asks. No keys, no consent, no log.

Run by the chapter `cost` as `uvicorn bench.plain_service:app`, over a database of the platform's own Postgres.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Request
from pydantic import BaseModel

TABLE = (
    "CREATE TABLE IF NOT EXISTS plain_records (patient text, number bigint GENERATED ALWAYS AS IDENTITY, scope text,"
    " media_type text, title text, body text, PRIMARY KEY (patient, number))"
)


class Record(BaseModel):
    scope: str
    media_type: str
    title: str | None = None
    body: str


class Records(BaseModel):
    records: list[Record]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["PLAIN_DATABASE_URL"]) as app.state.pool:
        await app.state.pool.execute(TABLE)
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/patients/{patient}/records", status_code=204)
async def write(patient: str, body: Records, request: Request) -> None:
    """Store records, all or none."""
    rows = [(patient, one.scope, one.media_type, one.title, one.body) for one in body.records]
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        await connection.executemany(
            "INSERT INTO plain_records (patient, scope, media_type, title, body) VALUES ($1, $2, $3, $4, $5)", rows
        )


@app.get("/patients/{patient}/records")
async def read(patient: str, request: Request) -> Records:
    """All records of a patient."""
    rows = await request.app.state.pool.fetch(
        "SELECT scope, media_type, title, body FROM plain_records WHERE patient = $1 ORDER BY number", patient
    )
    return Records(records=[Record(**row) for row in rows])
