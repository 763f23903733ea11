"""Builds a service, all of it, in one exit stack, from the bottom up; leaving takes it down from the top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from socket import gethostname
from typing import TYPE_CHECKING, Any

from perdure.agent.agent import DurableAgent
from perdure.clock import Clock, Ids
from perdure.errors import Invalid
from perdure.llm.policy import ModelPolicy
from perdure.llm.retry import RetryPolicy
from perdure.llm.spec import OpenAIAccess, make_model
from perdure.llm.usage import Price, PriceTable
from perdure.log.limits import LogLimits
from perdure.observability.metrics import Metrics, make_metrics, otlp_meter_provider
from perdure.observability.tracing import Tracer, configure_tracing
from perdure.pipeline.events import FAMILY as PIPELINE
from perdure.run.kind import Kind
from perdure.run.runner import Place, RunLimits, Runner
from perdure.serving.service import Service
from perdure.serving.turns import Turns
from perdure.settings import Settings
from perdure.sidecar.observed import ObservedStore
from perdure.sidecar.ports import Doors
from perdure.turn.kind import FAMILY as TURN
from perdure.turn.kind import TurnKind
from perdure.turn.rules import TurnDefaults
from perdure.types import Slot

if TYPE_CHECKING:
    from perdure.pipeline.pipeline import Pipeline, StepAgent
    from perdure.pipeline.work import PipelineWork
    from perdure.sidecar.memory import MemorySidecar

Part = Callable[[Service], AbstractAsyncContextManager[Any]]
"""Something of a service's own that lives as long as the service: a heartbeat, a subscription."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The doors, what connects them (entered first), and what makes messages and ticks arrive (entered last)."""

    doors: Doors
    connection: AbstractAsyncContextManager[Any]
    delivery: AbstractAsyncContextManager[Any]
    outside: bool = True
    """Whether the chat door leads out of this process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a service consists of."""

    agents: Mapping[str, DurableAgent]
    pipelines: Sequence[Pipeline]
    parts: Sequence[Part]
    settings: Settings
    clock: Clock
    ids: Ids
    app_id: str
    telemetry: bool
    steps: Sequence[StepAgent] = ()


def named(agents: Sequence[DurableAgent]) -> Mapping[str, DurableAgent]:
    """By name. Raises: Invalid (`agent_twice`)."""
    by_name = {agent.name: agent for agent in agents}
    if len(by_name) != len(agents):
        names = [agent.name for agent in agents]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise Invalid("agent_twice", f"two agents are called {', '.join(twice)}; give each a name of its own")
    return by_name


def dapr_reach(settings: Settings) -> Reach:
    """The doors of the sidecar that `settings` names. Touches no network."""
    from perdure.sidecar.dapr.channel import DaprAddress
    from perdure.sidecar.dapr.sidecar import DaprSidecar

    dapr, stores = settings.dapr, settings.stores
    token = dapr.api_token.get_secret_value() if dapr.api_token else ""
    sidecar = DaprSidecar(
        DaprAddress(dapr.grpc_address, dapr.http_address, token),
        stores=(stores.conversation, stores.workflow, stores.agent, stores.registry),
        buses=(stores.pubsub,),
    )
    return Reach(sidecar.doors, connection=sidecar, delivery=nullcontext())


def memory_reach(sidecar: MemorySidecar) -> Reach:
    """Doors within this process."""
    return Reach(sidecar.doors, connection=nullcontext(), delivery=sidecar.open(), outside=False)


