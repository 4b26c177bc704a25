/** Trouble inside the shutdown itself: what it calls throws, what it is told cannot be told on, where it runs is masked. */
import { assert, describe, it } from "@effect/vitest"
import {
  Clock,
  Deferred,
  Effect,
  type Exit,
  Fiber,
  identity,
  Layer,
  Logger,
  References,
  SubscriptionRef,
  Tracer
} from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { Kms, KmsHttp } from "effect-kms"
import { createServer, type Server, type ServerResponse } from "node:http"
import { type AddressInfo, connect, createServer as createTcp, type Socket } from "node:net"
import { Phase, Reason } from "../src/internal/phase.ts"
import * as Settings from "../src/internal/settings.ts"
import { Shutdown } from "../src/internal/shutdown.ts"
import * as Host from "./support/host.ts"
import * as Peers from "./support/peers.ts"
import * as Ways from "./support/ways.ts"

/** The exit code that the process would have had. */
const code = (exit: Exit.Exit<unknown, unknown>) =>
  Effect.callback<number>((resume) => Kms.teardown(exit, (code) => resume(Effect.succeed(code))))

/** Lets every fiber that can run do so. */
const settle = Effect.repeat(Effect.yieldNow, { times: 50 })

const silent = Effect.provideService(References.MinimumLogLevel, "None")

describe("a predicate for event streams that throws", () => {
  it.live("keeps no listener from draining, loses no answer, and leaves nothing open", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const log = (line: string) => Effect.sync(() => void lines.push(line))
      const servers: Array<Server> = []
      const open: Array<ServerResponse> = []
      const asked: Array<string> = []
      const listener = (name: string) =>
        KmsHttp.layerNode(
          () => {
            const server = createServer((request, response) => {
              if (request.url === "/stream") response.write("begun ")
              open.push(response)
            })
            servers.push(server)
            return server
          },
          {
            port: 0,
            name,
            eventStreams: () => {
              asked.push(name)
              throw new Error("no such header")
            }
          }
        )
      const program = yield* Ways.launchSignal.start(
        Layer.mergeAll(listener("one"), listener("two")).pipe(
          Layer.provide(Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => log("closed"))))
        )
      )
      const peers: Array<Peers.Peer> = []
      for (const server of servers) {
        const { port } = server.address() as AddressInfo
        const stream = yield* Peers.connect(port)
        stream.get("/stream")
        yield* stream.body(6)
        const slow = yield* Peers.connect(port)
        const entered = open.length
        slow.get("/slow")
        yield* Effect.yieldNow.pipe(
          Effect.andThen(Effect.sleep(1)),
          Effect.repeat({ until: () => open.length > entered })
        )
        peers.push(stream, slow)
      }
      yield* Ways.drain(program, () => servers[0]!)
      assert.deepStrictEqual(
        servers.map(({ listening }) => listening),
        [false, false]
      )
      assert.sameMembers(Array.from(new Set(asked)), ["one", "two"])
      assert.lengthOf(lines, 0)
      for (const response of open) response.end("answer")
      const answers = yield* Effect.forEach(peers, (peer) => peer.response)
      assert.deepStrictEqual(
        answers.map(({ text }) => text),
        ["begun answer", "answer", "begun answer", "answer"]
      )
      const ended = yield* program.ended
      assert.deepStrictEqual(lines, ["closed"])
      assert.strictEqual(ended.code, 0)
      assert.isFalse(ended.report!.forced)
    }).pipe(Effect.scoped)
  )
})

/** A program with busy work of a second, and a resource beneath it. */
const working = Effect.fnUntraced(function* (loggers: ReadonlySet<Logger.Logger<unknown, void>>) {
  const lines: Array<string> = []
  const host = Host.make()
  const begun = yield* Deferred.make<void>()
  const work = Deferred.succeed(begun, undefined).pipe(
    Effect.andThen(Effect.sleep("1 second")),
    Effect.andThen(Effect.sync(() => lines.push("work"))),
    Kms.busy("work"),
    Effect.andThen(Effect.never)
  )
  const fiber = yield* Effect.acquireUseRelease(
    Effect.void,
    () => work,
    () => Effect.sync(() => lines.push("released"))
  ).pipe(
    Kms.listen(),
    host.provide,
    Effect.provideService(Logger.CurrentLoggers, loggers),
    Effect.forkDetach({ startImmediately: true })
  )
  yield* Deferred.await(begun)
  return { fiber, host, lines }
})

