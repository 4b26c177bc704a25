/** What Effect knows of fibers, some of it in private fields: these tests pin those. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Kms, KmsTest } from "effect-kms"
import { fibersIn, held, places } from "../src/internal/place.ts"

const query = Effect.fn("query")(function* () {
  return yield* Effect.never
})

const here = (name: string) => new RegExp(`^${name} at /.*/place\\.test\\.ts:\\d+:\\d+$`)

const forked = <A, E>(self: Effect.Effect<A, E>) => Effect.forkScoped(self, { startImmediately: true })

describe("a fiber is", () => {
  it.effect("in the innermost span or Effect.fn, with the line that it comes from", () =>
    Effect.gen(function* () {
      const fn = yield* forked(Effect.withSpan(query(), "outer"))
      const [at, ...more] = places(fn)
      assert.match(at!, here("query"))
      assert.deepStrictEqual(more, [])
      const span = yield* forked(Effect.never.pipe(Effect.withSpan("inner"), Effect.withSpan("outer")))
      assert.match(places(span)[0]!, here("inner"))
    })
  )

  it.effect("where its children are", () =>
    Effect.gen(function* () {
      const fork = <A, E>(self: Effect.Effect<A, E>) => Effect.forkChild(self, { startImmediately: true })
      const both = Effect.gen(function* () {
        const fibers = [yield* fork(query()), yield* fork(Effect.never.pipe(Effect.withSpan("lookup")))]
        yield* fork(Effect.void)
        yield* Fiber.awaitAll(fibers)
      })
      const fiber = yield* forked(Effect.withSpan(both, "outer"))
      const [first, second, ...more] = places(fiber)
      assert.match(first!, here("query"))
      assert.match(second!, here("lookup"))
      assert.deepStrictEqual(more, [])
      assert.match(held("busy", 1500, fiber), /^busy for 1\.5s, in query at \S+ and lookup at \S+$/)
    })
  )

  it.effect("in each place once, and no more than ten are told", () =>
    Effect.gen(function* () {
      const worker = Effect.fn("worker")(function* () {
        return yield* Effect.never
      })
      const many = Array.from({ length: 15 }, (_, index) => Effect.withSpan(Effect.never, `task ${index}`))
      const program = Effect.gen(function* () {
        const fibers = yield* Effect.forEach([worker(), worker(), ...many], (self) =>
          Effect.forkChild(self, { startImmediately: true })
        )
        yield* Fiber.awaitAll(fibers)
      })
      const fiber = yield* forked(program)
      const told = held("busy", 20, fiber)
      assert.match(
        told,
        /^busy for 20ms, in worker at \S+ and worker at \S+ and task 0 .* and task 7 at \S+ and 7 more$/
      )
    })
  )

  it.effect("nowhere when nothing has a name, and when it has ended", () =>
    Effect.gen(function* () {
      const nameless = yield* forked(Effect.never)
      assert.deepStrictEqual(places(nameless), [])
      assert.strictEqual(held("busy", 20, nameless), "busy for 20ms")
      const ended = yield* forked(query())
      yield* Fiber.interrupt(ended)
      assert.deepStrictEqual(places(ended), [])
      assert.strictEqual(held("busy", 20, undefined), "busy for 20ms")
    })
  )
})

describe("the fibers in a scope are", () => {
  it.effect("those that run in it, and in the scopes inside it", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const inner = yield* Scope.fork(scope)
      assert.deepStrictEqual(fibersIn(scope), [])
      const one = yield* Effect.forkIn(Effect.never, inner)
      assert.deepStrictEqual(fibersIn(scope), [one])
      const two = yield* Effect.forkIn(Effect.never, scope)
      yield* Scope.addFinalizer(scope, Effect.void)
      assert.sameMembers(fibersIn(scope), [one, two])
      yield* Fiber.interrupt(one)
      assert.deepStrictEqual(fibersIn(scope), [two])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(fibersIn(scope), [])
    })
  )
})

class Cache extends Context.Service<Cache, object>()("app/Cache") {}
class Database extends Context.Service<Database, object>()("app/Database") {}

/** What the report says has not ended. */
const hung = Effect.fnUntraced(function* (app: Layer.Layer<never>) {
  yield* KmsTest.launch(app, { timeout: "5 seconds" })
  yield* KmsTest.signal("SIGTERM")
  yield* TestClock.adjust("10 seconds")
  yield* KmsTest.exitCode
  return (yield* KmsTest.report).hung
})

describe("the report names", () => {
  it.effect("the layer that hangs, and none of those that only wait for it", () =>
    Effect.gen(function* () {
      const Hanging = Layer.effect(Database)(Effect.acquireRelease(Effect.succeed({}), () => Effect.never))
      const Other = Layer.effect(Cache)(Effect.acquireRelease(Effect.succeed({}), () => Effect.void))
      const App = Layer.effectDiscard(Effect.andThen(Database, Cache))
      const app = App.pipe(Layer.provide(Hanging.pipe(Layer.provide(Other))), Layer.provide(Other))
      const [named, ...more] = yield* hung(app)
      assert.match(named!, /^a finalizer of the layer of app\/Database for [\d.]+s$/)
      assert.deepStrictEqual(more, [])
    }).pipe(Effect.provide(KmsTest.layer))
  )

  it.effect("a finalizer that its own timeout has abandoned, as long as it goes on", () =>
    Effect.gen(function* () {
      const flush = (name: string, release: Effect.Effect<void>) =>
        Kms.addFinalizer(name, () => release, { timeout: "1 second" })
      const app = Layer.effectDiscard(
        Effect.gen(function* () {
          yield* Effect.addFinalizer(() => Effect.sleep("1 second"))
          yield* flush("stuck", Effect.never)
          yield* flush("slow", Effect.sleep("1500 millis"))
        })
      )
      const [named, ...more] = yield* hung(app)
      assert.match(named!, /^finalizer "stuck" for [\d.]+s$/)
      assert.deepStrictEqual(more, [])
    }).pipe(Effect.provide(KmsTest.layer))
  )
})
