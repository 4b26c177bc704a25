/** What closes when its time has come does so then, whatever else is put off or taken back meanwhile. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Process } from "../src/internal/process.ts"
import { type Due, now, Sweep } from "../src/internal/sweep.ts"

class Item implements Due {
  due: number | undefined
  wanted = Number.POSITIVE_INFINITY
  late: number | undefined

  expire(): void {
    this.late = now() - this.wanted
  }
}

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
      yield* Effect.sleep(400)
      for (const { late } of [...items, last]) {
        assert.isDefined(late)
        assert.isAtLeast(late!, 0)
        assert.isBelow(late!, 250)
      }
    })
  )

  it.live("expires an item though each of its timers comes too early", () =>
    Effect.gen(function* () {
      const sweep = new Sweep(Process.defaultValue())
      yield* slowClock
      const item = new Item()
      item.wanted = now() + 20
      sweep.put(item, item.wanted)
      yield* Effect.sleep("2 seconds")
      assert.isDefined(item.late)
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
      yield* Effect.sleep(300)
      assert.isUndefined(taken.late)
      assert.isAtLeast(kept.late!, 0)
      assert.isAtLeast(off.late!, 0)
    })
  )
})