const values: ReadonlyArray<{ readonly name: string; readonly make: () => unknown }> = [
  { name: "an error without a prototype", make: () => Object.create(null) },
  {
    name: "an error that throws when it is asked what it is",
    make: () => ({
      toString: () => {
        throw new Error("no words")
      }
    })
  }
]

const loggers: ReadonlyArray<{ readonly name: string; readonly set: ReadonlySet<Logger.Logger<unknown, void>> }> = [
  { name: "a logger that reads its messages", set: new Set([Logger.make(({ message }) => void String(message))]) },
  {
    name: "a logger that throws",
    set: new Set([
      Logger.make(() => {
        throw new Error("the log is down")
      })
    ])
  }
]

describe("busy work is finished, and everything released", () => {
  for (const logger of loggers) {
    it.effect(`after a signal, with ${logger.name}`, () =>
      Effect.gen(function* () {
        const { fiber, host, lines } = yield* working(logger.set)
        host.signal("SIGTERM")
        yield* settle
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(lines, [])
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* code(yield* Fiber.await(fiber)), 0)
        assert.deepStrictEqual(lines, ["work", "released"])
      })
    )

    for (const value of values) {
      it.effect(`after ${value.name} that nobody caught, with ${logger.name}`, () =>
        Effect.gen(function* () {
          const { fiber, host, lines } = yield* working(logger.set)
          assert.isTrue(host.fail(value.make()))
          yield* settle
          yield* TestClock.adjust("999 millis")
          assert.deepStrictEqual(lines, [])
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* code(yield* Fiber.await(fiber)), 1)
          assert.deepStrictEqual(lines, ["work", "released"])
        })
      )
    }
  }
})

describe("where nothing can be interrupted", () => {
  const ways: ReadonlyArray<{
    readonly name: string
    readonly begin: (host: Host.Host, kms: Kms.Kms) => Effect.Effect<unknown>
  }> = [
    { name: "Kms.shutdown", begin: (_, kms) => Effect.provideService(Kms.shutdown(), Kms.Kms, kms) },
    { name: "a signal", begin: (host) => Effect.sync(() => host.signal("SIGTERM")) }
  ]
  for (const { begin, name } of ways) {
    it.effect(`${name} ends the program all the same, and it releases what it has`, () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const host = Host.make()
        const started = yield* Deferred.make<Kms.Kms>()
        const Resource = Layer.effectDiscard(
          Effect.acquireRelease(Effect.void, () => Effect.sync(() => lines.push("released")))
        )
        const fiber = yield* Layer.effectDiscard(Effect.flatMap(Kms.Kms, (kms) => Deferred.succeed(started, kms))).pipe(
          Layer.provide(Resource),
          Kms.launch({ timeout: "2 seconds", forceTimeout: "1 second" }),
          Effect.uninterruptible,
          host.provide,
          silent,
          Effect.forkDetach({ startImmediately: true })
        )
        yield* begin(host, yield* Deferred.await(started))
        yield* settle
        // No time has passed: it ended because it was told to, not because of the deadline.
        const exit = fiber.pollUnsafe()
        assert.isDefined(exit)
        assert.strictEqual(yield* code(exit!), 0)
        assert.deepStrictEqual(lines, ["released"])
      })
    )
  }
})

describe("a start-up that fails and hangs in a finalizer", () => {
  it.effect("has the same time in all, if a signal comes just before it is over", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const hanging = yield* Deferred.make<void>()
      let endedAt: number | undefined
      const Hangs = Layer.effectDiscard(
        Effect.acquireRelease(Effect.void, () => Effect.andThen(Deferred.succeed(hanging, undefined), Effect.never))
      )
      const fiber = yield* Layer.effectDiscard(Effect.fail("no such table")).pipe(
        Layer.provide(Hangs),
        Kms.launch({ timeout: "2 seconds", forceTimeout: "1 second" }),
        host.provide,
        silent,
        Effect.onExit(() => Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.sync(() => void (endedAt = now)))),
        Effect.forkDetach({ startImmediately: true })
      )
      yield* Deferred.await(hanging)
      const failedAt = yield* Clock.currentTimeMillis
      yield* TestClock.adjust("1800 millis")
      host.signal("SIGTERM")
      yield* settle
      yield* TestClock.adjust("199 millis")
      yield* settle
      assert.isUndefined(fiber.pollUnsafe())
      for (let step = 0; step < 11; step++) {
        yield* TestClock.adjust(step === 0 ? "1 millis" : "100 millis")
        yield* settle
      }
      const exit = fiber.pollUnsafe()
      assert.isDefined(exit)
      assert.isAtMost(endedAt! - failedAt, 3000)
      assert.strictEqual(yield* code(exit!), 1)
    })
  )
})

