"""Several models of one server, each conversation with one of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from loadgen._messages import Job
from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._settings import Settings
from loadgen.options._values import model_shares

HOST = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("typed", "shares"),
    [
        ("yi-6b", {"yi-6b": 1.0}),
        ("a=0.7,b=0.3", {"a": 0.7, "b": 0.3}),
        ("a=3, b=1", {"a": 0.75, "b": 0.25}),
        ("base=1,team/lora-x=1,c:latest=2", {"base": 0.25, "team/lora-x": 0.25, "c:latest": 0.5}),
        ("odd=name", {"odd=name": 1.0}),
        ("a,b", {"a,b": 1.0}),
        ("model=7", {"model=7": 1.0}),
    ],
)
def test_shares_add_up_to_one_and_a_plain_name_is_one_model(typed: str, shares: dict[str, float]) -> None:
    assert model_shares(typed) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("a=0.7,b", "'b': give every model its share, as in A=0.7,B=0.3"),
        ("a=0.7,a=0.3", "'a' stands there twice"),
        ("a=1,b=0", "a share is more than 0"),
        ("a=1,=2", "give every model its share"),
        ("a=1,b=1.2.3", "give every model its share"),
    ],
)
def test_shares_that_can_t_be_meant_are_refused(typed: str, says: str) -> None:
    with pytest.raises(OptionErrors) as caught:
        settings_from({"host": HOST, "model": typed})
    assert says in caught.value.problems[0]


def job(seed: int, **models: float) -> Job:
    return Job(
        run="r", worker=0, workers=1, settings=Settings(host=HOST, seed=seed), scenario="", salt="",
        model="m", models=models, usage_in_events=False,
    )  # fmt: skip


def test_a_conversation_s_model_is_drawn_from_seed_and_number_by_share() -> None:
    found = [job(1, a=0.7, b=0.3).model_of(number) for number in range(2000)]
    assert found == [job(1, a=0.7, b=0.3).model_of(number) for number in range(2000)]
    assert found != [job(2, a=0.7, b=0.3).model_of(number) for number in range(2000)]
    assert Counter(found)["a"] == pytest.approx(1400, abs=4 * (2000 * 0.7 * 0.3) ** 0.5)
    assert {job(1).model_of(number) for number in range(9)} == {"m"}


async def test_every_turn_of_a_conversation_asks_its_model_and_is_recorded_with_it(
    serve: Any, client: Any
) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.answer()

    server = await serve(script)
    person = client(server.url, turns=2, models={"a": 0.5, "b": 0.5})
    for _ in range(12):
        await person.ended(person.start())
    asked = [json.loads(each.partition(b"\r\n\r\n")[2])["model"] for each in server.requests]
    records = person.records
    assert [record.model for record in records] == asked
    assert set(asked) == {"a", "b"}
    by_conversation = {record.conversation: record.model for record in records}
    assert all(by_conversation[record.conversation] == record.model for record in records)
