/** What closes when its time has come does so then, whatever else is put off or taken back meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit } from "effect"
import { Process } from "../src/internal/process.ts"
import { type Due, now, Sweep } from "../src/internal/sweep.ts"

class Item implements Due {
  due: number | undefined
  wanted = Number.POSITIVE_INFINITY
  late: number | undefined
  readonly expired = Deferred.makeUnsafe<void>()

  expire(): void {
    this.late = now() - this.wanted
    Deferred.doneUnsafe(this.expired, Exit.void)
  }
}

/** Waits until all of them have. */
const expired = (items: ReadonlyArray<Item>) =>
  Effect.forEach(items, (item) => Deferred.await(item.expired), { discard: true })

/** How late the event loop itself is at most, in milliseconds, while the scope is open. */
const lag = Effect.gen(function* () {
  let last = performance.now()
  let worst = 0
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last)
    last = performance.now()
  }, 5)
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(timer)))
  return () => worst
})

/** A clock for `now` that is far slower than that of the timers, so that none comes late, however busy the machine is. */
const slowClock = Effect.acquireRelease(
  Effect.sync(() => {
    const real = performance.now
    const since = real.call(performance)
    performance.now = () => since + (real.call(performance) - since) / 20
    return real
  }),
  (real) => Effect.sync(() => void (performance.now = real))
)

describe("a sweep", () => {
  it.live("expires each item when it is due, and not before", () =>
    Effect.gen(function* () {
      const sweep = new Sweep(Process.defaultValue())
      const items: Array<Item> = []
      const worst = yield* lag
      // Times that are a fraction of a millisecond apart, as those of real connections are.
      for (let round = 0; round < 40; round++) {
        for (let count = 0; count < 5; count++) {
          const item = new Item()
          item.wanted = now() + 5 + ((round * 7 + count * 13.7) % 60)
          sweep.put(item, item.wanted)
          items.push(item)
        }
        yield* Effect.sleep(7)
      }
      const last = new Item()
      last.wanted = now() + 100
      sweep.put(last, last.wanted)
      yield* expired([...items, last])
      for (const { late } of [...items, last]) {
        assert.isAtLeast(late!, 0)
        // Once for the timer, and once for the turn after it.
        assert.isBelow(late!, 100 + 2 * worst())
      }
    }).pipe(Effect.scoped)
  )

  it.live("expires an item though each of its timers comes too early", () =>
    Effect.gen(function* () {
      const sweep = new Sweep(Process.defaultValue())
      yield* slowClock
      const item = new Item()
      item.wanted = now() + 20
      sweep.put(item, item.wanted)
      yield* expired([item])
      assert.isAtLeast(item.late!, 0)
    }).pipe(Effect.scoped)
  )

  it.live("expires nothing that was taken back, and what was put off only then", () =>
    Effect.gen(function* () {
      const sweep = new Sweep(Process.defaultValue())
      const [taken, off, kept] = [new Item(), new Item(), new Item()] as const
      for (const item of [taken, off, kept]) sweep.put(item, now() + 20)
      kept.wanted = kept.due!
      sweep.cancel(taken)
      off.wanted = now() + 120
      sweep.put(off, off.wanted)
      yield* expired([kept, off])
      assert.isUndefined(taken.late)
      assert.isAtLeast(kept.late!, 0)
      assert.isAtLeast(off.late!, 0)
    })
  )
})
