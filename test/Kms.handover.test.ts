/** Work that is handed on during a drain, from whoever is in flight to whoever does it. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Queue } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { Kms, KmsHttp } from "effect-kms"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import * as Peers from "./support/peers.ts"
import * as Ways from "./support/ways.ts"

/** A store that jobs need, and what became of both, in order. */
class Store {
  readonly lines: Array<string> = []
  readonly jobs = Effect.runSync(Queue.unbounded<void>())

  readonly log = (line: string) => Effect.sync(() => void this.lines.push(line))

  /** Takes its time, so that an end which does not wait for it comes first. */
  readonly job = Effect.sleep("50 millis").pipe(Effect.andThen(this.log("job")), Kms.busy("job"))

  /** Does one job after the other, as they come. */
  readonly worker = Layer.effectDiscard(
    Effect.forkScoped(Effect.forever(Effect.andThen(Queue.take(this.jobs), this.job)))
  )

  readonly layer = Layer.effectDiscard(Effect.acquireRelease(Effect.void, () => this.log("closed")))

  readonly offer = Queue.offer(this.jobs, undefined)
}

/** Completes with the beginning of the drain. */
const announce = (drained: Deferred.Deferred<void>) =>
  Layer.effectDiscard(
    Effect.forkScoped(
      Effect.andThen(Kms.initiated, () => Deferred.succeed(drained, undefined)),
      { startImmediately: true }
    )
  )

const port = (server: Server): number => (server.address() as AddressInfo).port

/** Routes that hand a job on, one at once and one when it is let go. */
class Orders {
  server!: Server
  readonly store = new Store()
  readonly entered = Deferred.makeUnsafe<void>()
  readonly go = Deferred.makeUnsafe<void>()

  application(handOver: (store: Store) => Effect.Effect<unknown>, options: Partial<KmsHttp.Options> = {}) {
    const accept = Effect.as(handOver(this.store), HttpServerResponse.text("accepted", { status: 202 }))
    const held = Deferred.succeed(this.entered, undefined).pipe(Effect.andThen(Deferred.await(this.go)))
    const routes = Layer.mergeAll(
      HttpRouter.add("GET", "/ok", HttpServerResponse.text("ok")),
      HttpRouter.add("GET", "/order", accept),
      HttpRouter.add("GET", "/held", Effect.andThen(held, accept))
    )
    return HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provide(KmsHttp.layer(() => (this.server = createServer()), { port: 0, ...options })),
      Layer.provide(this.store.worker),
      Layer.provide(this.store.layer)
    )
  }
}

const handOvers = [
  { name: "on a queue", handOver: (store: Store) => store.offer },
  { name: "to a fiber that has yet to start", handOver: (store: Store) => Effect.forkDetach(store.job) },
  {
    name: "to a fiber that starts at once",
    handOver: (store: Store) => Effect.forkDetach(store.job, { startImmediately: true })
  }
]

