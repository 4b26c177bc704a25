/** What a scrape and an exporter get: metrics and spans of listeners and of the shutdown. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Metric, References, Scope, Tracer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { Kms, KmsHttp, KmsTcp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Host from "./support/host.ts"
import * as Peers from "./support/peers.ts"

const portOf = (server: Server) => (server.address() as AddressInfo).port

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

const request = (server: Server, path: string) =>
  Effect.gen(function* () {
    const peer = yield* Peers.connect(portOf(server))
    peer.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    return peer
  })

/** The samples of one scrape. */
const scrape = (server: Server) =>
  Effect.gen(function* () {
    const { text } = yield* (yield* request(server, "/metrics")).response
    return new Map(
      text
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"))
        // The port is another one each time.
        .map((line) => line.replace(/,address=":\d+"/, ""))
        .map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))])
    )
  }).pipe(Effect.scoped)

const labels = (listener: string) => `{listener="${listener}",kind="http"}`

/** An application whose only request waits for `answer`, over an operations listener, with a database between the two. */
const make = (registry: Metric.MetricRegistry, options: KmsHttp.ListenerOptions = {}) => {
  const servers = { api: createServer(), operations: createServer() }
  const started = Deferred.makeUnsafe<void>()
  const entered = Deferred.makeUnsafe<void>()
  const answer = Deferred.makeUnsafe<void>()
  const closing = Deferred.makeUnsafe<void>()
  const closed = Deferred.makeUnsafe<void>()
  const Operations = Layer.effectDiscard(
    Layer.build(HttpRouter.serve(PrometheusMetrics.layerHttp(), { disableLogger: true, disableListenLog: true }))
  ).pipe(Layer.provide(KmsHttp.layer(() => servers.operations, { port: 0, name: "operations", drainOn: "release" })))
  const Database = Layer.effectDiscard(
    Kms.addFinalizer("database", () => Effect.andThen(Deferred.succeed(closing, undefined), Deferred.await(closed)))
  )
  const Slow = HttpRouter.add(
    "GET",
    "/slow",
    Effect.andThen(Deferred.succeed(entered, undefined), Deferred.await(answer)).pipe(
      Kms.busy("slow"),
      Effect.as(HttpServerResponse.text("done"))
    )
  )
  const Stubborn = HttpRouter.add(
    "GET",
    "/stubborn",
    Effect.andThen(Deferred.succeed(entered, undefined), Effect.uninterruptible(Effect.never))
  )
  const Api = HttpRouter.serve(Layer.merge(Slow, Stubborn), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(KmsHttp.layer(() => servers.api, { ...options, port: 0, name: "api" })),
    Layer.provide(Database),
    Layer.provide(Operations)
  )
  const draining = Deferred.makeUnsafe<void>()
  const app = Layer.effectDiscard(
    Effect.gen(function* () {
      yield* Kms.initiated.pipe(Effect.andThen(Deferred.succeed(draining, undefined)), Effect.forkScoped)
      yield* Deferred.succeed(started, undefined)
    })
  ).pipe(Layer.provide(Api))
  const host = Host.make()
  const run = app.pipe(Kms.launch(), host.provide, quiet, Effect.provideService(Metric.MetricRegistry, registry))
  return { answer, closed, closing, draining, entered, host, run, servers, started }
}

