/**
 * Real processes, for tests that need real signals: a program is started, watched by what it prints, and ended.
 */
import { Deferred, Effect, Exit, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

/** How a process ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** `performance.now()` of this process when it was seen. */
  readonly at: number
}

export interface Program {
  readonly child: ChildProcess
  readonly pid: number
  /** Everything it has printed so far, stdout and stderr as they came. */
  readonly output: () => string
  /** Completes with the match as soon as the output matches. Dies if the process ends before. */
  readonly printed: (pattern: RegExp) => Effect.Effect<RegExpMatchArray>
  /** Sends a signal to the process, or with `group` to its whole process group. */
  readonly kill: (signal: NodeJS.Signals, to?: "process" | "group") => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

export interface Options {
  readonly args?: ReadonlyArray<string>
  readonly env?: Record<string, string>
  /** The command; default the Node that runs the tests. */
  readonly command?: readonly [string, ...Array<string>]
}

/** The path of a file beside the test, given `import.meta.url`. */
export const beside = (url: string, file: string): string => fileURLToPath(new URL(file, url))

/** Starts `file` in a process group of its own; kills what is left of the group when the scope closes. */
export const start = (file: string, options: Options = {}): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => launch(file, options)),
    ({ child }) =>
      Effect.sync(() => {
        try {
          process.kill(-child.pid!, "SIGKILL")
        } catch {
          // It has ended.
        }
      })
  )

const launch = (file: string, options: Options): Program => {
  const [command, ...before] = options.command ?? [process.execPath]
  const child = spawn(command, [...before, file, ...(options.args ?? [])], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    // The tests themselves may have been started by nohup, which `_` would tell the program of.
    env: { ...process.env, _: process.execPath, NODE_OPTIONS: "--conditions=effect-kms-source", ...options.env }
  })
  let output = ""
  const waiting = new Set<() => void>()
  const ended = Deferred.makeUnsafe<Ended>()
  const hear = (chunk: string) => {
    output += chunk
    for (const look of Array.from(waiting)) look()
  }
  child.stdout.setEncoding("utf8").on("data", hear)
  child.stderr.setEncoding("utf8").on("data", hear)
  // `exit` comes when the process has gone, `close` when its output has been read to the end.
  let at = 0
  child.on("exit", () => {
    at = performance.now()
  })
  child.on("close", (code, signal) => {
    Deferred.doneUnsafe(ended, Exit.succeed({ code, signal, at }))
    for (const look of Array.from(waiting)) look()
  })
  return {
    child,
    pid: child.pid!,
    output: () => output,
    printed: (pattern) =>
      Effect.callback<RegExpMatchArray>((resume) => {
        const look = () => {
          const match = output.match(pattern)
          if (match !== null) resume(Effect.succeed(match))
          else if (Deferred.isDoneUnsafe(ended)) {
            resume(Effect.die(new Error(`The process ended without printing ${pattern}. It printed:\n${output}`)))
          } else return
          waiting.delete(look)
        }
        waiting.add(look)
        look()
        return Effect.sync(() => waiting.delete(look))
      }),
    kill: (signal, to = "process") =>
      Effect.sync(() => void process.kill(to === "group" ? -child.pid! : child.pid!, signal)),
    ended: Deferred.await(ended)
  }
}
