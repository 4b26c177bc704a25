/**
 * What the library asks of the process it runs in, as one replaceable service: so that a test can send signals that
 * are not real, read an exit code without exiting, and count turns of the event loop.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Terminal from "./terminal.ts"

/** The edge to Node. Everything that touches `process` goes through here. */
export interface Process {
  /** Calls `listener` on each delivery of `signal`, before any listener that is there already. Returns the removal. */
  readonly onSignal: (signal: NodeJS.Signals, listener: () => void) => () => void
  /** Calls `listener` on each uncaught exception and unhandled rejection. Returns the removal. */
  readonly onUncaught: (listener: (error: unknown) => void) => () => void
  /** Whether the process was started to survive the end of its terminal, by `nohup`. */
  readonly ignoresHangup: () => boolean
  /** Waits until what was written to stdout and stderr has been handed to the system. */
  readonly flush: Effect.Effect<void>
  /** Writes a line that cannot wait for a logger. */
  readonly say: (line: string) => void
  /** Ends the process. */
  readonly exit: (code: number) => void
  /** Completes after the event loop has polled for input once more. */
  readonly turn: Effect.Effect<void>
  /** Where a person watches, if one does. */
  readonly terminal: Terminal.Terminal | undefined
}

const isTerminal = (stream: NodeJS.WriteStream): boolean => stream.isTTY && process.env["TERM"] !== "dumb"

/** Whether something is on its way out. A stream whose reader has gone never calls back. */
const isWriting = (stream: NodeJS.WriteStream): boolean =>
  !stream.destroyed && stream.writable && stream.writableLength > 0

const written = (stream: NodeJS.WriteStream): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    stream.once("error", done)
    stream.write("", done)
    return Effect.sync(() => stream.off("error", done))
  })

const node: Process = {
  onSignal: (signal, listener) => {
    // `runMain` listens for the same signals and interrupts its fiber from within the listener. Ours has to come
    // first, or the interruption would be seen before the signal's name is known.
    process.prependListener(signal, listener)
    return () => process.removeListener(signal, listener)
  },
  onUncaught: (listener) => {
    process.on("uncaughtException", listener)
    return () => process.removeListener("uncaughtException", listener)
  },
  // Node gives every signal its default action back when it starts, so the mask that nohup set is gone; what is left
  // is the variable in which the shell names the command that it started.
  ignoresHangup: () => /(^|\/)nohup$/.test(process.env["_"] ?? ""),
  // Not at the start: to ask for a stream makes it.
  flush: Effect.suspend(() => {
    const writing = [process.stdout, process.stderr].filter(isWriting)
    return Effect.forEach(writing, written, { concurrency: 2, discard: true })
  }),
  say: (line) => void process.stderr.write(`${line}\n`),
  // oxlint-disable-next-line unicorn/no-process-exit -- the one place where the process ends
  exit: (code) => process.exit(code),
  // An immediate that is set while the loop polls runs right after, before the next poll: only the second is sure.
  turn: Effect.callback<void>((resume) => {
    let handle = setImmediate(() => {
      handle = setImmediate(() => resume(Effect.void))
    })
    return Effect.sync(() => clearImmediate(handle))
  }),
  get terminal() {
    return isTerminal(process.stderr) ? Terminal.of(process) : undefined
  }
}

export const Process: Context.Reference<Process> = Context.Reference<Process>("effect-kms/Process", {
  defaultValue: () => node
})
