/**
 * Requests lost at the stop of one server: written on an open keep-alive connection, and never answered. Server and
 * clients are processes of their own; how the clients count is in `test/support/hammer.ts`.
 *
 * All are stopped once a round, but those that lose are not stopped more often than five times. effect-kms is to lose
 * nothing; if it does, or its clients see anything else that is wrong, the process ends with 1.
 */
import { Console, Effect, Option } from "effect"
import { stop as stopAway } from "../test/support/lost.ts"
import { beside, start } from "../test/support/program.ts"
import type { Counted, Hammering } from "../test/support/hammer.ts"
import { type Kind, peers, type Protocol } from "./kinds.ts"
import { inRounds, head, type Measured, type Options, row, serve } from "./run.ts"
import { Random } from "./stats.ts"

interface Load {
  readonly name: string
  readonly protocol: Protocol
  readonly connections: number
  readonly think: readonly [number, number]
}

const busy = { connections: 60, think: [0, 0] } as const
const thinking = { connections: 100, think: [0, 100] } as const

const loads: ReadonlyArray<Load> = [
  { name: "60 without pause, HTTP", protocol: "http", ...busy },
  { name: "60 without pause, HTTPS", protocol: "https", ...busy },
  { name: "60 without pause, HTTP/2 over TLS", protocol: "http2", ...busy },
  { name: "100 with 0 to 100 ms of thought, HTTP", protocol: "http", ...thinking },
  { name: "100 with 0 to 100 ms of thought, HTTPS", protocol: "https", ...thinking }
]

const kinds: ReadonlyArray<Kind> = ["effect-kms", "NodeHttpServer", "node:http", ...peers]

/** Those that lose do not need more. */
const enough = 5

interface Stop {
  readonly counted: Counted
  readonly code: number | null | undefined
}

/** Stops a server `moment` milliseconds after every client has become busy. */
const stop = (kind: Kind, { connections, protocol, think }: Load, moment: number): Effect.Effect<Stop> =>
  Effect.gen(function* () {
    const { port, program } = yield* serve({ kind, protocol })
    const hammering: Hammering = { port, protocol, connections, think }
    const hammer = yield* start(beside(import.meta.url, "../test/support/hammer.ts"), {
      args: [JSON.stringify(hammering)]
    })
    yield* hammer.printed(/^busy$/m)
    yield* Effect.sleep(moment)
    const patience = 3000 + think[1]
    yield* program.kill("SIGTERM")
    // Clients that nobody has sent away by then are stopped; and a server that then still runs is killed.
    if (Option.isNone(yield* Effect.timeoutOption(hammer.ended, patience))) yield* hammer.kill("SIGTERM")
    const counted = JSON.parse((yield* hammer.printed(/^counted (.*)$/m))[1]!) as Counted
    const ended = Option.getOrUndefined(yield* Effect.timeoutOption(program.ended, patience))
    return { counted, code: ended?.code }
  }).pipe(Effect.scoped)

const isBad = ({ code, counted }: Stop): boolean =>
  counted.lost > 0 || counted.wrong > 0 || counted.stopped > 0 || code !== 0

/** What was lost, run by run, and what else was wrong. */
const cell = (measured: Measured<Stop>, kind: Kind): string => {
  const stops = measured.get(kind)!.filter((stop) => stop !== undefined)
  const lost = stops.map(({ counted }) => counted.lost)
  const wrong = stops.reduce((sum, { counted }) => sum + counted.wrong, 0)
  const total = lost.every((count) => count === 0) && stops.length > 1
  return `${total ? `0 in each of ${stops.length}` : lost.join(" ")}${wrong === 0 ? "" : `; ${wrong} turned away`}`
}

export const lost = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log(`\n## Requests lost at the stop of a busy server\n`)
  const random = new Random(options.seed)
  const columns = new Map<Kind, Array<string>>(kinds.map((kind) => [kind, []]))
  for (const load of loads) {
    const measured = yield* inRounds<Stop>(options, kinds, (kind, round) =>
      kind !== "effect-kms" && round >= enough
        ? Effect.undefined
        : // Not always at the same moment.
          stop(kind as Kind, load, random.next() * 200)
    )
    for (const kind of kinds) columns.get(kind)!.push(cell(measured, kind))
    for (const bad of measured.get("effect-kms")!.filter((stop) => stop !== undefined && isBad(stop))) {
      process.exitCode = 1
      yield* Console.error(`effect-kms, ${load.name}: ${JSON.stringify(bad, null, 2)}`)
    }
  }
  yield* head(["", ...loads.map(({ name }) => name)])
  for (const kind of kinds) yield* row([kind, ...columns.get(kind)!])
})

/** Clients that mostly think, at the far end of a proxy: what a lame duck is for. Those that lose anyhow do it a few times. */
const away = { protocol: "http", connections: 100, think: [500, 4000], delay: 40 } as const
const lameDuck = 5000
const awayKinds = ["effect-kms", "NodeHttpServer", "node:http"] as const

export const far = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log(`\n## Requests lost by 100 clients with 0.5 to 4 s of thought, 40 ms away\n`)
  const random = new Random(options.seed)
  const times = (kind: string) => Math.min(options.rounds, kind === "effect-kms" ? 20 : enough)
  const stops = (kind: (typeof awayKinds)[number], lameDuck: number) =>
    Effect.forEach(
      Array.from({ length: times(kind) }),
      () => Effect.suspend(() => stopAway({ ...away, kind, lameDuck }, random.next() * 200)),
      // They mostly wait, and do not disturb each other.
      { concurrency: 5 }
    )
  yield* head(["", ...awayKinds])
  const without: Array<string> = []
  for (const kind of awayKinds) {
    const all = yield* stops(kind, 0)
    without.push(all.map(({ counted }) => counted.lost).join(" "))
  }
  yield* row(["without a lame duck", ...without])
  const warned = yield* stops("effect-kms", lameDuck)
  const counts = warned.map(({ counted }) => counted.lost)
  if (warned.some(({ counted, server }) => isBad({ counted, code: server?.code }))) process.exitCode = 1
  yield* row([`with one of ${lameDuck / 1000} s`, counts.join(" "), "has none", "has none"])
})