describe("a tracer that throws", () => {
  for (const member of ["span", "attribute", "event", "end"] as const) {
    for (const where of ["around the program", "in the program"] as const) {
      it.live(`${where}, at ${member}, keeps nothing from draining and nothing from being released`, () =>
        Effect.gen(function* () {
          const fail = () => {
            throw new Error("no collector")
          }
          const tracer = Tracer.make({
            span: (options) => {
              if (member === "span") return fail()
              return Object.assign(new Tracer.NativeSpan(options), { [member]: fail })
            }
          })
          const released: Array<string> = []
          const responses: Array<ServerResponse> = []
          let server!: Server
          const app = Layer.effectDiscard(
            Kms.addFinalizer("database", () => Effect.sync(() => void released.push("database")))
          ).pipe(
            Layer.provideMerge(
              KmsHttp.layerNode(() => (server = createServer((_, response) => void responses.push(response))), {
                port: 0,
                closeTimeout: 50
              })
            )
          )
          const provided = where === "in the program" ? Layer.provide(app, Layer.succeed(Tracer.Tracer, tracer)) : app
          const host = Host.make()
          const started = yield* Deferred.make<void>()
          const fiber = yield* Layer.effectDiscard(Deferred.succeed(started, undefined)).pipe(
            Layer.provide(provided),
            Kms.launch(),
            where === "around the program" ? Effect.withTracer(tracer) : identity,
            host.provide,
            silent,
            Effect.forkDetach
          )
          yield* Deferred.await(started)
          const peer = yield* Peers.connect((server.address() as AddressInfo).port)
          peer.get("/slow")
          while (responses.length === 0) yield* Effect.sleep(1)
          host.signal("SIGTERM")
          while (server.listening) yield* Effect.sleep(1)
          responses[0]!.end("answer")
          assert.strictEqual((yield* peer.response).text, "answer")
          assert.strictEqual(yield* code(yield* Fiber.await(fiber)), 0)
          assert.deepStrictEqual(released, ["database"])
        }).pipe(Effect.scoped)
      )
    }
  }
})

describe("at the deadline", () => {
  it.live("a handler that answers a request of its own making is cut, and everything is released", () =>
    Effect.gen(function* () {
      const released: Array<string> = []
      const entered = yield* Deferred.make<void>()
      let server!: Server
      const inner = Effect.andThen(Deferred.succeed(entered, undefined), Effect.never)
      const own = HttpServerRequest.fromWeb(new Request("http://localhost/inner"))
      const app = HttpServer.serve(Effect.provideService(inner, HttpServerRequest.HttpServerRequest, own)).pipe(
        Layer.provide(KmsHttp.layer(() => (server = createServer()), { port: 0 })),
        Layer.provide(Layer.effectDiscard(Effect.addFinalizer(() => Effect.sync(() => void released.push("database")))))
      )
      const program = yield* Ways.launchSignal.start(app, { timeout: 100, forceTimeout: 1000 })
      const peer = yield* Peers.connect((server.address() as AddressInfo).port)
      peer.get("/outer")
      yield* Deferred.await(entered)
      program.begin()
      const { code, report } = yield* program.ended
      assert.deepStrictEqual([code, released], [1, ["database"]])
      assert.match(report!.listeners[0]!.cutWork[0]!, /^GET \/outer from /)
    }).pipe(Effect.scoped)
  )
})

describe("a cut that comes twice", () => {
  it.effect("cuts a section once", () =>
    Effect.gen(function* () {
      const host = Host.make()
      const settings = yield* Effect.fromResult(Settings.decode({}, host.process))
      const phases = yield* SubscriptionRef.make<Phase>(Phase.Running())
      const shutdown = new Shutdown(settings, yield* Clock.Clock, host.process, phases)
      shutdown.gate.enter({ name: "work", now: 0, park: false })
      shutdown.begin(Reason.Interrupted())
      shutdown.drain(() => {})
      shutdown.force()
      shutdown.force()
      assert.deepStrictEqual(
        shutdown.report.sections.map(({ cut, name }) => [name, cut]),
        [["work", 1]]
      )
    })
  )
})