describe("metrics", () => {
  it.live("tell a scrape what is open, what was drained, and the phase, to the very end", () =>
    Effect.gen(function* () {
      const registry = new Map()
      const { answer, closed, closing, entered, host, run, servers, started } = make(registry)
      const fiber = yield* Effect.forkDetach(run)
      yield* Deferred.await(started)
      const slow = yield* request(servers.api, "/slow")
      yield* Deferred.await(entered)
      const running = yield* scrape(servers.operations)
      assert.deepStrictEqual(
        ["connections", "in_flight", "accepted_total", "drained_total", "cut_total", "abandoned", "drain_seconds"].map(
          (name) => running.get(`kms_${name}${labels("api")}`)
        ),
        [1, 1, 1, 0, 0, 0, 0]
      )
      assert.strictEqual(running.get('kms_phase{phase="Running"}'), 1)
      assert.strictEqual(running.get('kms_phase{phase="Draining"}'), 0)
      assert.strictEqual(running.get("kms_busy_sections"), 1)
      assert.strictEqual(running.get(`kms_connections${labels("operations")}`), 1)

      host.signal("SIGTERM")
      let draining = yield* scrape(servers.operations)
      while (draining.get(`kms_drain_seconds${labels("api")}`) === 0) draining = yield* scrape(servers.operations)
      assert.strictEqual(draining.get('kms_phase{phase="Draining"}'), 1)
      assert.strictEqual(draining.get('kms_phase{phase="Running"}'), 0)
      assert.strictEqual(draining.get(`kms_drained_total${labels("api")}`), 0)

      yield* Deferred.succeed(answer, undefined)
      assert.strictEqual((yield* slow.response).text, "done")
      yield* Deferred.await(closing)
      // The listener's scope has closed, and its last numbers are still there.
      const unwinding = yield* scrape(servers.operations)
      assert.strictEqual(unwinding.get('kms_phase{phase="Unwinding"}'), 1)
      assert.deepStrictEqual(
        ["connections", "in_flight", "drained_total"].map((name) => unwinding.get(`kms_${name}${labels("api")}`)),
        [0, 0, 1]
      )
      const seconds = unwinding.get(`kms_drain_seconds${labels("api")}`)!
      assert.isAtLeast(seconds, draining.get(`kms_drain_seconds${labels("api")}`)!)
      assert.strictEqual((yield* scrape(servers.operations)).get(`kms_drain_seconds${labels("api")}`), seconds)
      assert.strictEqual(unwinding.get("kms_busy_sections"), 0)

      yield* Deferred.succeed(closed, undefined)
      yield* Fiber.await(fiber)
      assert.strictEqual(registry.size, 0, "nothing is left behind")
    }).pipe(Effect.scoped)
  )

  it.live("count what was cut and what was abandoned", () =>
    Effect.gen(function* () {
      const { closed, closing, entered, host, run, servers, started } = make(new Map(), { drainTimeout: "100 millis" })
      const fiber = yield* Effect.forkDetach(run)
      yield* Deferred.await(started)
      const stubborn = yield* request(servers.api, "/stubborn")
      yield* Deferred.await(entered)
      host.signal("SIGTERM")
      yield* stubborn.closed
      yield* Deferred.await(closing)
      const samples = yield* scrape(servers.operations)
      assert.deepStrictEqual(
        ["in_flight", "drained_total", "cut_total", "abandoned"].map((name) =>
          samples.get(`kms_${name}${labels("api")}`)
        ),
        [0, 0, 1, 1]
      )
      yield* Deferred.succeed(closed, undefined)
      yield* Fiber.await(fiber)
    }).pipe(Effect.scoped)
  )

  it.live("tell listeners of one name apart", () =>
    Effect.gen(function* () {
      const registry = new Map()
      const count = Effect.map(Metric.snapshot, (all) => all.filter(({ id }) => id === "kms_connections").length)
      yield* Effect.gen(function* () {
        const scopes = [yield* Scope.make(), yield* Scope.make()]
        for (const scope of scopes) yield* Layer.buildWithScope(KmsTcp.layer({ port: 0, name: "lines" }), scope)
        assert.strictEqual(yield* count, 2)
        yield* Scope.close(scopes[1]!, Exit.void)
        assert.strictEqual(yield* count, 1)
        yield* Scope.close(scopes[0]!, Exit.void)
        assert.strictEqual(yield* count, 0)
      }).pipe(Effect.provideService(Metric.MetricRegistry, registry))
    })
  )

  it.effect("of programs that one fiber supervises one after the other do not add up", () =>
    Effect.gen(function* () {
      const registry = new Map()
      const once = Kms.listen(Effect.void).pipe(Effect.provideService(Metric.MetricRegistry, registry))
      const own = Effect.sync(() => registry.size)
      const fiber = yield* Effect.forkChild(Effect.andThen(Effect.repeat(once, { times: 100 }), own), {
        startImmediately: true
      })
      assert.strictEqual(yield* Fiber.join(fiber), 6, "those of the last")
      assert.strictEqual(registry.size, 0)
    })
  )

  it.live("of a listener that closes while the rest runs on go with it", () =>
    Effect.gen(function* () {
      const registry = new Map()
      yield* Effect.gen(function* () {
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(KmsTcp.layer({ port: 0, name: "lines" }), scope)
        const names = (yield* Metric.snapshot).map(({ attributes, id }) => `${id} ${attributes?.["listener"]}`)
        assert.include(names, "kms_connections lines")
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.provideService(Metric.MetricRegistry, registry))
      assert.strictEqual(registry.size, 0)
    })
  )
})

/** A tracer that keeps its spans. */
const traced = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const named = (name: string) => spans.filter((span) => span.name === name)
  return { spans, named, tracer }
}