@asynccontextmanager
async def build(
    plan: Plan,
    reach: Reach,
    announce: Callable[[Service], None],
    driving: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[Service]:
    """The running service. `announce` gets it before anything touches the network: what it subscribes to is known
    then, and nothing answers yet. `driving` is awaited when runs are driven and requests can be answered, and only
    what executes hosts is missing, which takes longest and which nobody waits for.

    Raises: Transient when the sidecar or a store is away; building again from a new `reach` is the way on.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(reach.connection)
        service = await _assembled(plan, reach, stack)
        announce(service)
        closing = AsyncExitStack()
        stack.push_async_exit(closing)
        await closing.enter_async_context(service.runner)  # adopts what this slot left, over the state API alone
        for part in plan.parts:
            await stack.enter_async_context(part(service))
        await stack.enter_async_context(reach.delivery)
        if driving is not None:
            await driving()
        await stack.enter_async_context(service.runner.hosting())
        stack.push_async_callback(closing.aclose)  # runs are released while the worker still lives, then it stops
        stack.callback(service.draining.set)
        yield service


async def _assembled(plan: Plan, reach: Reach, stack: AsyncExitStack) -> Service:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    tracer, metrics = _telemetry(plan, registry, stack)
    doors = _observed(reach.doors, metrics, tracer, plan.clock)
    place = _place(plan, doors)
    work = _pipeline_work(plan, doors, place, tracer)
    kinds = _turn_kinds(plan, reach, tracer, metrics)
    if work is not None:
        stack.push_async_callback(work.drain, plan.settings.run.shutdown_s)
        kinds |= {kind.name: kind for kind in work.kinds.values()}
    runner = Runner(
        place,
        kinds,
        clock=plan.clock,
        ids=plan.ids,
        metrics=metrics,
        limits=_run_limits(plan.settings),
        log_limits=_log_limits(plan.settings),
    )
    return Service(
        app_id=plan.app_id,
        settings=plan.settings,
        clock=plan.clock,
        ids=plan.ids,
        doors=doors,
        runner=runner,
        turns=Turns(runner, plan.agents, plan.ids),
        metrics=metrics,
        tracer=tracer,
        registry=registry,
        needs=_needs(plan),
        pipelines=work.kinds if work else {},
        steps=work.servers if work else {},
    )


def _needs(plan: Plan) -> frozenset[str]:
    """The stores that this service cannot do without; every replica writes its own document into the first."""
    stores = plan.settings.stores
    of_pipelines = {stores.workflow, stores.agent} if plan.pipelines else set[str]()
    return frozenset({stores.conversation, *of_pipelines, *({stores.agent} if plan.steps else ())})


def _observed(doors: Doors, metrics: Metrics, tracer: Tracer, clock: Clock) -> Doors:
    stores = {
        name: ObservedStore(store, metrics=metrics, tracer=tracer, clock=clock) for name, store in doors.stores.items()
    }
    return replace(doors, stores=stores)


def _pipeline_work(plan: Plan, doors: Doors, place: Place, tracer: Tracer) -> PipelineWork | None:
    if not plan.pipelines and not plan.steps:
        return None
    from perdure.pipeline.work import pipeline_work  # not for a service of agents, which is back sooner without it

    return pipeline_work(
        plan.pipelines,
        plan.steps,
        doors,
        plan.settings.stores.agent,
        clock=plan.clock,
        slot=place.slot,
        life=plan.ids.new(),
        prefix=place.prefix,
        tracer=tracer,
    )


def _telemetry(plan: Plan, registry: Any, stack: AsyncExitStack) -> tuple[Tracer, Metrics]:
    endpoint = plan.settings.observability.otlp_endpoint if plan.telemetry else None
    if not endpoint:
        return Tracer(), make_metrics(registry)
    contents = plan.settings.observability.contents
    tracer = configure_tracing(endpoint, service=plan.app_id, contents=contents, for_libraries=True)
    meters = otlp_meter_provider(endpoint, service=plan.app_id)
    # Both block while they export what they still hold, so they end in threads.
    stack.push_async_callback(asyncio.to_thread, meters.shutdown)
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    return tracer, make_metrics(registry, meters.get_meter("perdure"))


def _turn_kinds(plan: Plan, reach: Reach, tracer: Tracer, metrics: Metrics) -> dict[str, Kind[Any]]:
    llm = plan.settings.llm
    key = llm.openai_api_key.get_secret_value() if llm.openai_api_key else None
    defaults = _turn_defaults(plan.settings)
    kinds: dict[str, Kind[Any]] = {}
    for agent in plan.agents.values():
        model = make_model(
            agent.model if agent.model is not None else f"component:{plan.settings.stores.chat}",
            reach.doors.chat,
            policy=ModelPolicy(llm.allow_outside),
            retry=RetryPolicy(llm.max_attempts, llm.first_wait_s, llm.max_wait_s, llm.total_s),
            clock=plan.clock,
            openai=OpenAIAccess(key, llm.openai_base_url),
            chat_is_outside=reach.outside,
        )
        kind = TurnKind(agent, model, clock=plan.clock, defaults=defaults, tracer=tracer, metrics=metrics)
        kinds[kind.name] = kind
    return kinds


def _turn_defaults(settings: Settings) -> TurnDefaults:
    agent, llm = settings.agent, settings.llm
    prices = {name: Price(price.input_per_million, price.output_per_million) for name, price in llm.prices.items()}
    return TurnDefaults(
        max_steps=agent.max_steps,
        max_tokens=agent.max_tokens,
        max_cost=agent.max_cost,
        prices=PriceTable(prices),
        context_messages=agent.context_messages,
        model_timeout_s=llm.timeout_s,
    )


def _place(plan: Plan, doors: Doors) -> Place:
    stores, dapr = plan.settings.stores, plan.settings.dapr
    return Place(
        app_id=plan.app_id,
        slot=Slot(dapr.slot or f"{plan.app_id}-{gethostname()}-{dapr.app_port}"),
        stores={TURN: doors.stores[stores.conversation], PIPELINE: doors.stores[stores.workflow]},
        engine=doors.engine,
        jobs=doors.jobs,
        namespace=dapr.namespace,
        partition=plan.app_id,
        prefix=f"{dapr.namespace}/",
    )


def _run_limits(settings: Settings) -> RunLimits:
    run = settings.run
    return RunLimits(
        host_after_s=run.host_after_s,
        start_by_s=run.start_by_s,
        max_claims=run.max_claims,
        shutdown_s=run.shutdown_s,
        poll_s=run.poll_s,
        beat_s=run.beat_s,
        stale_s=run.stale_s,
        max_active_runs=run.max_active_runs,
        host_rounds=run.host_rounds,
        pace_s=run.pace_s,
        sweep_every_s=round(run.sweep_every_s),
        cache_subjects=settings.log.cache_subjects,
    )


def _log_limits(settings: Settings) -> LogLimits:
    log = settings.log
    return LogLimits(
        segment_commits=log.segment_commits,
        segment_bytes=log.segment_bytes,
        blob_bytes=log.blob_bytes,
        snapshot_bytes=log.snapshot_bytes,
    )
