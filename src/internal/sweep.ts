/**
 * What closes when its time has come. It waits for real peers, so it runs on the real clock, whatever clock the program
 * has; and only while something is due, so that it keeps no process alive.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Process } from "./process.ts"

/** Something that may fall due. */
export interface Due {
  /** When, on the clock of `now`, if it is to at all. Only a sweep sets it. */
  due: number | undefined
  expire(): void
}

/** Milliseconds on a clock that nobody sets. */
export const now = (): number => performance.now()

/** What falls due within this many milliseconds of each other expires together. */
const grain = 5

export class Sweep {
  private readonly host: Process
  private readonly waiting = new Set<Due>()
  private running = false
  private next = Number.POSITIVE_INFINITY
  private earlier = Deferred.makeUnsafe<void>()

  constructor(host: Process) {
    this.host = host
  }

  /** Lets `item` expire at `due`, and not when it was to before. */
  put(item: Due, due: number): void {
    item.due = due
    this.waiting.add(item)
    if (!this.running) {
      this.running = true
      this.next = due
      Effect.runFork(Effect.provideService(this.run, Clock.Clock, Clock.Clock.defaultValue()))
    } else if (due < this.next) {
      this.next = due
      Deferred.doneUnsafe(this.earlier, Exit.void)
    }
  }

  cancel(item: Due): void {
    if (item.due === undefined) return
    item.due = undefined
    this.waiting.delete(item)
    // Nothing is left to wait for, so nothing may keep the process waiting.
    if (this.waiting.size === 0) Deferred.doneUnsafe(this.earlier, Exit.void)
  }

  private readonly run: Effect.Effect<void> = Effect.suspend(() => {
    this.earlier = Deferred.makeUnsafe()
    const wait = this.waiting.size === 0 ? 0 : this.next - now()
    return wait > 0 ? Effect.asVoid(Effect.timeoutOption(Deferred.await(this.earlier), wait)) : Effect.void
  }).pipe(
    // What a peer has sent may still wait to be read, and counts.
    Effect.andThen(Effect.suspend(() => (this.next > now() ? Effect.void : this.host.turn))),
    Effect.andThen(
      Effect.sync(() => {
        const at = now()
        const isTime = this.next <= at
        if (isTime) for (const item of this.waiting) if (item.due! <= at) this.expire(item)
        let next = Number.POSITIVE_INFINITY
        for (const { due } of this.waiting) next = Math.min(next, due!)
        // A timer may come a moment too early. To put it off each time would be to put it off for ever.
        this.next = isTime ? Math.max(next, at + grain) : next
        this.running = this.waiting.size > 0
        return this.running
      })
    ),
    Effect.flatMap((more) => (more ? this.run : Effect.void))
  )

  private expire(item: Due): void {
    item.due = undefined
    this.waiting.delete(item)
    try {
      item.expire()
    } catch (error) {
      // The close of somebody's own socket: it keeps none of the others.
      Effect.runFork(Effect.logWarning("A connection could not be closed", error))
    }
  }
}
