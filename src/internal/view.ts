/**
 * How a shutdown tells of itself while it goes on, and at its end. A person at a terminal sees one line that is kept up to
 * date, and then a table; whoever reads the logs gets an entry every few seconds, and then one with the whole report.
 */
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as LogLevel from "effect/LogLevel"
import { describe } from "./phase.ts"
import type { Report, Status } from "./report.ts"
import { toJson } from "./schema.ts"
import { fitted, table } from "./table.ts"
import type { Terminal } from "./terminal.ts"
import { brief, duration, summary, waiting } from "./text.ts"

export interface View {
  /** Tells what is still open, again and again. */
  readonly watch: Effect.Effect<never>
  /** Tells what has become of it all, once. */
  readonly end: (report: Report) => Effect.Effect<void>
}

/** How often a line on a terminal is written anew. */
const refresh = "250 millis"
/** How often a log is told of what is still open. */
const reminder = "3 seconds"

/** What there is to tell of. */
export interface Source {
  readonly status: () => Status
  /** What has not ended, each in words, also what nobody has given a name. */
  readonly held: () => ReadonlyArray<string>
}

export const make = (terminal: Terminal | undefined, source: Source): Effect.Effect<View> =>
  Effect.withFiber((fiber) => {
    // What would not be logged is not shown either.
    const isSilent = LogLevel.isGreaterThan(fiber.cache.minimumLogLevel, "Info")
    return Effect.succeed(terminal === undefined || isSilent ? inLog(source) : onTerminal(terminal, source))
  })

/** Says something, if the program's loggers let it: a shutdown does not fail because nobody can be told of it. */
export const tell = (log: Effect.Effect<void>): Effect.Effect<void> => Effect.asVoid(Effect.exit(log))

const inLog = (source: Source): View => ({
  watch: tell(
    Effect.suspend(() => {
      const status = source.status()
      const open = openIn(source, status, waiting)
      const left = status.left === undefined ? "" : ` (${duration(status.left)} left)`
      return open.length === 0 ? Effect.void : Effect.logInfo(`Still waiting for ${open.join("; ")}${left}`)
    })
  ).pipe(Effect.delay(reminder), Effect.forever),
  end: (report) =>
    tell(Effect.suspend(() => (report.forced ? Effect.logError : Effect.logInfo)(last(report), new Entry(report))))
})

const onTerminal = (terminal: Terminal, source: Source): View => ({
  watch: Effect.sync(() => terminal.show(fitted(line(source), terminal.columns() - 1))).pipe(
    Effect.andThen(Effect.sleep(refresh)),
    Effect.forever,
    terminal.logs ? identity : Effect.raceFirst(inLog(source).watch),
    Effect.ensuring(Effect.sync(terminal.clear))
  ),
  end: (report) =>
    Effect.andThen(
      tell(Effect.sync(() => terminal.write(table(report, { columns: terminal.columns(), colors: terminal.colors })))),
      terminal.logs ? Effect.void : inLog(source).end(report)
    )
})

/** What a shutdown waits for and how long it may, in one line. */
const line = (source: Source): string => {
  const status = source.status()
  const open = openIn(source, status, brief)
  const left = status.left === undefined ? "" : `, ${duration(status.left)} left`
  const reason = status.reason === undefined ? "" : `${describe(status.reason)}: `
  return `${reason}${phases[status.phase]}${left} | ${open.length === 0 ? "nothing open" : open.join(" | ")}`
}

/** What is still open; while scopes close and nothing with a name is, whatever else Effect knows of. */
const openIn = (source: Source, status: Status, say: (status: Status) => Array<string>): ReadonlyArray<string> => {
  const open = say(status)
  if (open.length > 0 || status.phase !== "Unwinding") return open
  const held = source.held()
  return held.length > 0 ? held : ["a finalizer without a name"]
}

const phases: Record<Status["phase"], string> = {
  Running: "running",
  LameDuck: "lame duck",
  Draining: "draining",
  Unwinding: "unwinding",
  Stopped: "stopped"
}

const last = (report: Report): string => {
  const counts = [...report.listeners, ...report.sections]
  const sum = (key: "drained" | "cut" | "abandoned") => counts.reduce((sum, count) => sum + count[key], 0)
  const totals = `${sum("drained")} drained, ${sum("cut")} cut, ${sum("abandoned")} abandoned`
  return [`${summary(report)}: ${totals}`, ...report.hung.map((hung) => `hung: ${hung}`)].join("; ")
}

/** A report in a log entry: JSON to whoever takes the entry apart, one line of it where the entry is printed. */
class Entry {
  private readonly report: Report

  constructor(report: Report) {
    this.report = report
  }

  toJSON(): unknown {
    return toJson(this.report)
  }

  toString(): string {
    return JSON.stringify(this)
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString()
  }
}
