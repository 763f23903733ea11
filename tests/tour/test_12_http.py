"""HTTP: the same service as `dapr run -f dapr.yaml` serves it, here without a port."""

import httpx2

from perdure import App, DurableAgent, tool


@tool(approval=True)
def pay(amount: int) -> str:
    """Take money."""
    return f"{amount} paid"


app = App(agents=[DurableAgent("cashier", model='scripted:@pay {"amount": 5} | {result}', tools=[pay])])


def client_of(http: object) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=http), base_url="http://service")  # type: ignore[arg-type]


async def test_a_turn_over_http() -> None:
    """202 while it waits for a person, 200 with the answer afterwards; the key joins as everywhere."""
    async with app.local() as runtime, client_of(runtime.http) as client:
        body = {"text": "Five, please", "key": "order-1"}
        accepted = await client.post("/turns", json=body)
        assert accepted.status_code == 202
        turn = accepted.json()
        [asked] = turn["waiting_for"]
        assert (turn["status"], asked["tool"], asked["arguments"]) == ("waiting", "pay", {"amount": 5})
        decision = {"decision": "approve", "digest": asked["digest"]}
        await client.post(f"/turns/{turn['id']}/approvals/{asked['call']}", json=decision)
        joined = await client.post("/turns", json=body)
        assert (joined.status_code, joined.json()["answer"]) == (200, "5 paid")


async def test_mistakes_are_problems_with_a_code() -> None:
    """`application/problem+json`, with what is wrong and what to do next."""
    async with app.local() as runtime, client_of(runtime.http) as client:
        refused = await client.post("/turns", json={"text": "Hi", "agent": "cashear"})
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "agent_unknown"
        assert (await client.post("/turns", json={"text": 7})).status_code == 400