describe("an event loop that is blocked", () => {
  const forceTimeout = 2000
  const block = (millis: number) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis)

  /** A program with a large response that its peer has stopped reading, a busy section, and a resource beneath. */
  const play = Effect.fnUntraced(function* (timeout: number, onCut: Effect.Effect<void>) {
    const released: Array<string> = []
    const server = createServer()
    const large = Effect.sync(() => HttpServerResponse.uint8Array(new Uint8Array(16 * 1024 * 1024)))
    const work = Effect.never.pipe(
      Effect.onInterrupt(() => onCut),
      Kms.busy("work")
    )
    const program = yield* Ways.launchSignal.start(
      HttpRouter.serve(HttpRouter.add("GET", "/large", large), { disableListenLog: true, disableLogger: true }).pipe(
        Layer.merge(Layer.effectDiscard(Effect.forkScoped(work))),
        Layer.provide(KmsHttp.layer(() => server, { host: "127.0.0.1", port: 0 })),
        Layer.provide(
          Layer.effectDiscard(
            Kms.addFinalizer("flush", () =>
              Effect.andThen(
                Effect.sleep(50),
                Effect.sync(() => void released.push("flush"))
              )
            )
          )
        )
      ),
      { timeout, forceTimeout }
    )
    const peer = yield* Peers.connect((server.address() as AddressInfo).port)
    peer.get("/large")
    yield* peer.body(1)
    peer.socket.pause()
    yield* Ways.drain(program, () => server)
    return { released, ended: program.ended }
  })

  const endsWell = Effect.fnUntraced(function* ({ ended, released }: Effect.Success<ReturnType<typeof play>>) {
    const { report } = yield* ended
    const [listener] = report!.listeners
    assert.deepStrictEqual([listener!.cut, listener!.abandoned], [1, 0])
    assert.deepStrictEqual(report!.hung, [])
    assert.deepStrictEqual(
      report!.sections.map(({ abandoned, cut }) => [cut, abandoned]),
      [[1, 0]]
    )
    assert.deepStrictEqual(released, ["flush"])
  })

  it.live("until long after the deadline leaves what was cut the time to unwind, and finalizers theirs", () =>
    Effect.gen(function* () {
      const scene = yield* play(300, Effect.void)
      block(300 + forceTimeout + 100)
      yield* endsWell(scene)
    }).pipe(Effect.scoped)
  )

  it.live("by what unwinds leaves what was cut the time to unwind, and finalizers theirs", () =>
    Effect.gen(function* () {
      yield* endsWell(
        yield* play(
          300,
          Effect.sync(() => block(forceTimeout + 100))
        )
      )
    }).pipe(Effect.scoped)
  )

  /** An answer that comes from elsewhere, to be asked for and to be given. */
  const remote = Effect.gen(function* () {
    const server = createTcp()
    yield* Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void)))
    const [here, there] = yield* Effect.callback<readonly [Socket, Socket]>((resume) => {
      const here = connect((server.address() as AddressInfo).port, "127.0.0.1")
      server.once("connection", (there) => resume(Effect.succeed([here, there])))
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        here.destroy()
        server.close()
      })
    )
    return {
      asked: Effect.callback<void>((resume) => void here.once("data", () => resume(Effect.void))),
      /** It is there, and cannot be read for 400 ms, after which timers come first: from an immediate the loop goes on to them. */
      answer: Effect.callback<void>((resume) => {
        setImmediate(() => {
          there.write("answer")
          block(400)
          resume(Effect.void)
        })
      })
    }
  })

  it.live("does not cut work whose end has come before the deadline", () =>
    Effect.gen(function* () {
      const { answer, asked } = yield* remote
      const work = Effect.andThen(Kms.initiated, asked).pipe(Kms.busy("work"))
      const program = yield* Ways.launchSignal.start(Layer.effectDiscard(Effect.forkScoped(work)), { timeout: 200 })
      program.begin()
      yield* Effect.sleep(50)
      yield* answer
      const { report } = yield* program.ended
      assert.deepStrictEqual(
        report!.sections.map(({ cut, drained }) => [drained, cut]),
        [[1, 0]]
      )
    }).pipe(Effect.scoped)
  )

  it.live("does not cut a request whose answer has come before the end of drainTimeout", () =>
    Effect.gen(function* () {
      const { answer, asked } = yield* remote
      const server = createServer()
      const response = Effect.as(asked, HttpServerResponse.text("answer"))
      const program = yield* Ways.launchSignal.start(
        HttpRouter.serve(HttpRouter.add("GET", "/", response), { disableListenLog: true, disableLogger: true }).pipe(
          Layer.provide(KmsHttp.layer(() => server, { host: "127.0.0.1", port: 0, drainTimeout: 200 }))
        )
      )
      const peer = yield* Peers.connect((server.address() as AddressInfo).port)
      const received = Effect.callback<void>((resume) => void server.once("request", () => resume(Effect.void)))
      const waiting = yield* Effect.forkChild(received, { startImmediately: true })
      peer.get("/")
      yield* Fiber.join(waiting)
      yield* Ways.drain(program, () => server)
      yield* answer
      assert.strictEqual((yield* peer.response).text, "answer")
      const [listener] = (yield* program.ended).report!.listeners
      assert.deepStrictEqual([listener!.drained, listener!.cut], [1, 0])
    }).pipe(Effect.scoped)
  )

  it.live("leaves a finalizer what has come for it before its time was over", () =>
    Effect.gen(function* () {
      const { answer, asked } = yield* remote
      // By the time of the answer its own has begun.
      const goodbye = Effect.andThen(Effect.forkDetach(answer, { startImmediately: true }), asked)
      const program = yield* Ways.launchSignal.start(
        Layer.effectDiscard(Kms.addFinalizer("pool", () => goodbye, { timeout: "200 millis" }))
      )
      program.begin()
      const { report } = yield* program.ended
      assert.deepStrictEqual(
        report!.finalizers.map(({ name, outcome }) => [name, outcome]),
        [["pool", "released"]]
      )
    }).pipe(Effect.scoped)
  )

  it.live("by a finalizer, leaves onStopped its time", () =>
    Effect.gen(function* () {
      const forceTimeout = 2000
      const told: Array<boolean> = []
      const host = Host.make()
      const app = Effect.andThen(
        Kms.addFinalizer("slow", () =>
          Effect.andThen(
            Effect.sleep(10),
            Effect.sync(() => block(forceTimeout + 100))
          )
        ),
        Effect.forkScoped(Kms.busy("work")(Effect.never))
      )
      const root = yield* Layer.effectDiscard(app).pipe(
        Kms.launch({
          timeout: 50,
          forceTimeout,
          signals: ["SIGTERM"],
          uncaught: false,
          onStopped: ({ forced }) =>
            Effect.andThen(
              Effect.sleep(20),
              Effect.sync(() => void told.push(forced))
            )
        }),
        host.provide,
        silent,
        Effect.forkDetach({ startImmediately: true })
      )
      host.signal("SIGTERM")
      yield* Fiber.await(root)
      assert.deepStrictEqual(told, [true])
    })
  )
})

