/**
 * Runs the processes of the benchmarks, from the built library, and in rounds: every subject once a round, in an order that
 * differs from round to round. What disturbs the machine disturbs all of them.
 */
import { Console, Effect, type Scope } from "effect"
import { join } from "node:path"
import { beside, type Program, start } from "../test/support/program.ts"
import type { Crowd, Ending } from "./crowd.ts"
import type { Subject, Usage } from "./kinds.ts"
import type { Loading } from "./load.ts"
import { median, type Median, Random } from "./stats.ts"

export interface Options {
  readonly rounds: number
  readonly seed: number
  /** A million short connections. */
  readonly million: boolean
  /** Parts of the names of cases; all of them where there are none. */
  readonly cases: ReadonlyArray<string>
}

/** Flags of Node, and the copy of the project that has the program; without one it is this. */
export interface Place {
  readonly flags?: ReadonlyArray<string> | undefined
  readonly home?: string | undefined
}

export const node = (
  file: string,
  argument: unknown,
  { flags = [], home }: Place = {}
): Effect.Effect<Program, never, Scope.Scope> =>
  start(home === undefined ? beside(import.meta.url, file) : join(home, "bench", file), {
    command: [process.execPath, ...flags],
    args: [JSON.stringify(argument)],
    env: { NODE_OPTIONS: "" }
  })

export interface Running {
  readonly program: Program
  readonly port: number
  readonly usage: Effect.Effect<Usage>
}

/** Starts a server. */
export const serve = Effect.fnUntraced(function* (subject: Subject, place?: Place) {
  const program = yield* node("subject.ts", subject, place)
  const port = Number((yield* program.printed(/^port (\d+)$/m))[1])
  let asked = 0
  const usage = Effect.suspend(() => {
    asked++
    return Effect.andThen(program.kill("SIGUSR2"), program.printed(new RegExp(`^usage ${asked} (.*)$`, "m")))
  }).pipe(Effect.map((match) => JSON.parse(match[1]!) as Usage))
  return { program, port, usage } satisfies Running
})

/** Clients that have had so many answers, and what lets them have as many again. */
export const loader = Effect.fnUntraced(function* (loading: Loading) {
  const program = yield* node("load.ts", loading)
  let runs = 1
  const done = Effect.suspend(() => Effect.asVoid(program.printed(new RegExp(`^done ${runs}$`, "m"))))
  yield* done
  const more = Effect.suspend(() => {
    runs++
    return Effect.andThen(program.kill("SIGUSR2"), done)
  })
  return { more }
})

/** Loads a server, and waits until all has been answered. */
export const load = (loading: Loading): Effect.Effect<void> => Effect.scoped(Effect.asVoid(loader(loading)))

/** Clients that are connected and busy. */
export const crowd = Effect.fnUntraced(function* (options: Crowd) {
  const program = yield* node("crowd.ts", options)
  yield* program.printed(/^ready$/m)
  const ended = Effect.map(program.printed(/^ended (.*)$/m), (match) => JSON.parse(match[1]!) as Ending)
  return { program, ended }
})

/** What was measured, subject by subject, in the order of the rounds. */
export type Measured<A> = ReadonlyMap<string, ReadonlyArray<A | undefined>>

/** `measure` may give nothing, where a subject has none in this round. */
export const inRounds = Effect.fnUntraced(function* <A>(
  options: Options,
  subjects: ReadonlyArray<string>,
  measure: (subject: string, round: number) => Effect.Effect<A | undefined>
) {
  const random = new Random(options.seed)
  const measured = new Map<string, Array<A | undefined>>(subjects.map((subject) => [subject, []]))
  for (let round = 0; round < options.rounds; round++) {
    for (const subject of random.shuffle(subjects)) {
      measured.get(subject)!.push(yield* measure(subject, round))
    }
    if (process.stderr.isTTY) process.stderr.write(`\r${round + 1} of ${options.rounds} rounds `)
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K")
  return measured as Measured<A>
})

/** The median of what `compare` makes of two subjects in each round that has both. */
export const paired = <A>(
  measured: Measured<A>,
  subject: string,
  base: string,
  compare: (subject: A, base: A) => number
): Median => {
  const bases = measured.get(base)!
  const values = measured.get(subject)!.flatMap((value, round) => {
    const other = bases[round]
    return value === undefined || other === undefined ? [] : [compare(value, other)]
  })
  return median(values)
}

export const of = <A>(measured: Measured<A>, subject: string, pick: (value: A) => number): Median =>
  median(measured.get(subject)!.flatMap((value) => (value === undefined ? [] : [pick(value)])))

// --- Telling ---

export const row = (cells: ReadonlyArray<string>): Effect.Effect<void> => Console.log(`| ${cells.join(" | ")} |`)

export const head = (cells: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.andThen(row(cells), row(cells.map((_, index) => (index === 0 ? "---" : "---:"))))

/** A median with its interval, as in `1.012 (1.004 to 1.020)`. */
export const told = ({ high, low, median }: Median, digits: number, unit = ""): string =>
  `${number(median, digits)}${unit} (${number(low, digits)} to ${number(high, digits)})`

export const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

/** Whether a target is met: by the whole interval, by its middle, or not. */
export const verdict = ({ high, low, median }: Median, limit: number): string =>
  high <= limit ? "met" : low > limit ? "**missed**" : median <= limit ? "met, by the median" : "missed, by the median"
