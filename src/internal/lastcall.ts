/**
 * The last call before listening sockets close: takes in what is on its way already.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Process } from "./process.ts"

/** Who listens. */
export interface Listening {
  /** How many connections it has accepted so far. */
  readonly accepted: () => number
}

/**
 * Waits until the kernel has handed over every connection it has already accepted on our behalf: a listening socket that
 * is closed resets whatever is left in its queue. Node takes about one connection a turn of the event loop, so this goes
 * on until a turn brings none, for at most 1,000 turns, 5 seconds, or a quarter of what is `left` to drain in: a peer that
 * goes on connecting is not to use up the time of the others. Everything is served meanwhile, so that the time does no
 * harm; 400 TLS connections, each with a request to answer, have been seen to take two seconds of a busy machine. No turn
 * counts for more than half of that: one that a handler blocked has hardly looked.
 *
 * `begin` is called in the very tick in which a turn has brought none.
 */
export const lastCall = (
  host: Process,
  listeners: Iterable<Listening>,
  left: number,
  begin: () => void
): Effect.Effect<void> => {
  const list = Array.from(listeners)
  const accepted = () => list.reduce((sum, { accepted }) => sum + accepted(), 0)
  const limit = Math.min(5000, left / 4)
  const turns = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    let spent = 0
    for (let turn = 0, before = -1; turn < 1000 && spent < limit && accepted() !== before; turn++) {
      before = accepted()
      const from = clock.currentTimeMillisUnsafe()
      yield* host.turn
      spent += Math.min(clock.currentTimeMillisUnsafe() - from, limit / 2)
    }
    begin()
  })
  return list.length === 0 ? Effect.sync(begin) : turns
}
