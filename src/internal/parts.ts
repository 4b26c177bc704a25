/**
 * The parts of one listener: the applications that are served on it, or the handlers that run on it. What comes in goes to
 * the part that was added last and is still open.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Drain } from "./drain.ts"
import * as Limit from "./limit.ts"
import { Process } from "./process.ts"

export interface Part {
  /** Its handlers that have not ended. */
  readonly handlers: number
  /** It is to end. */
  end(): void
  /** Completes when nothing is handled any more, `end` having been called. */
  readonly awaitEmpty: Effect.Effect<void>
  /** Interrupts what still runs. Completes when all of it has ended, which may be never. */
  close(exit?: Exit.Exit<unknown, unknown>): Effect.Effect<void>
}

export class Parts<P extends Part> {
  /** Those that are open, the newest last. */
  private readonly open: Array<P> = []
  /** Those that finish what they have begun. */
  private readonly closing = new Set<P>()
  /** Those whose handlers nobody waited for any longer. */
  private readonly left = new Set<P>()
  /** The last of them has closed, and with it the listener: whatever is added now comes too late. */
  isOver = false

  add(part: P): void {
    this.open.push(part)
  }

  /** Those that are open, and those that still finish. */
  get all(): ReadonlyArray<P> {
    return [...this.open, ...this.closing]
  }

  /** The one that takes what comes in. Where none is open, one that finishes: the last call may still bring something. */
  get current(): P | undefined {
    if (this.open.length > 0) return this.open.at(-1)
    let last: P | undefined
    for (const part of this.closing) last = part
    return last
  }

  /** Handlers that somebody waits for. */
  get handlers(): number {
    return count(this.open) + count(this.closing)
  }

  /** Those whose handlers have not ended, those included that nobody waits for any longer. */
  get unfinished(): ReadonlyArray<P> {
    for (const part of this.left) if (part.handlers === 0) this.left.delete(part)
    return [...this.all, ...this.left]
  }

  /** Handlers that have not ended, those included that nobody waits for any longer. */
  get unended(): number {
    return count(this.unfinished)
  }

  /** Interrupts whatever runs. */
  get close(): Effect.Effect<void> {
    return Effect.forEach(this.all, (part) => part.close(), { concurrency: "unbounded", discard: true })
  }

  /**
   * Closes one of them. The others go on, and so does the listener as long as there are any; with the last of them it
   * drains. Handlers that do not end within `grace` after they were interrupted are left behind.
   */
  finish(part: P, drain: Drain, exit: Exit.Exit<unknown, unknown>, grace: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      this.open.splice(this.open.indexOf(part), 1)
      this.closing.add(part)
      if (this.open.length === 0 || drain.isBegun()) {
        this.isOver = true
        yield* drain.run
      } else {
        part.end()
        yield* drain.part(part.awaitEmpty)
      }
      yield* bounded(part.close(interruption(exit)), grace)
      this.closing.delete(part)
      if (part.handlers > 0) this.left.add(part)
    })
  }
}

const count = (parts: Iterable<Part>): number => {
  let sum = 0
  for (const { handlers } of parts) sum += handlers
  return sum
}

/** What still runs when a part closes is interrupted: it was not this scope's success or failure that ended it. */
const interruption = (exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> =>
  Exit.isFailure(exit) ? exit : Exit.failCause(Cause.interrupt())

/** A finalizer cannot be interrupted, so what bounds it is the wait for it. */
export const bounded = Effect.fnUntraced(function* (self: Effect.Effect<void>, millis: number) {
  const fiber = yield* Effect.forkDetach(self, { startImmediately: true })
  // Mostly it is over by now, and a clock for that would be most of what it takes.
  if (fiber.pollUnsafe() === undefined) yield* Limit.within(Fiber.await(fiber), yield* Process, millis)
})
