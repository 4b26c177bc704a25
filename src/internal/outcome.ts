/**
 * How a shutdown ended, for whoever ends the process. It travels on the interruption of the root fiber: see `supervisor.ts`.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Runtime from "effect/Runtime"
import * as Limit from "./limit.ts"
import type { Process } from "./process.ts"
import type { Report } from "./report.ts"
import { defaultSignals } from "./signals.ts"

export interface Outcome {
  readonly code: number
  /** Milliseconds that may be spent on getting the last output out. */
  readonly flushTimeout: number
  readonly host: Process
  /** The signals that were listened for. */
  readonly signals: ReadonlyArray<NodeJS.Signals>
}

export const Outcome: Context.Service<Outcome, Outcome> = Context.Service<Outcome>("effect-kms/Outcome")

/** The exit code after a shutdown; `isBroken` where something went wrong in it, or before it, that the report does not have. */
export const codeOf = ({ forced, listeners, reason }: Report, isBroken: boolean): number => {
  if (reason._tag === "Failed") return Runtime.getErrorExitCode(Cause.squash(reason.cause))
  return forced || isBroken || listeners.some(({ forced }) => forced) ? 1 : 0
}

/** For the output of a program that no shutdown supervised, in milliseconds. */
const flushTimeout = 2000

/** Ends the process as `exit` says; `process` is that of a program that no shutdown supervised. */
export const teardown =
  (process: () => Process): Runtime.Teardown =>
  (exit, onExit) => {
    const annotations = Exit.isFailure(exit) ? Cause.annotations(exit.cause) : Context.empty()
    const outcome = Context.getOrUndefined(annotations as Context.Context<Outcome>, Outcome)
    const host = outcome?.host ?? process()
    const code = outcome?.code ?? exitCode(exit)
    // The echo of a Ctrl-C may come when nobody else listens any more, and would end the process as if nothing had.
    for (const signal of outcome?.signals ?? defaultSignals) host.onSignal(signal, () => {})
    const end = () => {
      onExit(code)
      host.exit(code)
    }
    const flushing = Effect.runFork(host.flush)
    // Mostly nothing is left to be written, and a clock for that would be most of what it takes.
    if (flushing.pollUnsafe() !== undefined) return end()
    const flushed = Limit.within(Fiber.await(flushing), host, outcome?.flushTimeout ?? flushTimeout)
    Effect.runFork(flushed).addObserver(end)
  }

const exitCode = (exit: Exit.Exit<unknown, unknown>): number => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return 0
  return Runtime.getErrorExitCode(Cause.squash(exit.cause))
}