describe("a job is done before the end", () => {
  for (const { handOver, name } of handOvers) {
    it.live(`that a request in flight hands on ${name}`, () =>
      Effect.gen(function* () {
        const orders = new Orders()
        const program = yield* Ways.launchSignal.start(orders.application(handOver))
        const peer = yield* Peers.connect(port(orders.server))
        peer.get("/held")
        yield* Deferred.await(orders.entered)
        yield* Ways.drain(program, () => orders.server)
        yield* Deferred.succeed(orders.go, undefined)
        assert.strictEqual((yield* peer.response).status, 202)
        const { code } = yield* program.ended
        assert.deepStrictEqual(orders.store.lines, ["job", "closed"])
        assert.strictEqual(code, 0)
      }).pipe(Effect.scoped)
    )

    it.live(`that a request which comes late in the drain hands on ${name}`, () =>
      Effect.gen(function* () {
        const orders = new Orders()
        const program = yield* Ways.launchSignal.start(orders.application(handOver, { quietPeriod: "10 seconds" }))
        const peer = yield* Peers.connect(port(orders.server))
        peer.get("/ok")
        yield* peer.response
        yield* Ways.drain(program, () => orders.server)
        peer.get("/order")
        assert.strictEqual((yield* peer.response).status, 202)
        const { code } = yield* program.ended
        assert.deepStrictEqual(orders.store.lines, ["job", "closed"])
        assert.strictEqual(code, 0)
      }).pipe(Effect.scoped)
    )
  }

  it.live("that the handler of a late request begins when its client has gone", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const entered = yield* Deferred.make<void>()
      let server!: Server
      const app = Layer.unwrap(
        Effect.map(Kms.Kms, ({ busyUnsafe }) => {
          server = createServer((request, response) => {
            if (request.url === "/ok") return void response.end("ok")
            Deferred.doneUnsafe(entered, Exit.void)
            response.on("close", () => {
              const leave = busyUnsafe("order")
              lines.push(leave === undefined ? "not taken" : "taken")
              leave?.()
            })
          })
          return KmsHttp.layerNode(() => server, { port: 0, quietPeriod: "10 seconds" })
        })
      )
      const program = yield* Ways.launchSignal.start(app)
      const peer = yield* Peers.connect(port(server))
      peer.get("/ok")
      yield* peer.response
      yield* Ways.drain(program, () => server)
      // The turn that follows the beginning of the drain is over by then.
      yield* Effect.sleep("50 millis")
      peer.get("/order")
      yield* Deferred.await(entered)
      peer.socket.resetAndDestroy()
      const { code } = yield* program.ended
      assert.deepStrictEqual(lines, ["taken"])
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("that a section begun before the drain hands on as its last act", () =>
    Effect.gen(function* () {
      const store = new Store()
      const drained = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const Order = Layer.effectDiscard(
        Deferred.await(go).pipe(
          Effect.andThen(store.offer),
          Kms.busy("order"),
          Effect.forkScoped({ startImmediately: true })
        )
      )
      const program = yield* Ways.launchSignal.start(
        Layer.mergeAll(Order, announce(drained)).pipe(Layer.provide(store.worker), Layer.provide(store.layer))
      )
      program.begin()
      yield* Deferred.await(drained)
      yield* Deferred.succeed(go, undefined)
      const { code } = yield* program.ended
      assert.deepStrictEqual(store.lines, ["job", "closed"])
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("that a request on a listener which drains with its scope has forked", () =>
    Effect.gen(function* () {
      const orders = new Orders()
      const drained = yield* Deferred.make<void>()
      const begun = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const job = Deferred.succeed(begun, undefined).pipe(
        Effect.andThen(Deferred.await(go)),
        Effect.andThen(Effect.sleep("50 millis")),
        Effect.andThen(orders.store.log("job")),
        Kms.busy("job")
      )
      const Admin = orders.application(() => Effect.forkDetach(job), { drainOn: "release", quietPeriod: 0 })
      const program = yield* Ways.launchSignal.start(Layer.provide(announce(drained), Admin))
      const peer = yield* Peers.connect(port(orders.server))
      peer.get("/order")
      assert.strictEqual((yield* peer.response).status, 202)
      yield* Deferred.await(begun)
      program.begin()
      yield* Deferred.await(drained)
      yield* Deferred.succeed(go, undefined)
      const { code } = yield* program.ended
      assert.deepStrictEqual(orders.store.lines, ["job", "closed"])
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("that such a request has forked during the drain", () =>
    Effect.gen(function* () {
      const orders = new Orders()
      const drained = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const Busy = Layer.effectDiscard(
        Effect.forkScoped(Kms.busy("order")(Deferred.await(go)), { startImmediately: true })
      )
      const Admin = orders.application(({ job }) => Effect.forkDetach(job), { drainOn: "release", quietPeriod: 0 })
      const program = yield* Ways.launchSignal.start(Layer.provide(Layer.merge(Busy, announce(drained)), Admin))
      program.begin()
      yield* Deferred.await(drained)
      const peer = yield* Peers.connect(port(orders.server))
      peer.get("/order")
      assert.strictEqual((yield* peer.response).status, 202)
      yield* Deferred.succeed(go, undefined)
      const { code } = yield* program.ended
      assert.deepStrictEqual(orders.store.lines, ["job", "closed"])
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )
})

/** Short of the time that a section held for ever would take, which is a cut and exit code 1. */
const limits = { timeout: 5000, forceTimeout: 1000 }

describe("the drain is not held for ever", () => {
  it.live("by a loop of sections that does not park, which gets one round more", () =>
    Effect.gen(function* () {
      const drained = yield* Deferred.make<void>()
      let late = 0
      const round = Effect.suspend(() => {
        if (Deferred.isDoneUnsafe(drained)) late++
        return Effect.sleep("20 millis")
      })
      const Loop = Layer.effectDiscard(
        Effect.forkScoped(Effect.forever(round.pipe(Kms.busy("round"))), { startImmediately: true })
      )
      const program = yield* Ways.launchSignal.start(Layer.merge(Loop, announce(drained)), limits)
      program.begin()
      const { code } = yield* program.ended
      assert.isTrue(Deferred.isDoneUnsafe(drained))
      assert.isAtMost(late, 1)
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("by such a loop that a request in flight has kept going", () =>
    Effect.gen(function* () {
      const orders = new Orders()
      const round = Effect.sleep("20 millis")
      const Loop = Layer.effectDiscard(Effect.forkScoped(Effect.forever(round.pipe(Kms.busy("round")))))
      const program = yield* Ways.launchSignal.start(
        Layer.provide(
          Loop,
          orders.application(() => Effect.void)
        ),
        limits
      )
      const peer = yield* Peers.connect(port(orders.server))
      peer.get("/held")
      yield* Deferred.await(orders.entered)
      yield* Ways.drain(program, () => orders.server)
      yield* Deferred.succeed(orders.go, undefined)
      assert.strictEqual((yield* peer.response).status, 202)
      assert.strictEqual((yield* program.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("by two workers that hand each other jobs in turns", () =>
    Effect.gen(function* () {
      const drained = yield* Deferred.make<void>()
      const begun = yield* Deferred.make<void>()
      const ping = yield* Queue.unbounded<void>()
      const pong = yield* Queue.unbounded<void>()
      let late = 0
      const worker = (from: Queue.Queue<void>, to: Queue.Queue<void>) =>
        Effect.suspend(() => {
          if (Deferred.isDoneUnsafe(drained)) late++
          return Deferred.succeed(begun, undefined).pipe(
            Effect.andThen(Effect.sleep("20 millis")),
            Effect.andThen(Queue.offer(to, undefined))
          )
        }).pipe(Kms.busy("turn"), (turn) => Effect.forkScoped(Effect.forever(Effect.andThen(Queue.take(from), turn))))
      const Workers = Layer.effectDiscard(Effect.andThen(worker(ping, pong), worker(pong, ping)))
      yield* Queue.offer(ping, undefined)
      const program = yield* Ways.launchSignal.start(Layer.merge(Workers, announce(drained)), limits)
      yield* Deferred.await(begun)
      program.begin()
      const { code } = yield* program.ended
      assert.isTrue(Deferred.isDoneUnsafe(drained))
      // The one that the turn in flight handed on, and no further one.
      assert.strictEqual(late, 1)
      assert.strictEqual(code, 0)
    }).pipe(Effect.scoped)
  )
})