describe("an error that cannot be looked at", () => {
  const fail = () => {
    throw new Error("hands off")
  }
  const errors: Record<string, unknown> = {
    "a proxy that throws": new Proxy({}, { get: fail, getPrototypeOf: fail, ownKeys: fail, has: fail }),
    "an error whose message throws": Object.defineProperty(new Error(), "message", { get: fail })
  }
  for (const [name, error] of Object.entries(errors)) {
    it.effect(`${name} ends the program as any other, and is reported`, () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const logger = Logger.make<unknown, void>((options) => {
          lines.push(JSON.stringify(Logger.formatStructured.log(options).message))
        })
        const released: Array<string> = []
        const host = Host.make()
        const started = yield* Deferred.make<void>()
        const fiber = yield* Layer.effectDiscard(
          Effect.andThen(
            Effect.addFinalizer(() => Effect.sync(() => void released.push("database"))),
            Deferred.succeed(started, undefined)
          )
        ).pipe(Kms.launch(), Effect.provide(Logger.layer([logger])), host.provide, Effect.forkDetach)
        yield* Deferred.await(started)
        host.fail(error)
        assert.strictEqual(yield* code(yield* Fiber.await(fiber)), 1)
        assert.deepStrictEqual(released, ["database"])
        assert.match(lines.at(-1)!, /Shutdown complete .*"reason":\{"_tag":"Uncaught","error":/)
      })
    )
  }
})