describe("spans", () => {
  it.live("are one for the shutdown, and one beneath it for each drain and each finalizer with a name", () =>
    Effect.gen(function* () {
      const { answer, closed, draining, entered, host, run, servers, started } = make(new Map())
      const { named, spans, tracer } = traced()
      const fiber = yield* Effect.forkDetach(Effect.withTracer(run, tracer))
      yield* Deferred.await(started)
      const slow = yield* request(servers.api, "/slow")
      yield* Deferred.await(entered)
      assert.deepStrictEqual(named("kms.shutdown"), [])
      const port = portOf(servers.api)
      host.signal("SIGTERM")
      yield* Deferred.await(draining)
      yield* Deferred.succeed(answer, undefined)
      yield* Deferred.succeed(closed, undefined)
      yield* slow.response
      yield* Fiber.await(fiber)
      const [shutdown, ...more] = named("kms.shutdown")
      assert.deepStrictEqual(more, [])
      assert.strictEqual(shutdown!.attributes.get("kms.reason"), "SIGTERM")
      assert.deepStrictEqual(
        shutdown!.events.map(([name]) => name),
        ["kms.phase Draining", "kms.phase Unwinding", "kms.phase Stopped"]
      )
      const drains = named("kms.drain")
      assert.deepStrictEqual(
        drains.map(({ attributes }) => attributes.get("kms.listener")),
        ["api", "operations"]
      )
      assert.deepInclude(Object.fromEntries(drains[0]!.attributes), {
        "kms.kind": "http",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "server.port": port,
        "kms.drained": 1,
        "kms.cut": 0
      })
      const [finalizer] = named("kms.finalizer")
      assert.strictEqual(finalizer!.attributes.get("kms.finalizer"), "database")
      for (const span of [...drains, finalizer!]) {
        assert.strictEqual(span.parent._tag === "Some" ? span.parent.value : undefined, shutdown)
      }
      for (const span of spans) assert.strictEqual(span.status._tag, "Ended", span.name)
    }).pipe(Effect.scoped)
  )

  it.live("of a drain that was cut have failed, and say what was cut", () =>
    Effect.gen(function* () {
      const { named, tracer } = traced()
      const scope = yield* Scope.make()
      const server = createServer((_, response) => void response.writeHead(200).write("x"))
      yield* Layer.buildWithScope(
        KmsHttp.layerNode(() => server, { port: 0, name: "api", drainTimeout: "50 millis" }),
        scope
      ).pipe(Effect.withTracer(tracer))
      const peer = yield* request(server, "/endless")
      yield* peer.head
      yield* Scope.close(scope, Exit.void)
      const [drain] = named("kms.drain")
      assert.strictEqual(drain!.parent._tag, "None")
      const { status } = drain!
      assert.isTrue(status._tag === "Ended" && Exit.isFailure(status.exit))
      if (status._tag === "Ended") assert.match(String(status.exit), /Cut: GET \/endless from 127\.0\.0\.1/)
      assert.strictEqual(drain!.attributes.get("kms.cut"), 1)
    }).pipe(Effect.scoped, quiet)
  )

  it.effect("of a finalizer hold those that it makes itself, and its failure", () =>
    Effect.gen(function* () {
      const { named, tracer } = traced()
      const scope = yield* Scope.make()
      yield* Kms.addFinalizer("flush", () =>
        Effect.andThen(Effect.void.pipe(Effect.withSpan("write")), Effect.die("full"))
      ).pipe(Scope.provide(scope), Effect.withTracer(tracer))
      yield* Effect.exit(Scope.close(scope, Exit.void))
      const [finalizer] = named("kms.finalizer")
      const [write] = named("write")
      assert.strictEqual(write!.parent._tag === "Some" ? write!.parent.value : undefined, finalizer)
      assert.strictEqual(finalizer!.attributes.get("kms.outcome"), "failed")
      assert.isTrue(finalizer!.status._tag === "Ended" && Exit.isFailure(finalizer!.status.exit))
    })
  )

  it.live("of a tracer that only the application has are complete, each a root", () =>
    Effect.gen(function* () {
      const { named, tracer } = traced()
      const host = Host.make()
      const started = yield* Deferred.make<void>()
      const fiber = yield* Layer.effectDiscard(
        Effect.andThen(
          Kms.addFinalizer("flush", () => Effect.void),
          Deferred.succeed(started, undefined)
        )
      ).pipe(
        Layer.provide(KmsTcp.layer({ port: 0 })),
        Layer.provide(Layer.succeed(Tracer.Tracer, tracer)),
        Kms.launch(),
        host.provide,
        quiet,
        Effect.forkDetach
      )
      yield* Deferred.await(started)
      host.signal("SIGTERM")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(
        [...named("kms.drain"), ...named("kms.finalizer")].map(({ parent, status }) => [parent._tag, status._tag]),
        [
          ["None", "Ended"],
          ["None", "Ended"]
        ]
      )
    })
  )
})
