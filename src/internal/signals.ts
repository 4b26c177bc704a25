/**
 * Process signals as an effect: the first asks to end gracefully, a second one ends at once.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { constants } from "node:os"
import * as Limit from "./limit.ts"
import { OptionError } from "./options.ts"
import type { Process } from "./process.ts"

/**
 * One Ctrl-C reaches a process twice where a wrapper passes on what the terminal has already sent to the whole process
 * group: `tsx`, `concurrently`, `node --watch` and `timeout` do, 1 to 32 ms apart. So the same signal again within this
 * many milliseconds is the same one.
 */
const echo = 500

/** What starts a shutdown where nothing else is said. */
export const defaultSignals: ReadonlyArray<NodeJS.Signals> = ["SIGINT", "SIGTERM", "SIGHUP"]

/** Signals that no process can listen for. */
const unheard: ReadonlyArray<string> = ["SIGKILL", "SIGSTOP"]

export const validate = (
  signals: ReadonlyArray<NodeJS.Signals>
): Result.Result<ReadonlyArray<NodeJS.Signals>, OptionError> => {
  if (!Array.isArray(signals)) {
    return Result.fail(new OptionError({ option: "signals", value: signals, problem: "not a list of signals" }))
  }
  for (const signal of signals) {
    const problem = unheard.includes(signal)
      ? `no process can listen for ${signal}`
      : signal in constants.signals
        ? undefined
        : `${signal} is not the name of a signal`
    if (problem !== undefined) return Result.fail(new OptionError({ option: "signals", value: signals, problem }))
  }
  return Result.succeed(signals)
}

/** Listens until the scope closes. `first` hears the first signal, `again` every further one. */
export const listen = Effect.fnUntraced(function* (
  host: Process,
  signals: ReadonlyArray<NodeJS.Signals>,
  on: { readonly first: (signal: NodeJS.Signals) => void; readonly again: (signal: NodeJS.Signals) => void }
): Effect.fn.Return<void, never, Scope.Scope> {
  const services = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  let seen = false
  /** Those whose echo may still come. */
  const heard = new Set<NodeJS.Signals>()
  const hear = (signal: NodeJS.Signals) => {
    heard.add(signal)
    // Not by the time at which the next one is read: where the first has set off something long, that says nothing.
    const forget = Effect.andThen(
      Limit.over(host, echo),
      Effect.sync(() => heard.delete(signal))
    )
    Fiber.runIn(Effect.runForkWith(services)(forget), scope)
  }
  const receive = (signal: NodeJS.Signals) => {
    if (heard.has(signal)) return
    hear(signal)
    if (seen) return on.again(signal)
    seen = true
    // systemd can be set to send a hangup right after the signal that stops a service (SendSIGHUP=).
    if (signal !== "SIGHUP") hear("SIGHUP")
    on.first(signal)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const removals = signals.map((signal) => host.onSignal(signal, () => receive(signal)))
      // To leave SIGHUP alone would end a process that nohup was to protect: Node resets the signal to its default.
      if (host.ignoresHangup() && !signals.includes("SIGHUP")) removals.push(host.onSignal("SIGHUP", () => {}))
      return removals
    }),
    (removals) => Effect.sync(() => removals.forEach((remove) => remove()))
  )
})
